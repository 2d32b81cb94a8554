"""``depth_exr/``: OpenEXR for compositing, with the meaning of its channels in the header."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from stf_depth.config import FrozenConfig
from stf_depth.errors import AmbiguityError, InputNotFoundError, MissingExtraError
from stf_depth.export.files import aside
from stf_depth.export.reading import depth_chunks, shot_of, spans, unit_name
from stf_depth.export.source import SegmentFrames, frame_names, segment_frames
from stf_depth.result import DepthResult
from stf_depth.types import Ambiguity, BoolArray, DepthMaps, Float32Array, Representation
from stf_depth.visualization.colormaps import colorize
from stf_depth.visualization.range import DisplayRange, closeness, infinite, shot_range

__all__ = ["Options", "export"]

_MEANING = {
    Representation.DISPARITY: "disparity, larger is nearer",
    Representation.Z_DEPTH: "distance along the optical axis, larger is farther",
}


class Options(FrozenConfig):
    """quantity: what channel Z holds, the result's own quantity or distance. unknown: what it holds where nothing is
    known; ``zero`` suits filters that choke on NaN, and then channel A alone tells unknown from zero.

    view: add R, G, B to look at. colormap: of that view. ids: add a channel ``id`` of segment numbers, whose names are
    in the header.
    """

    quantity: Literal["native", "z"] = "native"
    unknown: Literal["nan", "zero"] = "nan"
    view: bool = True
    colormap: str = "gray"
    ids: bool = False


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write ``<frame name>.exr``: Z float32, A validity, and R, G, B the depth normalised over the shot.

    Unknown pixels are NaN with A = 0; infinitely far ones are 0 in disparity and infinity in distance, with A = 1.

    Raises AmbiguityError for distance asked of affine disparity, InputNotFoundError for ids without cached segments,
    MissingExtraError without OpenEXR.
    """
    openexr = _openexr()
    _check(result, options)
    segments = segment_frames(result) if options.ids else None
    ranges = [
        shot_range(result.depth, result.valid, span, result.representation, result.ambiguity)
        for span in spans(result, "shot")
    ]
    names = frame_names(result)
    with aside(target, folder=True) as partial:
        for index, maps in _single_frames(result):
            header, channels = _image(result, index, maps, options, ranges[shot_of(result, index)])
            if segments is not None:
                _add_ids(header, channels, segments, index)
            openexr.File(header, channels).write(str(partial / f"{names[index]}.exr"))
    return [target / f"{name}.exr" for name in names]


def _openexr() -> Any:
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingExtraError.of("OpenEXR", "export") from error
    return OpenEXR


def _check(result: DepthResult, options: Options) -> None:
    if options.quantity == "z" and result.ambiguity is Ambiguity.AFFINE:
        raise AmbiguityError(
            "disparity with an unknown offset cannot become distance",
            where=result.folder,
            hint="Export quantity=native, or a result of scale or metric depth",
        )
    if options.ids and segment_frames(result) is None:
        hint = "Run with --semantic or --panoptic and keep the working folder"
        raise InputNotFoundError("no cached segments for the id channel", where=result.folder, hint=hint)


def _single_frames(result: DepthResult) -> Iterator[tuple[int, DepthMaps]]:
    for start, maps in depth_chunks(result):
        for offset in range(len(maps)):
            one = slice(offset, offset + 1)
            yield start + offset, DepthMaps(maps.depth[one], maps.valid[one], maps.representation, maps.ambiguity)


def _image(
    result: DepthResult, index: int, maps: DepthMaps, options: Options, shown: DisplayRange
) -> tuple[dict[str, Any], dict[str, Any]]:
    openexr = _openexr()
    depth, valid = maps.depth[0], maps.valid[0]
    representation = Representation.Z_DEPTH if options.quantity == "z" else maps.representation
    z = _z_channel(depth, maps, representation)
    filler = np.float32(np.nan if options.unknown == "nan" else 0)
    channels: dict[str, Any] = {"Z": np.where(valid, z, filler), "A": valid.astype(np.float16)}
    if options.view:
        rgb = _linear_view(shown, depth, valid, options.colormap)
        channels |= {name: np.ascontiguousarray(rgb[..., i]) for i, name in enumerate("RGB")}
    header = {
        "compression": openexr.ZIP_COMPRESSION,
        "type": openexr.scanlineimage,
        "stfDepthZ": _MEANING[representation],
        "stfDepthUnknown": f"{options.unknown}, and A = 0",
        "representation": representation.value,
        "ambiguity": maps.ambiguity.value,
        "unit": unit_name(representation, maps.ambiguity),
        "stfDepthView": f"RGB = colour map {options.colormap} of nearness, closeness {shown.far:g} to {shown.near:g}",
        "stfDepthPtsSeconds": float(result.pts_seconds[index]),
    }
    return header, channels


def _z_channel(depth: Float32Array, maps: DepthMaps, representation: Representation) -> Float32Array:
    """Disparity with 0, or distance with infinity, where infinitely far; unknown pixels are left as they are."""
    endless = infinite(depth, maps.representation, maps.ambiguity)
    if representation is Representation.DISPARITY:
        return np.where(endless, np.float32(0), depth)
    if maps.representation is Representation.Z_DEPTH:
        z = depth
    else:
        close = closeness(depth, maps.representation, maps.ambiguity)
        z = np.asarray(1 / np.where(close > 0, close, np.float32(1)), np.float32)
    return np.where(endless, np.float32(np.inf), z)


def _linear_view(shown: DisplayRange, depth: Float32Array, valid: BoolArray, colormap: str) -> Any:
    """Half floats that a viewer's sRGB transform turns back into the colour map."""
    encoded = colorize(shown.nearness(depth), valid, colormap).astype(np.float32) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return (linear * valid[..., None]).astype(np.float16)


def _add_ids(header: dict[str, Any], channels: dict[str, Any], segments: SegmentFrames, index: int) -> None:
    height, width = channels["Z"].shape
    ids = np.asarray(segments.ids[index])
    full = cv2.resize(ids.astype(np.float64), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    channels["id"] = full.astype(np.uint32)
    names = {number: info.name for number, info in segments.table(index).items()}
    header["stfDepthIds"] = "; ".join(f"{number}={name}" for number, name in sorted(names.items()))
