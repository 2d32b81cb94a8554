"""Video formats, read back through PyAV."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import zarr

from stf_depth.errors import InputNotFoundError
from stf_depth.export import export_result
from stf_depth.result import DepthResult
from stf_depth.visualization import colorize, shot_range


@pytest.fixture(scope="module")
def result(tiny_result: Path) -> DepthResult:
    return DepthResult(tiny_result)


def decode(path: Path, pixel_format: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    frames, times = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format=pixel_format or frame.format.name))
            times.append(frame.time)
    return np.stack(frames), np.array(times)


def test_colour_video_shows_the_depth_at_the_source_times(result: DepthResult, tmp_path: Path) -> None:
    (path,) = export_result(result, "mp4", tmp_path, colormap="gray")["mp4"]
    frames, times = decode(path, "rgb24")
    np.testing.assert_allclose(times, result.pts_seconds - result.pts_seconds[0], atol=1e-4)
    shot = result.shots[0]
    shown = shot_range(result.depth, result.valid, shot, result.representation, result.ambiguity)
    expected = colorize(shown.nearness(result.depth[:]), result.valid[:], "gray")
    assert np.abs(frames.astype(float) - expected).mean() < 6


def test_comparison_has_three_panels_and_the_middle_one_flickers(result: DepthResult, tmp_path: Path) -> None:
    (path,) = export_result(result, "comparison", tmp_path, colormap="gray")["comparison"]
    frames, _ = decode(path, "rgb24")
    assert frames.shape[:2] == (len(result), 20 + 64)
    middle, right = frames[:, 30:70, 110:180, 0].mean(axis=(1, 2)), frames[:, 30:70, 210:280, 0].mean(axis=(1, 2))
    assert np.abs(np.diff(middle)).mean() > 4 * np.abs(np.diff(right)).mean()


def test_comparison_without_cached_stages_shows_two_panels(make_result: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_result()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "stages": {}}))
    (path,) = export_result(DepthResult(folder), "comparison", tmp_path)["comparison"]
    assert decode(path, "rgb24")[0].shape[2] == 2 * 96 + 4


def test_lost_source_is_named(make_result: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_result()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["input"]["path"] = str(tmp_path / "gone.mp4")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputNotFoundError, match=r"gone\.mp4"):
        export_result(DepthResult(folder), "comparison", tmp_path)
    assert export_result(DepthResult(folder), "mp4", tmp_path, audio=False)["mp4"][0].is_file()


GREY = [("mkv", "gray16le", 65535), ("mov", "gray10le", 1023)]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(("name", "pixel_format", "last"), GREY)
def test_grey_video_gives_the_disparity_back(
    result: DepthResult, tmp_path: Path, name: str, pixel_format: str, last: int, full_range: bool
) -> None:
    path, sidecar = export_result(result, name, tmp_path, full_range=full_range)[name]
    frames, times = decode(path, pixel_format)
    meaning = json.loads(sidecar.read_text())
    assert (meaning["unknown_code"], meaning["first_code"], meaning["last_code"]) == (0, 1, last)
    assert (frames.min(), frames.max()) == (1, last)
    (mapping,) = meaning["ranges"]
    low, high = mapping["closeness_at_first"], mapping["closeness_at_last"]
    decoded = low + (high - low) * (frames.astype(np.float64) - 1) / (last - 1)
    depth = np.asarray(result.depth[:])
    expected = depth if full_range else np.clip(depth, low, high)
    assert np.abs(decoded - expected).max() <= 0.52 * (high - low) / (last - 1)
    np.testing.assert_allclose(times, result.pts_seconds - result.pts_seconds[0], atol=2e-3)


@pytest.mark.parametrize(("name", "pixel_format", "last"), GREY)
@pytest.mark.parametrize("near_is_white", [True, False])
def test_grey_video_keeps_unknown_and_far_apart(
    make_result: Callable[..., Path], tmp_path: Path, name: str, pixel_format: str, last: int, near_is_white: bool
) -> None:
    result = DepthResult(make_result(ambiguity="scale"))
    group = zarr.open_group(result.folder / "depth.zarr", mode="r+")
    group["depth"][:, :10] = 0.0
    group["valid"][2, 20:30] = False
    path, _ = export_result(result, name, tmp_path, near_is_white=near_is_white)[name]
    frames = decode(path, pixel_format)[0]
    assert (frames[2, 20:30] == 0).all()
    known = np.asarray(result.valid[:])
    assert (frames[known] > 0).all()
    assert (frames[:, :10] == (1 if near_is_white else last)).all()


def test_near_can_be_black(result: DepthResult, tmp_path: Path) -> None:
    white = decode(export_result(result, "mkv", tmp_path / "a")["mkv"][0])[0]
    black = decode(export_result(result, "mkv", tmp_path / "b", near_is_white=False)["mkv"][0])[0]
    np.testing.assert_allclose(white.astype(int) + black, 65536, atol=1)
