"""Whole folders of results, and memory that does not follow the length of the video."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr

from stf_depth.errors import InputNotFoundError
from stf_depth.export import export_result, export_tree
from stf_depth.export import reading as reading_module
from stf_depth.result import DepthResult


def test_folders_are_mirrored(tiny_result: Path, tmp_path: Path) -> None:
    for name in ("day1/cam_a", "day1/cam_b", "day2/cam_a"):
        shutil.copytree(tiny_result, tmp_path / "in" / name)
    (tmp_path / "in" / "day2" / "unfinished").mkdir()
    written = export_tree(tmp_path / "in", "npz", tmp_path / "out")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.npz")) == [
        "day1/cam_a/depth.npz",
        "day1/cam_b/depth.npz",
        "day2/cam_a/depth.npz",
    ]
    assert len(written) == 3
    with pytest.raises(InputNotFoundError, match="no depth result"):
        export_tree(tmp_path / "out", "npz")


def test_one_result_is_a_tree_of_one(tiny_result: Path, tmp_path: Path) -> None:
    written = export_tree(tiny_result, "npz", tmp_path)
    assert written == {tiny_result: {"npz": [tmp_path / "depth.npz"]}}


@pytest.mark.parametrize("name", ["npz", "pkl", "zarr", "png16"])
def test_memory_does_not_follow_the_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A clip of 24 MiB is exported with less than a third of that in memory at any time."""
    frames, height, width = 96, 256, 256
    group = zarr.open_group(tmp_path / "long" / "depth.zarr", mode="w")
    shape, chunk = (frames, height, width), (4, height, width)
    depth = group.create_array("depth", shape=shape, chunks=chunk, dtype=np.float32)
    valid = group.create_array("valid", shape=shape, chunks=chunk, dtype=np.bool_)
    ramp = np.tile(np.linspace(1, 2, width, dtype=np.float32), (4, height, 1))
    for start in range(0, frames, 4):
        depth[start : start + 4], valid[start : start + 4] = ramp, True
    group.create_array("pts_seconds", data=np.arange(frames) / 25)
    group.attrs.update({"representation": "disparity", "ambiguity": "affine"})
    manifest = {"input": {"path": str(tmp_path / "gone.mp4")}, "config": {}, "models": {}, "shots": []}
    (tmp_path / "long" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(reading_module, "_CHUNK_BYTES", 2**19)
    result = DepthResult(tmp_path / "long")
    tracemalloc.start()
    try:
        export_result(result, name, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20 / 3
