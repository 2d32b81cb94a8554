"""Damaged parts of a result or of its cache are one clear error, whatever is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stf_depth.cache.store import DamagedChunkError
from stf_depth.errors import CacheError, OutputError
from stf_depth.export import export_result
from stf_depth.export.source import per_frame_depth, segment_frames, structure_maps
from stf_depth.report.sources import open_sources
from stf_depth.result import DepthResult

READERS: dict[str, Callable[[DepthResult], object]] = {
    "depth": per_frame_depth,
    "panoptic": lambda result: segment_frames(result).table(3),  # type: ignore[union-attr]
    "structure": structure_maps,
}


@pytest.fixture
def result(make_result: Callable[..., Path]) -> DepthResult:
    return DepthResult(make_result())


def test_a_whole_cache_is_read(result: DepthResult) -> None:
    assert all(read(result) is not None for read in READERS.values())
    assert open_sources(result).segments is not None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"extra": 5}', '{"extra": [[1]]}', '{"extra": [{"1": [2]}]}'])
@pytest.mark.parametrize("stage", ["depth", "panoptic"])
def test_a_damaged_marker_is_one_error(result: DepthResult, stage: str, content: str) -> None:
    folder = result.stage(stage)
    assert folder is not None
    for marker in (folder / "done").glob("*.json"):
        marker.write_text(content)
    with pytest.raises(CacheError, match="damaged cache stage"):
        READERS[stage](result)
    with pytest.raises(CacheError, match="damaged cache stage"):
        _ = (open_sources(result).segments or pytest.fail("no segments")).table(3)


@pytest.mark.parametrize("stage", READERS)
def test_a_damaged_store_is_one_error(result: DepthResult, stage: str) -> None:
    folder = result.stage(stage)
    assert folder is not None
    for metadata in (folder / "data.zarr").rglob("zarr.json"):
        metadata.write_text("no metadata")
    with pytest.raises(CacheError, match="damaged cache stage"):
        READERS[stage](result)


@pytest.mark.parametrize("name", ["depth", "valid"])
@pytest.mark.parametrize("how", ["gone", "cut", "empty"])
def test_a_damaged_result_is_named_and_not_exported(make_result: Callable[..., Path], name: str, how: str) -> None:
    folder = make_result()
    chunk = folder / "depth.zarr" / name / "c" / "1" / "0" / "0"
    content = chunk.read_bytes()
    chunk.unlink()
    if how != "gone":
        chunk.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    with pytest.raises(DamagedChunkError, match=r"damaged depth result: .*depth\.zarr chunk 1\. Repeat the run"):
        export_result(DepthResult(folder), ["npz"])
    assert not (folder / "depth.npz").exists()


@pytest.mark.parametrize("change", [{"representation": "height"}, {"ambiguity": 3}, {"representation": None}])
def test_unknown_meanings_are_one_error(result: DepthResult, change: dict[str, object]) -> None:
    path = result.folder / "depth.zarr" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"].update(change)
    path.write_text(json.dumps(metadata))
    with pytest.raises(OutputError, match="damaged depth result"):
        _ = (result.representation, result.ambiguity)
