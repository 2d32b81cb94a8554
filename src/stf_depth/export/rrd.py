"""``scene.rrd``: frames, depth, segments, camera and points in one rerun recording, synchronised in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import Field

from stf_depth.errors import AmbiguityError, GeometryError, MissingExtraError
from stf_depth.export.files import aside
from stf_depth.export.geometry import GeometryOptions, ShotGeometry, cut_edges, shot_geometry
from stf_depth.export.reading import shot_of, spans, unit_name
from stf_depth.export.source import SegmentFrames, per_frame_depth, rgb_frames, segment_frames
from stf_depth.result import DepthResult
from stf_depth.types import Float32Array, SegmentInfo, Uint8Array
from stf_depth.visualization.colormaps import colorize
from stf_depth.visualization.panels import segment_colour
from stf_depth.visualization.range import DisplayRange, closeness, shot_range

__all__ = ["Options", "export"]

_JPEG_QUALITY = 85
_EDGE_RATIO = 0.06


class Options(GeometryOptions):
    """every: use every n-th frame. width_px: largest width of the images in the recording."""

    every: int = Field(1, ge=1)
    width_px: int = Field(480, ge=32)


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write a recording that opens in rerun without the models, the source or this package.

    Every frame has the picture, the per-frame and the fused depth in colour, and its segments where they are cached.
    Where the camera is known there is also z as a depth image, which the viewer shows as points, and the camera path;
    elsewhere a note says why not. Raises InputNotFoundError when the source is gone, MissingExtraError without rerun.
    """
    rr = _rerun()
    geometries = [_geometry_or_reason(result, number, options) for number in range(len(result.shots))]
    with aside(target) as partial:
        # A fixed identity: the same result gives the same recording.
        recording = rr.RecordingStream("stf-depth", recording_id=f"stf-depth-{result.name}")
        recording.save(partial, default_blueprint=_blueprint(any(isinstance(g, ShotGeometry) for g in geometries)))
        recording.log("about", rr.TextDocument(_about(result, geometries), media_type="text/markdown"), static=True)
        recording.log("world", rr.ViewCoordinates.RDF, static=True)
        _log_paths(rr, recording, geometries)
        _log_frames(rr, recording, result, geometries, options)
        recording.flush()
        recording.disconnect()
    return [target]


def _rerun() -> Any:
    try:
        import rerun
    except ImportError as error:
        raise MissingExtraError.of("rerun-sdk", "view") from error
    return rerun


def _geometry_or_reason(result: DepthResult, number: int, options: Options) -> ShotGeometry | str:
    try:
        return shot_geometry(result, number, options)
    except (AmbiguityError, GeometryError) as error:
        return str(error)


def _about(result: DepthResult, geometries: list[ShotGeometry | str]) -> str:
    lines = [f"# {result.name}", "", f"depth: {result.representation.value}, {result.ambiguity.value}"]
    lines += [f"unit: {unit_name(result.representation, result.ambiguity)}", ""]
    for number, (shot, geometry) in enumerate(zip(result.shots, geometries, strict=True)):
        what = geometry if isinstance(geometry, str) else "; ".join([f"3D in {geometry.unit}", *geometry.notes])
        lines.append(f"- shot {number}, frames {shot.start} to {shot.stop - 1}: {what}")
    return "\n".join(lines)


def _blueprint(with_space: bool) -> Any:
    import rerun.blueprint as rrb

    pictures = [
        rrb.Spatial2DView(origin=f"pictures/{name}", name=title)
        for name, title in (("rgb", "RGB"), ("per_frame", "per frame"), ("fused", "fused"), ("segments", "segments"))
    ]
    views: list[Any] = [rrb.Vertical(*pictures)]
    if with_space:
        views.insert(0, rrb.Spatial3DView(origin="world", name="3D"))
    return rrb.Blueprint(rrb.Horizontal(*views, rrb.TextDocumentView(origin="about", name="about")))


def _log_paths(rr: Any, recording: Any, geometries: list[ShotGeometry | str]) -> None:
    for number, geometry in enumerate(geometries):
        if isinstance(geometry, ShotGeometry) and geometry.posed.any():
            line = geometry.world_from_cam[geometry.posed][:, :3, 3]
            recording.log(f"world/path_{number:03d}", rr.LineStrips3D([line], colors=[(255, 160, 40)]), static=True)


def _log_frames(
    rr: Any, recording: Any, result: DepthResult, geometries: list[ShotGeometry | str], options: Options
) -> None:
    size = _size(result, options.width_px)
    segments = segment_frames(result)
    pictures = _Pictures(result, size)
    for index, rgb in rgb_frames(result, wh=size):
        if index % options.every:
            continue
        recording.set_time("frame", sequence=index)
        recording.set_time("time", duration=float(result.pts_seconds[index]))
        for name, image in pictures.of(index):
            recording.log(f"pictures/{name}", rr.Image(image).compress(jpeg_quality=_JPEG_QUALITY))
        recording.log("pictures/rgb", rr.Image(rgb).compress(jpeg_quality=_JPEG_QUALITY))
        if segments is not None:
            _log_segments(rr, recording, segments, index, size)
        _log_space(rr, recording, result, geometries[shot_of(result, index)], index, rgb)


class _Pictures:
    """Depth in colour, per frame and fused, each with one range a shot."""

    def __init__(self, result: DepthResult, size: tuple[int, int]) -> None:
        self._size = size
        fused = (result.depth, result.valid, result.representation, result.ambiguity)
        stage = per_frame_depth(result)
        sources: dict[str, Any] = {"fused": fused}
        if stage is not None:
            sources["per_frame"] = (stage.depth, stage.valid, stage.representation, stage.ambiguity)
        self._sources = sources
        self._shots = spans(result, "shot")
        self._ranges = {
            name: [shot_range(depth, valid, shot, meaning, ambiguity) for shot in self._shots]
            for name, (depth, valid, meaning, ambiguity) in sources.items()
        }

    def of(self, index: int) -> Iterator[tuple[str, Uint8Array]]:
        number = next(n for n, shot in enumerate(self._shots) if shot.start <= index < shot.stop)
        for name, (depth, valid, *_) in self._sources.items():
            shown: DisplayRange = self._ranges[name][number]
            rgb = colorize(shown.nearness(np.asarray(depth[index])), np.asarray(valid[index]))
            yield name, np.asarray(cv2.resize(rgb, self._size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _log_segments(rr: Any, recording: Any, segments: SegmentFrames, index: int, size: tuple[int, int]) -> None:
    ids = np.asarray(segments.ids[index]).astype(np.float64)
    small = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint16)
    context = [_annotation(rr, number, info) for number, info in segments.table(index).items()]
    recording.log("pictures/segments", rr.AnnotationContext(context), rr.SegmentationImage(small))


def _annotation(rr: Any, number: int, info: SegmentInfo) -> Any:
    label = f"{info.name} ({info.role.name.lower()})"
    return rr.AnnotationInfo(id=number, label=label, color=segment_colour(number, info))


def _log_space(
    rr: Any, recording: Any, result: DepthResult, geometry: ShotGeometry | str, index: int, rgb: Uint8Array
) -> None:
    if isinstance(geometry, str):
        recording.log("world/camera", rr.Clear(recursive=True))
        return
    height, width = rgb.shape[:2]
    pose = geometry.world_from_cam[index - geometry.shot.start]
    camera = geometry.intrinsics.resized(width, height)
    recording.log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
    pinhole = rr.Pinhole(
        image_from_camera=camera.matrix(), resolution=[width, height], camera_xyz=rr.ViewCoordinates.RDF
    )
    recording.log("world/camera/image", pinhole)
    recording.log("world/camera/image/rgb", rr.Image(rgb).compress(jpeg_quality=_JPEG_QUALITY))
    z = _small_z(result, geometry, index, (width, height))
    recording.log("world/camera/image/depth", rr.DepthImage(z, meter=1.0))


def _small_z(result: DepthResult, geometry: ShotGeometry, index: int, size: tuple[int, int]) -> Float32Array:
    """z at the recording's size, 0 where unknown or between two surfaces, as the viewer expects."""
    close = closeness(np.asarray(result.depth[index]), result.representation, result.ambiguity)
    z = np.where(np.asarray(result.valid[index]), geometry.z(close), np.float32(np.nan))
    small = cv2.resize(z, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.nan_to_num(cut_edges(np.asarray(small, np.float32), _EDGE_RATIO), nan=0.0).astype(np.float32)


def _size(result: DepthResult, limit_px: int) -> tuple[int, int]:
    _, height, width = result.depth.shape
    scale = min(1.0, limit_px / width)
    return max(1, round(width * scale)), max(1, round(height * scale))
