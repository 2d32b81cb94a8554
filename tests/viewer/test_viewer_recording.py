"""Recordings, read back by rerun's own command-line tool."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stf_depth.errors import InputNotFoundError, OutputError
from stf_depth.export import export_result
from stf_depth.result import DepthResult
from stf_depth.viewer import view


def printed(recording: Path) -> str:
    command = [sys.executable, "-m", "rerun", "rrd", "print", "-v", str(recording)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def recording(tiny_result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return view(tiny_result, save=tmp_path_factory.mktemp("rrd") / "room.rrd")


def test_saved_recording_holds_every_stream(recording: Path) -> None:
    text = printed(recording)
    for entity in (
        "/pictures/rgb",
        "/pictures/per_frame",
        "/pictures/fused",
        "/pictures/segments",
        "/world/camera/image/depth",
        "/world/camera/image/rgb",
        "/world/path_000",
        "/about",
    ):
        assert entity in text, entity
    verify = [sys.executable, "-m", "rerun", "rrd", "verify", str(recording)]
    subprocess.run(verify, check=True, capture_output=True, timeout=120)


def test_saved_recording_opens_without_the_result(recording: Path, tmp_path: Path) -> None:
    copy = view(recording, save=tmp_path / "copy.rrd")
    assert copy.read_bytes() == recording.read_bytes()
    with pytest.raises(InputNotFoundError, match=r"none\.rrd"):
        view(tmp_path / "none.rrd")


def test_result_without_geometry_says_why_and_still_shows_pictures(
    make_result: Callable[..., Path], tmp_path: Path
) -> None:
    result = DepthResult(make_result(ambiguity="affine", kind="static"))
    (path,) = export_result(result, "rrd", tmp_path, every=4)["rrd"]
    text = printed(path)
    assert "/pictures/fused" in text
    assert "/world/camera/image/depth" not in text


def test_no_display_is_said(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("displays are found by their variables on Linux only")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(OutputError, match="--save"):
        view(recording)
