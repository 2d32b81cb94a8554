"""``depth_png16/``: a 16-bit PNG for each frame that describes itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import FrozenConfig
from stf_depth.errors import AmbiguityError, ShapeError
from stf_depth.export.files import aside
from stf_depth.export.reading import depth_chunks, spans, unit_name
from stf_depth.export.source import frame_names
from stf_depth.result import DepthResult
from stf_depth.types import Ambiguity, BoolArray, DepthMaps, Float32Array, Representation, Shot
from stf_depth.visualization.range import RangeSketch, infinite

__all__ = ["INFINITE_CODE", "METADATA_KEY", "UNKNOWN_CODE", "Mapping16", "Options", "decode", "encode", "export"]

UNKNOWN_CODE = 0
INFINITE_CODE = 65535
_FIRST_CODE, _LAST_CODE = 1, 65534
_METRES_PER_MILLIMETRE = 0.001
METADATA_KEY = "stf-depth"

Uint16Array = NDArray[np.uint16]


class Options(FrozenConfig):
    """How depth becomes 16 bits.

    range_over: what shares one mapping. full_range: map the smallest to the largest value, so that nothing is
    clipped; otherwise a few broken pixels far outside the rest are clipped and the rest keeps its precision.
    millimetres: code = z in millimetres, as depth cameras write it; needs metric depth. What lies beyond the last code,
    65.534 m, or infinitely far is then unknown: readers of such files know code 0 alone.
    """

    range_over: Literal["clip", "shot"] = "clip"
    full_range: bool = False
    millimetres: bool = False


@dataclass(frozen=True)
class Mapping16:
    """value = offset + step * code for codes 1 to 65534; code 0 is unknown, code 65535 infinitely far.

    The error of a value inside the range is at most step / 2.
    """

    offset: float
    step: float

    @classmethod
    def over(cls, low: float, high: float) -> Mapping16:
        """Map ``low`` to the first code and ``high`` to the last; raises ShapeError unless low <= high."""
        if not low <= high:
            raise ShapeError("a 16-bit mapping needs low <= high", got=(low, high))
        # A constant map has no spread; any step will do.
        step = (high - low) / (_LAST_CODE - _FIRST_CODE) or max(abs(low), 1e-30) * 1e-12
        return cls(low - _FIRST_CODE * step, step)


def encode(depth: Float32Array, valid: BoolArray, endless: BoolArray, mapping: Mapping16) -> Uint16Array:
    """code = round((value - offset) / step), clipped to the range; see ``Mapping16`` for the two special codes.

    depth: float32 of any shape. valid, endless: bool of that shape, endless where infinitely far.

    >>> import numpy as np
    >>> depth = np.array([1.0, 2.0, 9.0, 0.0], np.float32)
    >>> valid, endless = np.array([1, 1, 1, 0], bool), np.array([0, 0, 1, 0], bool)
    >>> encode(depth, valid, endless, Mapping16.over(1.0, 2.0)).tolist()
    [1, 65534, 65535, 0]
    """
    known = valid & ~endless & np.isfinite(depth)
    values = np.where(known, depth, mapping.offset).astype(np.float64)
    # Held within the range before the division, which a step near the smallest number would overflow.
    above = np.clip(values - mapping.offset, _FIRST_CODE * mapping.step, _LAST_CODE * mapping.step)
    code = np.rint(above / mapping.step)
    code = np.where(known, code, np.where(valid & endless, INFINITE_CODE, UNKNOWN_CODE))
    return np.asarray(code, np.uint16)


def decode(code: Uint16Array, mapping: Mapping16) -> tuple[Float32Array, BoolArray, BoolArray]:
    """Inverse of ``encode``: depth float32 (0 where it has no value), valid and infinitely far."""
    endless = code == INFINITE_CODE
    valid = code != UNKNOWN_CODE
    values = mapping.offset + mapping.step * code.astype(np.float64)
    return np.where(valid & ~endless, values, 0).astype(np.float32), valid, endless


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write ``<frame name>.png`` with its mapping in text chunks, and all of them in ``mapping.json``.

    Raises AmbiguityError when millimetres are asked of depth that is not metric.
    """
    if options.millimetres and result.ambiguity is not Ambiguity.METRIC:
        raise AmbiguityError(
            "depth in millimetres needs metric depth",
            where=result.folder,
            got=result.ambiguity.value,
            hint="Give a reference distance (to-metric) or export without millimetres",
        )
    names = frame_names(result)
    summary: dict[str, Any] = {}
    with aside(target, folder=True) as partial:
        for span in spans(result, "clip" if options.millimetres else options.range_over):
            mapping = (
                Mapping16(0.0, _METRES_PER_MILLIMETRE)
                if options.millimetres
                else _span_mapping(result, span, options.full_range)
            )
            for index, depth, valid, endless in _frames(result, span, millimetres=options.millimetres):
                meta = _metadata(result, index, mapping, millimetres=options.millimetres)
                _save(partial / f"{names[index]}.png", encode(depth, valid, endless, mapping), meta)
                summary[names[index]] = meta
        (partial / "mapping.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return [target / f"{name}.png" for name in names] + [target / "mapping.json"]


def _span_mapping(result: DepthResult, span: Shot, full_range: bool) -> Mapping16:
    low, high = np.inf, -np.inf
    sketch = RangeSketch(Representation.DISPARITY, Ambiguity.AFFINE)  # of the values as they are
    for _, maps in depth_chunks(result, span):
        usable = maps.valid & np.isfinite(maps.depth) & ~infinite(maps.depth, maps.representation, maps.ambiguity)
        sketch.push(maps.depth, usable)
        if usable.any():
            low, high = min(low, float(maps.depth[usable].min())), max(high, float(maps.depth[usable].max()))
    if low > high:
        return Mapping16.over(0.0, 1.0)
    if not full_range:
        robust = sketch.result((0.5, 99.5))
        margin = 0.5 * (robust.near - robust.far)
        low, high = max(low, robust.far - margin), min(high, robust.near + margin)
    return Mapping16.over(low, high)


def _frames(result: DepthResult, span: Shot, *, millimetres: bool) -> Any:
    for start, maps in depth_chunks(result, span):
        endless = infinite(maps.depth, maps.representation, maps.ambiguity)
        depth, valid = maps.depth, maps.valid
        if millimetres:
            depth = _z_m(maps)
            valid = valid & ~endless & (depth < (_LAST_CODE + 0.5) * _METRES_PER_MILLIMETRE)
        for offset in range(len(maps)):
            yield start + offset, depth[offset], valid[offset], endless[offset]


def _z_m(maps: DepthMaps) -> Float32Array:
    if maps.representation is Representation.Z_DEPTH:
        return maps.depth
    return np.asarray(1 / np.maximum(maps.depth, np.float32(1e-9)), np.float32)


def _metadata(result: DepthResult, index: int, mapping: Mapping16, *, millimetres: bool) -> dict[str, Any]:
    representation = Representation.Z_DEPTH if millimetres else result.representation
    return {
        "representation": representation.value,
        "ambiguity": result.ambiguity.value,
        "unit": unit_name(representation, result.ambiguity),
        **asdict(mapping),
        "unknown_code": UNKNOWN_CODE,
        "infinite_code": INFINITE_CODE,
        "pts_seconds": float(result.pts_seconds[index]),
    }


def _save(path: Path, code: Uint16Array, meta: dict[str, Any]) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text(METADATA_KEY, json.dumps(meta))
    # The same, one chunk for each value, for tools that show text chunks and for ``precomputed:<folder>``.
    flat = {key: value for key, value in meta.items() if key not in ("step", "unit")}
    for key, value in {**flat, "scale": meta["step"], "unit": meta["unit"]}.items():
        text.add_text(key, str(value))
    Image.fromarray(code).save(path, pnginfo=text, compress_level=4)
