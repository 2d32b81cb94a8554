"""What a report says, and how large it may become."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr

from stf_depth.cache.store import DamagedChunkError
from stf_depth.errors import OutputError
from stf_depth.export import export_result
from stf_depth.report import ReportOptions, write_index, write_report
from stf_depth.report.measures import slices, stability
from stf_depth.report.plots import Series, line_plot, nice_ticks
from stf_depth.report.sources import open_sources
from stf_depth.result import DepthResult
from stf_depth.synthetic import SyntheticClip
from stf_depth.types import CameraPath, Intrinsics, MotionKind

VOID = {"meta", "link", "img", "input", "br"}


class Outline(HTMLParser):
    """Collects elements and text; fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)


def outline(path: Path) -> tuple[Outline, str]:
    parser = Outline()
    parser.feed(path.read_text(encoding="utf-8"))
    assert parser.open == []
    return parser, " ".join(" ".join(parser.text).split())


def picture_data(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


def decoded(uri: str) -> np.ndarray:
    kind, content = uri.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    image = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(image[..., ::-1])


def test_report_is_whole_and_fetches_nothing(full_result: DepthResult, tmp_path: Path) -> None:
    page, text = outline(write_report(full_result, tmp_path / "report.html"))
    assert page.addresses and all(address.startswith("data:") for address in page.addresses)
    for name in ("CC-BY-NC-4.0", "hub/net", "9.8.7", "12.50 → 1.25", "Its unit is 1/m", "Solved frames 12 of 12"):
        assert name in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "not in the cache" not in text and "Fallback" not in text


def test_text_of_others_cannot_become_markup(
    complete_result: Callable[..., DepthResult], make_result: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_result()
    evil = "</script><script>alert(1)</script>"
    result = complete_result(folder, models={evil: {"name": evil, "licence": evil}})
    _, text = outline(write_report(result, tmp_path / "report.html"))
    assert evil in text and "floor <b>" in text
    assert (tmp_path / "report.html").read_text().count("<script") == 2


def test_layers_show_what_they_say(full_result: DepthResult, room_clip: Any, tmp_path: Path) -> None:
    data = picture_data(write_report(full_result, tmp_path / "report.html"))
    assert data["frames"] == list(range(12))
    assert set(data["layers"]) == {"rgb", "before", "fused", "confidence", "segments"}
    video = decoded(data["layers"]["rgb"]["uris"][7])
    assert np.abs(video.astype(int) - room_clip.rgb[7]).mean() < 8
    confidence = decoded(data["layers"]["confidence"]["uris"][3])
    np.testing.assert_allclose(confidence, 0.75 * 255, atol=3)
    before, fused = (
        np.array([decoded(uri).mean() for uri in data["layers"][key]["uris"]]) for key in ("before", "fused")
    )
    assert np.abs(np.diff(before)).mean() > 4 * np.abs(np.diff(fused)).mean()


def test_size_is_bounded_whatever_the_content(full_result: DepthResult, tmp_path: Path) -> None:
    whole = write_report(full_result, tmp_path / "a.html")
    small = write_report(full_result, tmp_path / "b.html", ReportOptions(max_megabytes=0.6, max_frames=600))
    assert small.stat().st_size <= 0.75e6 and whole.stat().st_size <= 12e6
    few = picture_data(write_report(full_result, tmp_path / "c.html", ReportOptions(max_frames=5)))
    assert few["frames"] == [0, 3, 6, 8, 11]


def test_limit_that_cannot_be_kept_is_an_error(full_result: DepthResult, tmp_path: Path) -> None:
    impossible = ReportOptions.model_construct(**{**ReportOptions().model_dump(), "max_megabytes": 1e-4})
    with pytest.raises(OutputError, match="do not fit"):
        write_report(full_result, tmp_path / "report.html", impossible)
    assert list(tmp_path.iterdir()) == []


def test_cleared_stages_are_left_out_and_named(
    complete_result: Callable[..., DepthResult], make_result: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_result()
    result = complete_result(folder)
    shutil.rmtree(folder.parent / "working")
    path = write_report(result, tmp_path / "report.html")
    _, text = outline(path)
    assert text.count("not in the cache") == 3
    assert set(picture_data(path)["layers"]) == {"fused", "confidence"}


def test_fallback_stands_at_the_top(
    complete_result: Callable[..., DepthResult], make_result: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_result(kind="static", ambiguity="scale")
    shots = json.loads((folder / "manifest.json").read_text())["shots"]
    shots[0]["fallback"] = "too little parallax"
    result = complete_result(folder, shots=shots)
    _, text = outline(write_report(result, tmp_path / "report.html"))
    assert 0 < text.index("Fallback") < text.index("too little parallax") < text.index("Before and after")
    assert "Camera path" not in text
    write_report(result, folder / "report.html")
    _, index = outline(write_index([result], folder.parent / "index.html"))
    assert "Fallback" in index


def test_damage_of_the_input_stands_at_the_top(
    complete_result: Callable[..., DepthResult], make_result: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_result()
    facts = json.loads((folder / "manifest.json").read_text())["input"]
    counts = {"failed_frames": 3, "damaged_frames": 0, "corrected_times": 2, "unusable_maps": {"panoptic": 4}}
    write_report(complete_result(folder, input={**facts, **counts}), tmp_path / "report.html")
    _, text = outline(tmp_path / "report.html")
    for told in ("3 frames of the input could not be decoded.", "2 times of", "4 frames had no usable panoptic map."):
        assert told in text
    assert "damaged" not in text


@pytest.mark.parametrize("representation", ["disparity", "z_depth"])
def test_meaning_is_stated(make_result: Callable[..., Path], tmp_path: Path, representation: str) -> None:
    result = DepthResult(make_result(representation=representation, ambiguity="scale"))
    _, text = outline(write_report(result, tmp_path / "report.html"))
    assert {"disparity": "larger is nearer", "z_depth": "larger is farther"}[representation] in text
    assert "factor per shot is unknown" in text


def test_stability_finds_the_flicker_that_was_put_in(full_result: DepthResult) -> None:
    measured = stability(open_sources(full_result), full_result.shots, full_result.pts_seconds, 60)
    assert measured is not None and measured.pairs == tuple(range(11))
    # Frames are scaled by 1.2 and 0.8 in turn: factors 2/3 and 3/2 between neighbours.
    before = measured.scale_percent["before"]
    assert (before[::2] < -15).all() and (before[1::2] > 20).all()
    assert np.abs(measured.scale_percent["fused"]).max() < 8
    assert measured.flicker_percent["before"].mean() > 4 * measured.flicker_percent["fused"].mean()


def test_slices_cut_all_stacks_at_one_height(full_result: DepthResult, room_clip: Any) -> None:
    found, window, row = slices(open_sources(full_result), full_result.shots, "gray", 8)
    assert (window.start, window.stop) == (0, 8) and 0.1 < row < 0.9
    video = next(one.rgb for one in found if one.key == "rgb")
    expected = np.repeat(room_clip.rgb[:8, int(row * 64)], 30, axis=0)
    np.testing.assert_array_equal(video, expected)
    before, fused = (
        next(one.rgb for one in found if one.key == key).astype(float).mean(axis=(1, 2))[::30]
        for key in ("before", "fused")
    )
    assert np.abs(np.diff(before)).mean() > 4 * np.abs(np.diff(fused)).mean()


def test_damaged_cache_is_reported_as_such(
    complete_result: Callable[..., DepthResult], make_result: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_result()
    result = complete_result(folder)
    chunk = next((folder.parent / "working" / "frames-test" / "data.zarr" / "rgb" / "c" / "0").rglob("0"))
    chunk = chunk if chunk.is_file() else next(path for path in chunk.rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(content)
    with pytest.raises(DamagedChunkError):
        write_report(result, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_same_result_gives_the_same_bytes(full_result: DepthResult, tmp_path: Path) -> None:
    first, second = (write_report(full_result, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_exporter_writes_the_report(full_result: DepthResult, tmp_path: Path) -> None:
    (path,) = export_result(full_result, "report", tmp_path, max_frames=3)["report"]
    assert path.name == "report.html" and len(picture_data(path)["frames"]) == 3


def test_index_links_reports_relatively(full_result: DepthResult, make_result: Callable[..., Path]) -> None:
    write_report(full_result, full_result.folder / "report.html")
    other = DepthResult(make_result())
    page, text = outline(write_index([full_result, other], full_result.folder.parent / "index.html"))
    assert [a for a in page.addresses if not a.startswith("data:")] == ["room/report.html"]
    assert "2 videos" in text and "No report was written." in text


def test_ticks_cover_the_values() -> None:
    for low, high in ((0, 0.003), (-7, 12), (0, 1e6), (3, 3)):
        ticks = nice_ticks(low, high)
        assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 7


def test_unknown_values_break_the_line() -> None:
    values = np.array([1.0, 2.0, np.nan, 3.0, 4.0, np.nan, 5.0])
    plot = line_plot("p", "title", "%", np.arange(7.0), [Series("fused", "fused", values)])
    assert plot.count("<polyline") == 2 and plot.count("<circle") == 1


def test_camera_path_keeps_its_proportions() -> None:
    from stf_depth.report.plots import camera_plot

    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = [0, 1, 2, 2, 2]
    poses[:, 2, 3] = [0, 0, 0, 1, 2]
    camera = CameraPath(
        MotionKind.PARALLAX, Intrinsics(50, 50, 31.5, 23.5, 64, 48), poses, np.ones(5, bool), np.ones(5, np.float32)
    )
    points = re.search(r'<polyline class="fused" points="([^"]*)"', camera_plot("c", camera, "m"))
    assert points is not None
    xy = np.array([[float(v) for v in pair.split(",")] for pair in points[1].split()])
    steps = np.diff(xy, axis=0)
    assert steps[0, 0] > 0 and steps[3, 1] < 0  # right is right, forward is up
    np.testing.assert_allclose(np.abs(steps).max(axis=1), np.abs(steps).max(), atol=0.2)


def test_camera_path_is_in_metres_only_where_it_is(make_result: Callable[..., Path], room_clip: SyntheticClip) -> None:
    """The solved path has a unit of its own, here half a metre; metric depth brings it to metres."""
    from stf_depth.report.sections import camera_section

    shrunk = room_clip.world_from_cam.copy()
    shrunk[:, :3, 3] *= 2
    clip = replace(room_clip, world_from_cam=shrunk)
    unit, pixels = {}, {}
    for ambiguity in ("metric", "scale"):
        result = DepthResult(make_result(clip, ambiguity=ambiguity))
        structure = result.stage("structure")
        assert structure is not None
        disparity = zarr.open_group(structure / "data.zarr", mode="r+")["disparity"]
        disparity[:] = disparity[:] / 2
        bar = re.search(r'x2="([\d.]+)" y2="\d+"/><text[^>]*>([\d.]+) ([^<]+)<', camera_section(result))
        assert bar is not None
        unit[ambiguity], pixels[ambiguity] = bar[3], (float(bar[1]) - 14) / float(bar[2])
    assert unit == {"metric": "m", "scale": "units of the camera path"}
    # The drawing fills its frame either way; one metre is two units.
    assert pixels["metric"] == pytest.approx(2 * pixels["scale"], rel=0.03)
