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
from stf_depth.types import BoolArray, Float32Array, Shot
from stf_depth.video.writer import VideoWriter
from stf_depth.visualization.range import DisplayRange, closeness, infinite, shot_range

__all__ = ["Options", "export"]

_UNKNOWN_CODE, _FIRST_CODE = 0, 1
_LAST_CODES = {"ffv1-grey16": 65535, "h265-grey10": 1023}
_WHITE = 65535  # what the writer takes as white, whatever the encoding


class Options(FrozenConfig):
    """encoding: fixed by the format. range_over: what shares one mapping. near_is_white: else far is white.

    full_range: map the farthest to the nearest value, so that nothing is clipped; otherwise the far and the near half
    percent of the pixels are clipped, and the rest keeps its precision.
    """

    encoding: Literal["ffv1-grey16", "h265-grey10"] = "ffv1-grey16"
    range_over: Literal["clip", "shot"] = "clip"
    near_is_white: bool = True
    full_range: bool = False


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write code = 1 + (last - 1) * nearness, last = 65535 or 1023 in 10 bits; 0 is unknown; and the mapping as JSON.

    ``<target>.json`` gives the codes and the closeness (disparity, or 1 / z) at the first and the last one for each
    span of frames. Infinitely far pixels have the code of the far end.
    """
    _, height, width = result.depth.shape
    last = _LAST_CODES[options.encoding]
    ranges: list[dict[str, Any]] = []
    rate = frame_rate(result.pts_seconds)
    with VideoWriter(target, wh=(width, height), frame_rate=rate, encoding=options.encoding) as writer:
        for span in spans(result, options.range_over):
            shown = _range(result, span, options.full_range)
            ranges.append({"start": span.start, "stop": span.stop, **_mapping(shown, options.near_is_white)})
            for start, maps in depth_chunks(result, span):
                code = _codes(shown, maps.depth, maps.valid, last, near_is_white=options.near_is_white)
                grey = np.rint(code * (_WHITE / last)).astype(np.uint16)
                writer.write(grey, np.asarray(result.pts_seconds[start : start + len(maps)]))
    return [target, _sidecar(result, target, last, ranges)]


def _range(result: DepthResult, span: Shot, full_range: bool) -> DisplayRange:
    if not full_range:
        return shot_range(result.depth, result.valid, span, result.representation, result.ambiguity)
    low, high = np.inf, -np.inf
    for _, maps in depth_chunks(result, span):
        usable = maps.valid & np.isfinite(maps.depth) & ~infinite(maps.depth, maps.representation, maps.ambiguity)
        close = closeness(maps.depth[usable], maps.representation, maps.ambiguity)
        if close.size:
            low, high = min(low, float(close.min())), max(high, float(close.max()))
    if low > high:
        low, high = 0.0, 1.0
    high = max(high, low + 1e-6 * max(abs(low), 1e-30))
    return DisplayRange(low, high, result.representation, result.ambiguity)


def _codes(
    shown: DisplayRange, depth: Float32Array, valid: BoolArray, last: int, *, near_is_white: bool
) -> NDArray[np.float64]:
    nearness = shown.nearness(depth).astype(np.float64)
    share = nearness if near_is_white else 1 - nearness
    return np.where(valid, _FIRST_CODE + np.rint(share * (last - _FIRST_CODE)), float(_UNKNOWN_CODE))


def _mapping(shown: DisplayRange, near_is_white: bool) -> dict[str, float]:
    first, last = (shown.far, shown.near) if near_is_white else (shown.near, shown.far)
    return {"closeness_at_first": first, "closeness_at_last": last}


def _sidecar(result: DepthResult, target: Path, last: int, ranges: list[dict[str, Any]]) -> Path:
    path = target.with_name(f"{target.name}.json")
    meaning = {
        "representation": result.representation.value,
        "ambiguity": result.ambiguity.value,
        "unit": unit_name(result.representation, result.ambiguity),
        "closeness": "disparity, 1 / z for z_depth, -z for affine z_depth",
        "unknown_code": _UNKNOWN_CODE,
        "first_code": _FIRST_CODE,
        "last_code": last,
        "ranges": ranges,
    }
    with aside(path) as partial:
        partial.write_text(json.dumps(meaning, indent=1) + "\n", encoding="utf-8")
    return path
