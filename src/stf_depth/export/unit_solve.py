"""How long the unit of a shot is in metres: from a distance, from the camera's height, or from a metric model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import AmbiguityError, GeometryError, ShapeError, SpecError
from stf_depth.export.geometry import GeometryOptions, ShotGeometry, shot_geometry, solve_affine, unproject
from stf_depth.export.source import rgb_frames
from stf_depth.result import DepthResult
from stf_depth.types import Ambiguity, DepthMaps, Float32Array, MotionKind, Role
from stf_depth.visualization.range import closeness

__all__ = [
    "CameraHeight",
    "Length",
    "MetricModel",
    "Reference",
    "ReferenceDistance",
    "model_placements",
    "options_for",
    "unit_in_metres",
]

_PATCH_PX = 2
_MIN_GROUND_POINTS = 500
_MODEL_FRAMES = 8
_MODEL_SAMPLES_PER_FRAME = 4000
# Beyond this median relative misfit, the model and the depth do not describe the same scene.
_MAX_MODEL_MISFIT = 0.3
# Any field of view will do where only z matters.
_ANY_FOV_DEGREES = 60.0


@dataclass(frozen=True)
class ReferenceDistance:
    """The surface at pixel (x, y) of a frame is ``distance_m`` away, measured along the optical axis."""

    x: int
    y: int
    distance_m: float
    frame: int = 0

    def __str__(self) -> str:
        return f"{self.distance_m:g} m at pixel ({self.x}, {self.y}) of frame {self.frame}"


@dataclass(frozen=True)
class CameraHeight:
    """The camera of a frame is ``height_m`` above the ground."""

    height_m: float
    frame: int = 0

    def __str__(self) -> str:
        return f"camera {self.height_m:g} m above the ground in frame {self.frame}"


@dataclass(frozen=True)
class MetricModel:
    """A depth backend, or depth made elsewhere (``precomputed:PATH``), whose output is in metres."""

    spec: str

    def __str__(self) -> str:
        return f"scale of the metric depth of {self.spec}"


Length = ReferenceDistance | CameraHeight
Reference = Length | MetricModel


def options_for(
    result: DepthResult, number: int, given: GeometryOptions | None, *, needs_focal: bool = False
) -> GeometryOptions:
    """Geometry options of a shot; without a solved or given focal length, any, unless it matters."""
    options = given or GeometryOptions()
    is_known = options.fov_degrees is not None or result.cameras[number].kind is MotionKind.PARALLAX
    return options if is_known or needs_focal else options.model_copy(update={"fov_degrees": _ANY_FOV_DEGREES})


def unit_in_metres(result: DepthResult, place: ShotGeometry, length: Length) -> float:
    """Metres in one unit of ``place``; raises ShapeError and GeometryError, see ``units.to_metric``."""
    if isinstance(length, ReferenceDistance):
        return _distance_unit(result, place, length)
    return _height_unit(result, place, length)


def model_placements(
    result: DepthResult, numbers: Sequence[int], model: MetricModel, options: GeometryOptions | None
) -> dict[int, tuple[ShotGeometry, float]]:
    """Placement and unit of shots by min sum rho((g c + s - 1/z_m) z_m), c closeness, z_m the model's distance.

    A few frames of each shot are compared. Where the shape of a shot is known up to its unit, only the unit is
    fitted; affine depth without a solved camera takes its offset from the model too.

    Raises AmbiguityError for a model that is not metric, GeometryError where the two contradict each other,
    InputNotFoundError when the model needs the source and it is gone.
    """
    picked = {number: _model_frames(result, number) for number in numbers}
    maps = _model_maps(result, model, sorted(index for frames in picked.values() for index in frames))
    return {n: _model_placement(result, n, model, {k: maps[k] for k in picked[n]}, options) for n in numbers}


def _model_frames(result: DepthResult, number: int) -> list[int]:
    shot = result.shots[number]
    count = min(len(shot), _MODEL_FRAMES)
    return [shot.start + (2 * i + 1) * len(shot) // (2 * count) for i in range(count)]


def _model_maps(result: DepthResult, model: MetricModel, indices: Sequence[int]) -> dict[int, DepthMaps]:
    from stf_depth.perception.base import DepthFromGeometry, IndexedDepth
    from stf_depth.perception.registry import create

    backend = create("depth", model.spec)
    if isinstance(backend, DepthFromGeometry) or backend is None:
        raise SpecError("a metric model must predict depth", got=model.spec, hint="Name a network or precomputed:PATH")
    if isinstance(backend, IndexedDepth):
        backend.check_length(len(result))
        found = {index: backend.read([index]) for index in indices}
    else:
        wanted = set(indices)
        found = {k: backend.infer(rgb[None]) for k, rgb in rgb_frames(result) if k in wanted}
    ambiguity = next(iter(found.values())).ambiguity
    if ambiguity is not Ambiguity.METRIC:
        hint = "See the units in: stf-depth models"
        raise AmbiguityError("the model does not give metres", where=model.spec, got=ambiguity.value, hint=hint)
    return found


def _model_placement(
    result: DepthResult,
    number: int,
    model: MetricModel,
    maps: dict[int, DepthMaps],
    options: GeometryOptions | None,
) -> tuple[ShotGeometry, float]:
    options = options_for(result, number, options)
    try:
        place, with_shift = shot_geometry(result, number, options), False
    except AmbiguityError:
        # The offset comes from the model; the assumption only opens the geometry and is replaced.
        assumed = options.model_copy(update={"far_over_near": 10.0})
        place, with_shift = replace(shot_geometry(result, number, assumed), gain=1.0, shift=0.0, notes=()), True
    samples = [_model_samples(result, place, index, one) for index, one in maps.items()]
    close, target = (np.concatenate(values) for values in zip(*samples, strict=True))
    if len(close):
        gain, shift = solve_affine(close, target, np.ones_like(close), with_shift=with_shift)
        misfit = float(np.median(np.abs((gain * close + shift) / target - 1)))
        if gain > 0 and misfit < _MAX_MODEL_MISFIT:
            return (replace(place, gain=gain, shift=shift), 1.0) if with_shift else (place, 1 / gain)
    raise GeometryError(
        "the metric model contradicts the depth",
        where=f"{result.folder} frames {place.shot.start} to {place.shot.stop - 1}",
        got=f"median misfit {misfit:.0%}" if len(close) else "no pixel that both know",
        hint=f"Look at what {model.spec} gives here, or give a reference distance",
    )


def _model_samples(
    result: DepthResult, place: ShotGeometry, index: int, maps: DepthMaps
) -> tuple[Float32Array, Float32Array]:
    """(inverse depth in the placement's unit, 1/m of the model) of some pixels that both know."""
    metric = maps.as_disparity()
    wh = (metric.depth.shape[2], metric.depth.shape[1])
    depth, valid = np.asarray(result.depth[index]), np.asarray(result.valid[index])
    full = closeness(depth, result.representation, result.ambiguity) * place.gain + place.shift
    close = cv2.resize(full.astype(np.float32), wh, interpolation=cv2.INTER_NEAREST_EXACT)
    known = cv2.resize(valid.astype(np.uint8), wh, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    usable = np.flatnonzero(known & np.isfinite(close) & metric.valid[0] & (metric.depth[0] > 0))
    usable = usable[:: max(1, len(usable) // _MODEL_SAMPLES_PER_FRAME)]
    return np.asarray(close, np.float32).ravel()[usable], metric.depth[0].ravel()[usable]


def _frame_z(result: DepthResult, place: ShotGeometry, frame: int) -> NDArray[np.float32]:
    depth, valid = np.asarray(result.depth[frame]), np.asarray(result.valid[frame])
    close = closeness(depth, result.representation, result.ambiguity)
    return np.where(valid, place.z(close), np.float32(np.nan))


def _distance_unit(result: DepthResult, place: ShotGeometry, reference: ReferenceDistance) -> float:
    _, height, width = result.depth.shape
    if not (0 <= reference.x < width and 0 <= reference.y < height):
        raise ShapeError(
            "reference pixel outside the frame", expected=f"{width}x{height}", got=f"{reference.x},{reference.y}"
        )
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
