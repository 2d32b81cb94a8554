"""Metres from a result that has none: one known length turns scale-ambiguous depth into metric depth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import AmbiguityError, ConfigError, GeometryError, ShapeError
from stf_depth.export.geometry import GeometryOptions, ShotGeometry, shot_geometry, unproject
from stf_depth.result import DepthResult, camera_to_json
from stf_depth.types import Ambiguity, Frames, MotionKind, Representation, Role
from stf_depth.visualization.range import closeness

__all__ = ["CameraHeight", "MetricResult", "ReferenceDistance", "parse_reference", "to_metric"]

_PATCH_PX = 2
_MIN_GROUND_POINTS = 500


@dataclass(frozen=True)
class ReferenceDistance:
    """The surface at pixel (x, y) of a frame is ``distance_m`` away, measured along the optical axis."""

    x: int
    y: int
    distance_m: float
    frame: int = 0


@dataclass(frozen=True)
class CameraHeight:
    """The camera of a frame is ``height_m`` above the ground."""

    height_m: float
    frame: int = 0


Reference = ReferenceDistance | CameraHeight


@dataclass(frozen=True)
class MetricResult(DepthResult):
    """A result seen in metres: z = unit_m / (gain * closeness + shift) in its single shot's placement.

    Nothing is written; exporters read it like any other result.
    """

    placements: tuple[ShotGeometry, ...] = ()
    units_m: tuple[float, ...] = ()

    @property
    def representation(self) -> Representation:
        """Always ``z_depth``."""
        return Representation.Z_DEPTH

    @property
    def ambiguity(self) -> Ambiguity:
        """Always ``metric``."""
        return Ambiguity.METRIC

    @property
    def depth(self) -> Frames:
        """(T, H, W) float32 z in metres, 0 where infinitely far, lazily converted."""
        return _MetricFrames(DepthResult(self.folder), self.placements, self.units_m)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest with every shot metric and the camera paths in metres."""
        content = dict(DepthResult(self.folder).manifest)
        content["shots"] = [
            {**shot, "ambiguity": Ambiguity.METRIC.value, "camera": self._camera(number), "camera_unit": "m"}
            for number, shot in enumerate(content["shots"])
        ]
        return content

    def _camera(self, number: int) -> dict[str, Any]:
        geometry = self.placements[number]
        values = camera_to_json(DepthResult(self.folder).cameras[number])
        poses = geometry.world_from_cam.copy()
        poses[:, :3, 3] *= self.units_m[number]
        return {**values, "world_from_cam": poses.tolist(), "solved": geometry.posed.tolist()}


@dataclass(frozen=True)
class _MetricFrames:
    result: DepthResult
    placements: tuple[ShotGeometry, ...]
    units_m: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.result.depth.shape

    def __len__(self) -> int:
        return len(self.result)

    def __getitem__(self, index: Any, /) -> NDArray[np.float32]:
        if isinstance(index, slice):
            picked = range(*index.indices(len(self)))
            return np.stack([self[i] for i in picked]) if picked else np.zeros((0, *self.shape[1:]), np.float32)
        number = next(n for n, place in enumerate(self.placements) if place.shot.start <= index < place.shot.stop)
        depth = np.asarray(self.result.depth[index])
        close = closeness(depth, self.result.representation, self.result.ambiguity)
        z = self.placements[number].z(close) * np.float32(self.units_m[number])
        return np.asarray(np.nan_to_num(z, nan=0.0), np.float32)


def to_metric(result: DepthResult, reference: Reference, *, options: GeometryOptions | None = None) -> DepthResult:
    """z_m = u z with u fixed by one known length; returns a view of the result in metres.

    Depth with an unknown offset needs the offset first: from the solved camera path, or from ``far_over_near`` in
    ``options``. The camera's height needs pixels segmented as ground. A result that is metric comes back as it is.

    Raises AmbiguityError where the offset is unknown or several shots have a unit each, GeometryError where the
    reference falls on no valid depth or no ground is seen, ShapeError for a pixel or frame outside the result.
    """
    if result.ambiguity is Ambiguity.METRIC:
        return result
    if len(result.shots) > 1:
        raise AmbiguityError(
            "every shot has a unit of its own: one reference cannot fix them all",
            where=result.folder,
            got=f"{len(result.shots)} shots",
            hint="Run on one shot (--start, --end), or use a metric model",
        )
    if not 0 <= reference.frame < len(result):
        raise ShapeError("reference frame outside the result", expected=f"0 to {len(result) - 1}", got=reference.frame)
    place = shot_geometry(result, 0, options or _options_for(result, reference))
    if isinstance(reference, ReferenceDistance):
        unit_m = _distance_unit(result, place, reference)
    else:
        unit_m = _height_unit(result, place, reference)
    return MetricResult(result.folder, (replace(place, max_z=np.inf),), (unit_m,))


def parse_reference(text: str) -> Reference:
    """Reference from ``pixel:X,Y=METRES``, ``pixel:X,Y@FRAME=METRES`` or ``camera-height:METRES``.

    Raises ConfigError for anything else.

    >>> parse_reference("pixel:320,240@12=2.5")
    ReferenceDistance(x=320, y=240, distance_m=2.5, frame=12)
    """
    kind, _, rest = text.partition(":")
    try:
        if kind == "camera-height":
            return CameraHeight(_positive(rest))
        if kind == "pixel":
            place, _, metres = rest.partition("=")
            pixel, _, frame = place.partition("@")
            x, y = (int(value) for value in pixel.split(","))
            return ReferenceDistance(x, y, _positive(metres), int(frame or 0))
    except ValueError:
        pass  # said below, together with the right forms
    expected = "pixel:X,Y=METRES, pixel:X,Y@FRAME=METRES or camera-height:METRES"
    raise ConfigError("cannot read the metric reference", expected=expected, got=repr(text))


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < np.inf:
        raise ValueError(text)
    return value


def _options_for(result: DepthResult, reference: Reference) -> GeometryOptions:
    # A distance along the axis needs no focal length: any field of view will do where none was solved.
    solved = result.cameras[0].kind is MotionKind.PARALLAX
    needs_focal = isinstance(reference, CameraHeight)
    return GeometryOptions() if solved or needs_focal else GeometryOptions(fov_degrees=60.0)


def _frame_z(result: DepthResult, place: ShotGeometry, frame: int) -> NDArray[np.float32]:
    depth, valid = np.asarray(result.depth[frame]), np.asarray(result.valid[frame])
    close = closeness(depth, result.representation, result.ambiguity)
    return np.where(valid, place.z(close), np.float32(np.nan))


def _distance_unit(result: DepthResult, place: ShotGeometry, reference: ReferenceDistance) -> float:
    _, height, width = result.depth.shape
    if not (0 <= reference.x < width and 0 <= reference.y < height):
        raise ShapeError("reference pixel outside the frame", expected=f"{width}x{height}", got=reference)
    z = _frame_z(result, place, reference.frame)
    around = z[
        max(0, reference.y - _PATCH_PX) : reference.y + _PATCH_PX + 1,
        max(0, reference.x - _PATCH_PX) : reference.x + _PATCH_PX + 1,
    ]
    if not np.isfinite(around).any():
        raise GeometryError(
            "no valid depth at the reference pixel",
            where=f"{result.folder} frame {reference.frame}",
            got=(reference.x, reference.y),
            hint="Choose a pixel on a textured, opaque surface",
        )
    return reference.distance_m / float(np.nanmedian(around))


def _height_unit(result: DepthResult, place: ShotGeometry, reference: CameraHeight) -> float:
    z = _frame_z(result, place, reference.frame)
    ground = _ground_mask(result, reference.frame) & np.isfinite(z)
    points = unproject(z, place.intrinsics)[ground].astype(np.float64)
    if len(points) < _MIN_GROUND_POINTS * z.size / (640 * 480):
        raise GeometryError(
            "too little ground in the reference frame",
            where=f"{result.folder} frame {reference.frame}",
            got=f"{len(points)} pixels",
            hint="Give a frame that shows the floor, or a reference distance at a pixel",
        )
    return reference.height_m / _distance_to_plane(points)


def _ground_mask(result: DepthResult, frame: int) -> NDArray[np.bool_]:
    import cv2

    from stf_depth.export.source import segment_frames

    segments = segment_frames(result)
    if segments is None:
        hint = "Run with --semantic or --panoptic, or give a reference distance at a pixel"
        raise GeometryError("the camera's height needs segments that name the ground", where=result.folder, hint=hint)
    ids = np.asarray(segments.ids[frame])
    ground = [number for number, info in segments.table(frame).items() if info.role is Role.GROUND]
    _, height, width = result.depth.shape
    mask = cv2.resize(np.isin(ids, ground).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(mask.astype(bool))


def _distance_to_plane(points: NDArray[np.float64]) -> float:
    """Distance of the origin to the plane n.p = h that fits the points, |n| = 1, by Cauchy-weighted least squares."""
    weight = np.ones(len(points))
    for _ in range(10):
        root = np.sqrt(weight)[:, None]
        normal = np.linalg.lstsq(points * root, root[:, 0], rcond=None)[0]
        residual = points @ normal - 1
        weight = 1 / (1 + (residual / max(1.5 * float(np.median(np.abs(residual))), 1e-6)) ** 2)
    return float(1 / np.linalg.norm(normal))
