"""The page in a browser: run, compare, download, cancel, refuse, and serve two visitors at once."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from stf_depth.app.limits import AppLimits
from stf_depth.app.server import WebApp, build_app, launch_options
from stf_depth.config import RunConfig
from stf_depth.errors import StfDepthError
from stf_depth.executors.base import Job, JobResult
from stf_depth.export import export_result
from stf_depth.pipeline.process import Outcome
from stf_depth.pipeline.progress import Reporter
from stf_depth.result import DepthResult

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
PATIENCE_MS = 60_000


@dataclass
class StandIn:
    """An executor that delivers a ready result once its gate is open."""

    ready: Path
    gate: threading.Event = field(default_factory=threading.Event)
    cancelled: int = 0

    def run(self, jobs: Sequence[Job], config: RunConfig, reporter: Reporter) -> list[JobResult]:  # noqa: ARG002
        (job,) = jobs
        try:
            reporter.stage(job.item.name, "fusion", 40)
            reporter.advance(12)
            while not self.gate.wait(0.02):
                reporter.advance(0)
        except StfDepthError as error:
            self.cancelled += 1
            return [JobResult(job, error=error)]
        shutil.copytree(self.ready, job.folders.output, dirs_exist_ok=True)
        result = DepthResult(job.folders.output)
        export_result(result, "comparison")
        return [JobResult(job, outcome=Outcome(result, len(result), 0, 1.0, ("fusion",)))]


@dataclass
class Site:
    """A running page and where it is."""

    app: WebApp
    url: str
    executor: StandIn | None = None


def start(limits: AppLimits, executor: StandIn | None = None, token: str | None = None) -> Site:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = build_app(limits, executor=executor)
    app.page.launch(**launch_options("127.0.0.1", port, token, limits), prevent_thread_lock=True, quiet=True)
    return Site(app, f"http://127.0.0.1:{port}", executor)


@pytest.fixture(scope="module")
def site(tiny_result: Path) -> Iterator[Site]:
    before = dict(os.environ)
    running = start(AppLimits(upload_mb=2, demo_frames=2), StandIn(tiny_result))
    yield running
    running.app.close()
    assert not running.app.sessions.root.exists()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def gate(site: Site) -> Iterator[threading.Event]:
    """Closed at the start of each test, opened at its end."""
    assert site.executor is not None
    site.executor.gate.clear()
    yield site.executor.gate
    site.executor.gate.set()


@pytest.fixture
def page(site: Site, browser: Browser) -> Iterator[Page]:
    opened, complaints, outside = visit(browser, site)
    yield opened
    assert complaints == [] and outside == []
    opened.context.close()


def visit(browser: Browser, site: Site) -> tuple[Page, list[str], list[str]]:
    """A visitor of one's own, and lists of the page's errors and of its requests to other places."""
    page = browser.new_context(accept_downloads=True).new_page()
    page.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    outside: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith((site.url, "data:", "blob:")) else outside.append(request.url),
    )
    page.goto(site.url)
    page.wait_for_selector("#run")
    return page, complaints, outside


def choose(page: Page, video: Path) -> None:
    page.locator("#upload input[type=file]").set_input_files(str(video))
    page.locator("#upload").get_by_text(video.stem[:8]).first.wait_for()


def status_has(page: Page, text: str) -> None:
    page.locator("#status").get_by_text(text).first.wait_for()


def test_upload_run_compare_and_download(site: Site, page: Page, gate: threading.Event, room_video: Path) -> None:
    choose(page, room_video)
    page.locator("#run").click()
    status_has(page, "12 / 40 frames")
    gate.set()
    status_has(page, "12 frames, 1 shot")
    page.locator("#pictures img").first.wait_for()
    assert page.locator("#pictures img").count() == 2
    before = page.locator("#pictures img").first.get_attribute("src")
    page.locator("#frame input[type=range]").fill("2")
    page.locator("#frame input[type=range]").dispatch_event("pointerup")
    page.wait_for_function("b => document.querySelector('#pictures img').src !== b", arg=before)
    page.locator("#write").click()
    page.locator("#export-status").get_by_text("depth.npz").first.wait_for()
    with page.expect_download() as download:
        page.locator("#download a[download]").first.click()
    with np.load(download.value.path(), allow_pickle=False) as content:
        assert content["depth"].shape == (12, 64, 96)


def test_cancelled_job_leaves_the_page_usable(site: Site, page: Page, gate: threading.Event, room_video: Path) -> None:
    assert site.executor is not None
    choose(page, room_video)
    page.locator("#run").click()
    status_has(page, "12 / 40 frames")
    page.locator("#cancel").click()
    status_has(page, "Cancelled.")
    assert site.executor.cancelled >= 1
    gate.set()
    page.locator("#run").click()
    status_has(page, "12 frames, 1 shot")


def test_two_visitors_at_once(site: Site, browser: Browser, gate: threading.Event, room_video: Path) -> None:
    pages = [visit(browser, site)[0] for _ in range(2)]
    for name, page in zip(("first", "second"), pages, strict=True):
        own = Path(shutil.copy(room_video, room_video.with_name(f"{name}.mp4")))
        choose(page, own)
        page.locator("#run").click()
        status_has(page, "12 / 40 frames" if name == "first" else "Waiting: 1 job ahead")
    gate.set()
    for name, page in zip(("first", "second"), pages, strict=True):
        status_has(page, f"{name}")
        status_has(page, "12 frames, 1 shot")
    for page in pages:
        page.context.close()


def test_closing_the_page_removes_the_files(site: Site, browser: Browser, gate: threading.Event) -> None:
    page, _, _ = visit(browser, site)
    known = {path.name for path in site.app.sessions.root.iterdir()}
    page.locator("#demo").click()
    page.locator("#upload").get_by_text("demo").first.wait_for()
    (folder,) = [path for path in site.app.sessions.root.iterdir() if path.name not in known]
    assert (folder / "input" / "demo.mp4").is_file()
    page.close(run_before_unload=True)
    page.context.close()
    for _ in range(200):
        if not folder.exists():
            break
        threading.Event().wait(0.1)
    assert not folder.exists()


def test_wrong_type_leaves_the_page_usable(
    site: Site, page: Page, gate: threading.Event, room_video: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    page.locator("#upload input[type=file]").set_input_files(str(tmp_path / "notes.txt"))
    page.get_by_text("Invalid file type").first.wait_for()
    page.locator("#run").click()
    status_has(page, "No video was chosen")
    gate.set()
    choose(page, room_video)
    page.locator("#run").click()
    status_has(page, "12 frames, 1 shot")


def test_damaged_video_is_refused_in_words(page: Page, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"not a video at all" * 50)
    choose(page, tmp_path / "broken.mp4")
    page.locator("#run").click()
    page.locator("#status .failed").wait_for()
    text = page.locator("#status").inner_text()
    assert "Traceback" not in text and "/tmp" not in text and "went wrong inside" not in text


def post(url: str, content: bytes, kind: str) -> tuple[int, str]:
    request = urllib.request.Request(url, content, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def form(name: str, content: bytes) -> tuple[bytes, str]:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    return head + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def run_by_hand(site: Site, data: list[Any]) -> str:
    """Call the first event of the page as a stranger's script would; returns everything that is sent back."""
    body = json.dumps({"data": data, "fn_index": 0, "session_hash": "script"}).encode()
    status, answer = post(f"{site.url}/gradio_api/queue/join", body, "application/json")
    if status != 200:
        return answer
    return get(f"{site.url}/gradio_api/queue/data?session_hash=script")[1]


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd", "https://example.org/a.mp4"])
def test_no_file_outside_is_read(site: Site, path: str) -> None:
    status, content = get(f"{site.url}/gradio_api/file={path}")
    assert status in (403, 404) and "root:" not in content
    content = run_by_hand(site, [{"path": path, "meta": {"_type": "gradio.FileData"}}, "offline"])
    assert "root:" not in content and "Traceback" not in content and "site-packages" not in content
    assert "frames, 1 shot" not in content


def test_wrong_type_is_refused_by_the_server(site: Site) -> None:
    status, answer = post(f"{site.url}/gradio_api/upload", *form("script.sh", b"#!/bin/sh"))
    assert status == 200
    content = run_by_hand(site, [{"path": json.loads(answer)[0], "meta": {"_type": "gradio.FileData"}}, "offline"])
    assert "Traceback" not in content and "site-packages" not in content
    assert '"success":false' in content or "not accepted" in content


def test_large_upload_is_refused(site: Site) -> None:
    status, _ = post(f"{site.url}/gradio_api/upload", *form("large.mp4", bytes(3_000_000)))
    assert status == 413


def test_token_guards_everything(tiny_result: Path) -> None:
    before = dict(os.environ)
    site = start(AppLimits(), StandIn(tiny_result), token="correct horse")
    try:
        assert get(f"{site.url}/config")[0] == 401
        assert post(f"{site.url}/gradio_api/upload", *form("a.mp4", b"x"))[0] == 401
        assert get(f"{site.url}/gradio_api/file={site.app.sessions.root}")[0] in (401, 403)
        login = f"{site.url}/login"
        kind = "application/x-www-form-urlencoded"
        assert post(login, b"username=me&password=wrong", kind)[0] == 400
        assert post(login, b"username=me&password=correct+horse", kind)[0] == 200
    finally:
        site.app.close()
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.slow
def test_small_clip_from_upload_to_depth(browser: Browser, room_video: Path) -> None:
    before = dict(os.environ)
    site = start(AppLimits())
    try:
        page, complaints, outside = visit(browser, site)
        page.set_default_timeout(10 * PATIENCE_MS)
        choose(page, room_video)
        page.locator("#preset").get_by_text("offline").click()
        page.locator("#run").click()
        page.locator("#status .failed").or_(page.locator("#status b")).first.wait_for()
        assert "12 frames, 1 shot" in page.locator("#status").inner_text()
        page.locator("#comparison video").wait_for()
        page.locator("#pictures img").first.wait_for()
        assert complaints == [] and outside == []
    finally:
        site.app.close()
        os.environ.clear()
        os.environ.update(before)
