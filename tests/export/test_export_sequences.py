"""Results of image sequences keep the names of their images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stf_depth.errors import OutputError
from stf_depth.export import export_result
from stf_depth.export.source import frame_names, rgb_frames
from stf_depth.result import DepthResult
from stf_depth.synthetic import SyntheticClip


@pytest.fixture
def result(room_clip: SyntheticClip, make_result: Callable[..., Path], tmp_path: Path) -> DepthResult:
    from PIL import Image

    source = tmp_path / "plates"
    source.mkdir()
    for index, rgb in enumerate(room_clip.rgb):
        Image.fromarray(rgb).save(source / f"plate_v02.{1001 + index}.png")
    times = np.arange(len(room_clip)) / 30
    return DepthResult(make_result(replace(room_clip, pts_seconds=times), source))


def test_files_carry_the_names_of_the_images(result: DepthResult, tmp_path: Path) -> None:
    files = export_result(result, "npy,png16", tmp_path / "out")
    assert [path.name for path in files["png16"][:2]] == ["plate_v02.1001.png", "plate_v02.1002.png"]
    assert [path.name for path in files["npy"][:2]] == ["plate_v02.1001.npy", "plate_v02.1002.npy"]
    assert all(path.is_file() for paths in files.values() for path in paths)


def test_frames_are_those_of_the_images(result: DepthResult, room_clip: SyntheticClip) -> None:
    for index, rgb in rgb_frames(result):
        assert (rgb == room_clip.rgb[index]).all()


def test_missing_image_is_noticed(result: DepthResult) -> None:
    (result.source / "plate_v02.1012.png").unlink()
    with pytest.raises(OutputError, match="changed since the run"):
        frame_names(result)
    with pytest.raises(OutputError, match="expected 12 frames, got 11"):
        list(rgb_frames(result))
