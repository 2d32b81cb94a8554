"""One order for frames, maps and masks: what pairs them is their place in it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stf_depth.ordering import files_in_order, natural_key
from stf_depth.perception.registry import create
from stf_depth.video.reader import open_video

# Folders whose plain order, order by case and natural order all differ.
NAMES = ("Frame_2.png", "frame_1.png", "frame_10.png", "FRAME_03.PNG")
WANTED = ("frame_1.png", "Frame_2.png", "FRAME_03.PNG", "frame_10.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """16-bit images, each of one value: its place in natural order, from 1. Beside them what a Mac leaves behind."""
    for value, name in enumerate(WANTED, 1):
        cv2.imwrite(str(tmp_path / name), np.full((4, 6), value, np.uint16))
    (tmp_path / "._frame_1.png").write_bytes(b"\0")
    return tmp_path


def test_frames_maps_and_masks_pair_by_name(folder: Path) -> None:
    with open_video(folder, allow_gaps=True) as reader:
        assert reader.names == WANTED
    depth = create("depth", f"precomputed:{folder}?representation=disparity&ambiguity=scale")
    masks = create("semantic", f"precomputed:{folder}")
    assert [int(depth.read([index]).depth[0, 0, 0]) for index in range(4)] == [1, 2, 3, 4]
    # By numbers, so that the frames that are not there count as gaps.
    assert [int(masks.read([index]).ids[0, 0, 0]) for index in (0, 1, 2, 9)] == [1, 2, 3, 4]


@given(st.permutations(NAMES))
def test_the_order_does_not_depend_on_the_disk(names: list[str]) -> None:
    assert tuple(sorted(names, key=natural_key)) == WANTED


def test_only_visible_files_of_the_kind_count(folder: Path) -> None:
    (folder / "frame_5.png").mkdir()
    (folder / "frame_6.exr").touch()
    assert [path.name for path in files_in_order(folder, (".png",))] == list(WANTED)
