"""``depth_export.zarr``: a self-contained copy of the depth store for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.export.files import aside
from stf_depth.export.geometry import camera_values
from stf_depth.export.reading import depth_chunks, unit_name
from stf_depth.result import DepthResult

__all__ = ["Options", "export"]


class Options(FrozenConfig):
    """chunk_frames: frames in one chunk of the store."""

    chunk_frames: int = Field(1, ge=1)


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write ``depth``, ``valid`` and ``pts_seconds`` with meaning, unit, shots and cameras in their own unit."""
    import zarr

    count, height, width = result.depth.shape
    chunks = (min(options.chunk_frames, count), height, width)
    with aside(target) as partial:
        group = zarr.open_group(partial, mode="w")
        depth = group.create_array("depth", shape=(count, height, width), chunks=chunks, dtype=np.float32)
        valid = group.create_array("valid", shape=(count, height, width), chunks=chunks, dtype=np.bool_)
        for start, maps in depth_chunks(result):
            depth[start : start + len(maps)] = maps.depth
            valid[start : start + len(maps)] = maps.valid
        group.create_array("pts_seconds", data=np.asarray(result.pts_seconds))
        group.attrs.update(_attributes(result))
    return [target]


def _attributes(result: DepthResult) -> dict[str, Any]:
    return {
        "representation": result.representation.value,
        "ambiguity": result.ambiguity.value,
        "unit": unit_name(result.representation, result.ambiguity),
        "shots": [
            {"start": shot.start, "stop": shot.stop, "camera": camera_values(result, number)}
            for number, shot in enumerate(result.shots)
        ],
    }
