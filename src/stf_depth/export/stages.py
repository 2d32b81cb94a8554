"""Cached stages of a result, opened for reading; whatever is damaged in them is one clear error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stf_depth.cache.store import ChunkedFrames
from stf_depth.errors import CacheError, StfDepthError
from stf_depth.result import DepthResult
from stf_depth.types import Ambiguity, Frames, Representation, Role, SegmentInfo

__all__ = ["depth_meaning", "finished_stage", "reading", "segment_table", "stage_array", "stage_extras"]

_KEPT_CHUNKS = 2


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Raise CacheError for whatever goes wrong inside with the files of a stage."""
    try:
        yield
    except StfDepthError:
        raise
    except Exception as error:  # zarr may raise anything at all for damaged metadata
        hint = "Run the same command again to repair it"
        raise CacheError("damaged cache stage", where=folder, got=repr(error)[:200], hint=hint) from error


def finished_stage(result: DepthResult, stage: str) -> Path | None:
    """Folder of a stage that is cached whole, None where it is not."""
    folder = result.stage(stage)
    return folder if folder is not None and (folder / "complete.json").is_file() else None


def stage_array(result: DepthResult, stage: str, name: str) -> Frames | None:
    """One array of a stage, read lazily; None where the stage is not cached whole. Raises CacheError."""
    folder = finished_stage(result, stage)
    if folder is None:
        return None
    import zarr

    with reading(folder):
        array: Any = zarr.open_group(folder / "data.zarr", mode="r")[name]
        return ChunkedFrames(array, int(array.shape[0]), folder, _KEPT_CHUNKS)


def stage_extras(folder: Path, chunk: int) -> list[Any]:
    """What the stage stored beside the frames of a chunk. Raises CacheError."""
    with reading(folder):
        return list(json.loads((folder / "done" / f"{chunk:06d}.json").read_text(encoding="utf-8"))["extra"])


def depth_meaning(folder: Path) -> tuple[Representation, Ambiguity]:
    """What the values of a depth stage are. Raises CacheError."""
    with reading(folder):
        representation, ambiguity = stage_extras(folder, 0)[0]
        return Representation(representation), Ambiguity(ambiguity)


def segment_table(entries: Mapping[str, Any]) -> dict[int, SegmentInfo]:
    """Id -> meaning, from what a segmentation stage stored beside a frame."""
    return {
        int(segment_id): SegmentInfo(name, Role(role), is_thing, score)
        for segment_id, (name, role, is_thing, score) in entries.items()
    }
