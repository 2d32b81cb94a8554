"""``depth_npy/``: one array file for each frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from stf_depth.config import FrozenConfig
from stf_depth.export.files import aside
from stf_depth.export.reading import depth_chunks, unit_name
from stf_depth.export.source import frame_names
from stf_depth.result import DepthResult

__all__ = ["Options", "export"]


class Options(FrozenConfig):
    """No options."""


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:  # noqa: ARG001
    """Write (H, W) float32 with NaN where unknown as ``<frame name>.npy``, and ``meaning.json`` beside them."""
    names = frame_names(result)
    with aside(target, folder=True) as partial:
        for start, maps in depth_chunks(result):
            for offset, (depth, valid) in enumerate(zip(maps.depth, maps.valid, strict=True)):
                values = np.where(valid, depth, np.float32(np.nan)).astype(np.float32)
                np.save(partial / f"{names[start + offset]}.npy", values, allow_pickle=False)
        meaning = {
            "representation": result.representation.value,
            "ambiguity": result.ambiguity.value,
            "unit": unit_name(result.representation, result.ambiguity),
            "pts_seconds": dict(zip(names, result.pts_seconds.tolist(), strict=True)),
        }
        (partial / "meaning.json").write_text(json.dumps(meaning, indent=1) + "\n", encoding="utf-8")
    return [target / f"{name}.npy" for name in names] + [target / "meaning.json"]
