"""The report in a browser: it loads in silence, and its controls do what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stf_depth.report import write_index, write_report
from stf_depth.result import DepthResult

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


class Watch:
    """Everything that a page must not do: errors, warnings, and requests beyond its own file."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def check(self, path: Path) -> None:
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith("data:")] == [path.as_uri()]


@pytest.fixture
def opened(browser: Browser, full_result: DepthResult, tmp_path: Path) -> Iterator[tuple[Page, Watch, Path]]:
    path = write_report(full_result, tmp_path / "report.html")
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    watch = Watch(page)
    page.goto(path.as_uri())
    yield page, watch, path
    page.close()


def shown(page: Page) -> dict[str, Any]:
    values: dict[str, Any] = page.evaluate(
        """() => ({left: document.getElementById("left").src, right: document.getElementById("right").src,
        clip: getComputedStyle(document.getElementById("right")).clipPath,
        time: document.getElementById("time").textContent})"""
    )
    return values


def test_report_loads_in_silence(opened: tuple[Page, Watch, Path]) -> None:
    page, watch, path = opened
    assert page.locator("h1").inner_text() == "room"
    broken = page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
    assert broken == 0
    watch.check(path)


def test_scrubber_moves_both_pictures_and_the_plots(opened: tuple[Page, Watch, Path]) -> None:
    page, watch, path = opened
    before = shown(page)
    cursor = page.locator("#flicker-plot .cursor").get_attribute("x1")
    page.locator("#scrubber").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    after = shown(page)
    assert "frame 5" in after["time"] and "frame 0" in before["time"]
    assert after["left"] != before["left"] and after["right"] != before["right"]
    assert float(page.locator("#flicker-plot .cursor").get_attribute("x1") or 0) > float(cursor or 0) + 50
    page.locator("#scrubber").fill("11")
    assert "frame 11" in shown(page)["time"]
    watch.check(path)


def test_divider_follows_the_pointer_and_the_keys(opened: tuple[Page, Watch, Path]) -> None:
    page, watch, path = opened
    box = page.locator(".screen").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
    clipped = float(shown(page)["clip"].split()[-1].rstrip("%)"))
    assert 22 < clipped < 28
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert 76 < float(shown(page)["clip"].split()[-1].rstrip("%)")) < 84
    page.keyboard.press("Home")
    assert shown(page)["clip"].endswith("0%)")
    watch.check(path)


def test_layers_can_be_chosen(opened: tuple[Page, Watch, Path]) -> None:
    page, watch, path = opened
    before = shown(page)
    page.locator("#choose-left").get_by_text("Segments").click()
    page.locator("#choose-right").get_by_text("Video").click()
    after = shown(page)
    assert after["left"] != before["left"] and after["right"] != before["right"]
    assert page.locator("#left-name").inner_text() == "Segments"
    watch.check(path)


def test_play_runs_and_pauses(opened: tuple[Page, Watch, Path]) -> None:
    page, watch, path = opened
    page.locator("#play").click()
    # The page's own policy forbids the evaluation that waiting for a condition needs: ask from outside, many times.
    for _ in range(200):
        if int(page.locator("#scrubber").input_value()) > 2:
            break
        page.wait_for_timeout(50)
    assert int(page.locator("#scrubber").input_value()) > 2
    page.locator("#play").click()
    value = page.locator("#scrubber").input_value()
    page.wait_for_timeout(300)
    assert page.locator("#scrubber").input_value() == value
    watch.check(path)


@pytest.mark.parametrize("width", [320, 768])
def test_nothing_is_wider_than_a_narrow_screen(opened: tuple[Page, Watch, Path], width: int) -> None:
    page, _, _ = opened
    page.set_viewport_size({"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_shot_buttons_jump(
    browser: Browser,
    complete_result: Callable[..., DepthResult],
    make_result: Callable[..., Path],
    tmp_path: Path,
) -> None:
    import json

    folder = make_result(kind="static")
    whole = json.loads((folder / "manifest.json").read_text())["shots"][0]
    shots = []
    for start, stop in ((0, 7), (7, 12)):
        camera = {**whole["camera"]}
        for name in ("world_from_cam", "solved", "reliability"):
            camera[name] = camera[name][start:stop]
        shots.append({**whole, "start": start, "stop": stop, "camera": camera})
    path = write_report(complete_result(folder, shots=shots), tmp_path / "report.html")
    page = browser.new_page()
    watch = Watch(page)
    page.goto(path.as_uri())
    page.locator(".timeline button").nth(1).click()
    assert shown(page)["time"].endswith("frame 7, shot 2")
    watch.check(path)
    page.close()


def test_index_leads_to_the_report(browser: Browser, full_result: DepthResult) -> None:
    write_report(full_result, full_result.folder / "report.html")
    index = write_index([full_result], full_result.folder.parent / "index.html")
    page = browser.new_page()
    watch = Watch(page)
    page.goto(index.as_uri())
    watch.check(index)
    page.locator("a.card").click()
    page.wait_for_selector("#scrubber")
    page.close()
