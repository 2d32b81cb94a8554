"""Grey video for editors and compositors: 16 bits in FFV1 (mkv) or 10 bits in HEVC (mov), both without loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import FrozenConfig
from stf_depth.export.files import aside
from stf_depth.export.reading import depth_chunks, frame_rate, spans, unit_name
from stf_depth.result import DepthResult
from stf_depth.types import BoolArray, Float32Array
from stf_depth.video.writer import VideoWriter
from stf_depth.visualization.range import DisplayRange, shot_range

__all__ = ["Options", "export"]

_WHITE = 65535


class Options(FrozenConfig):
    """encoding: fixed by the format. range_over: what shares one mapping. near_is_white: else near is black."""

    encoding: Literal["ffv1-grey16", "h265-grey10"] = "ffv1-grey16"
    range_over: Literal["clip", "shot"] = "clip"
    near_is_white: bool = True


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write grey = 65535 * nearness (10 bits: its rounded 1/64), unknown pixels as far, and the mapping as JSON.

    ``<target>.json`` gives the closeness (disparity, or 1 / z) at white and at black for each span of frames.
    """
    _, height, width = result.depth.shape
    ranges: list[dict[str, Any]] = []
    rate = frame_rate(result.pts_seconds)
    with VideoWriter(target, wh=(width, height), frame_rate=rate, encoding=options.encoding) as writer:
        for span in spans(result, options.range_over):
            shown = shot_range(result.depth, result.valid, span, result.representation, result.ambiguity)
            ranges.append({"start": span.start, "stop": span.stop, **_mapping(shown, options.near_is_white)})
            for start, maps in depth_chunks(result, span):
                grey = _grey(shown, maps.depth, maps.valid, near_is_white=options.near_is_white)
                writer.write(grey, np.asarray(result.pts_seconds[start : start + len(maps)]))
    return [target, _sidecar(result, target, ranges)]


def _grey(shown: DisplayRange, depth: Float32Array, valid: BoolArray, *, near_is_white: bool) -> NDArray[np.uint16]:
    nearness = np.where(valid, shown.nearness(depth), np.float32(0)).astype(np.float64)
    return np.rint((nearness if near_is_white else 1 - nearness) * _WHITE).astype(np.uint16)


def _mapping(shown: DisplayRange, near_is_white: bool) -> dict[str, float]:
    black, white = (shown.far, shown.near) if near_is_white else (shown.near, shown.far)
    return {"closeness_at_black": black, "closeness_at_white": white}


def _sidecar(result: DepthResult, target: Path, ranges: list[dict[str, Any]]) -> Path:
    path = target.with_name(f"{target.name}.json")
    meaning = {
        "representation": result.representation.value,
        "ambiguity": result.ambiguity.value,
        "unit": unit_name(result.representation, result.ambiguity),
        "closeness": "disparity, 1 / z for z_depth, -z for affine z_depth",
        "ranges": ranges,
    }
    with aside(path) as partial:
        partial.write_text(json.dumps(meaning, indent=1) + "\n", encoding="utf-8")
    return path
