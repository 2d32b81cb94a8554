"""From depth to points: z in one unit for each shot, together with the camera that saw it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from pydantic import Field

from stf_depth.config import FrozenConfig, GeometryConfig
from stf_depth.errors import AmbiguityError, GeometryError
from stf_depth.export.reading import depth_chunks
from stf_depth.export.source import structure_maps
from stf_depth.result import DepthResult, camera_to_json
from stf_depth.types import Ambiguity, BoolArray, Float32Array, Float64Array, Intrinsics, MotionKind, Shot
from stf_depth.visualization.range import closeness, shot_range

__all__ = [
    "GeometryOptions",
    "ShotGeometry",
    "camera_values",
    "cut_edges",
    "shot_ambiguity",
    "shot_geometry",
    "solve_affine",
    "unproject",
]

_FIT_FRAMES = 24
_FIT_SAMPLES_PER_FRAME = 4000
_MIN_FIT_SAMPLES = 500
_MIN_STRUCTURE_CONFIDENCE = 0.3
# Beyond this median relative misfit, depth and camera do not describe the same scene.
_MAX_MISFIT = 0.3
# What a run can be told of the focal length, see GeometryConfig.
_STATED = ("focal_px", "horizontal_fov_degrees")
_PATH_UNIT = "unit of the solved camera path"


class GeometryOptions(FrozenConfig):
    """What a caller may state where the result does not know it.

    fov_degrees: horizontal field of view, instead of the solved camera and of what the run was told. far_over_near:
    ratio of the far to the near end of the scene, which places affine disparity that no camera motion has placed; an
    assumption, written into the files. max_z_over_median: points farther than this many times the median z are left
    out.
    """

    fov_degrees: float | None = Field(None, gt=1, lt=179)
    far_over_near: float | None = Field(None, gt=1)
    max_z_over_median: float = Field(20.0, gt=1)


@dataclass(frozen=True)
class ShotGeometry:
    """z = 1 / (gain * closeness + shift) in ``unit``, seen by a pinhole camera.

    world_from_cam: (T, 4, 4) float64 in the same unit, with ``posed`` (T,) bool saying which are solved; the identity
    where the camera is unknown. max_z: farther points are left out. notes: assumptions, as printed into files.
    """

    shot: Shot
    intrinsics: Intrinsics
    gain: float
    shift: float
    unit: str
    max_z: float
    world_from_cam: Float64Array
    posed: BoolArray
    notes: tuple[str, ...] = ()

    def z(self, close: Float32Array) -> Float32Array:
        """z of closeness of any shape, NaN for points at infinity, behind the camera or beyond ``max_z``."""
        disparity = np.asarray(close, np.float64) * self.gain + self.shift
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(disparity > 1 / self.max_z, 1 / disparity, np.nan)
        return np.asarray(z, np.float32)

    def frames(self, result: DepthResult, every: int = 1) -> Iterator[tuple[int, Float32Array]]:
        """Yield (frame index in the result, z (H, W) float32 with NaN where unknown) of every ``every``-th frame."""
        for start, maps in depth_chunks(result, self.shot):
            for offset, (depth, valid) in enumerate(zip(maps.depth, maps.valid, strict=True)):
                if (start + offset - self.shot.start) % every == 0:
                    close = closeness(depth, maps.representation, maps.ambiguity)
                    yield start + offset, np.where(valid, self.z(close), np.float32(np.nan))


def unproject(z: Float32Array, camera: Intrinsics) -> Float32Array:
    """(x, y, z) = z ((u - cx) / fx, (v - cy) / fy, 1): points (H, W, 3) float32 in the camera, from z (H, W)."""
    height, width = z.shape
    x = (np.arange(width, dtype=np.float32) - np.float32(camera.cx_px)) / np.float32(camera.fx_px)
    y = (np.arange(height, dtype=np.float32) - np.float32(camera.cy_px)) / np.float32(camera.fy_px)
    return np.stack([z * x[None, :], z * y[:, None], z], axis=-1).astype(np.float32)


def cut_edges(z: Float32Array, ratio: float) -> Float32Array:
    """NaN where z differs by more than ``ratio`` from a direct neighbour: pixels that hang between two surfaces.

    z: (H, W) float32, NaN where unknown.
    """
    log_z = np.log(z)
    jump = np.zeros(z.shape, bool)
    for axis in (0, 1):
        step = np.abs(np.diff(log_z, axis=axis)) > np.log1p(ratio)
        before, after = [[slice(None)] * 2 for _ in range(2)]
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        jump[tuple(before)] |= step
        jump[tuple(after)] |= step
    return np.where(jump, np.float32(np.nan), z)


def shot_geometry(result: DepthResult, number: int, options: GeometryOptions) -> ShotGeometry:
    """The geometry of one shot: metric depth as it is, other depth placed by the solved camera or by the options.

    Raises GeometryError where the focal length is unknown, AmbiguityError for affine depth whose offset is neither
    solved nor assumed: its point cloud would be bent.
    """
    shot, camera = result.shots[number], result.cameras[number]
    ambiguity = shot_ambiguity(result, number)
    intrinsics, note = _intrinsics(result, number, options)
    in_metres = result.manifest["shots"][number].get("camera_unit") == "m"
    solved = _solved_placement(result, number, ambiguity) if camera.is_reliable and not in_metres else None
    poses, posed = np.asarray(camera.world_from_cam, np.float64), np.asarray(camera.solved & camera.is_reliable)
    metres_from = result.manifest["shots"][number].get("metres_from", "")
    notes = [text for text in (note, metres_from) if text]
    if ambiguity is Ambiguity.METRIC:
        gain, shift, unit = 1.0, 0.0, "m"
        # The solved gain relates metric depth to the camera's unit; with it the poses become metres.
        poses, posed = _scaled(poses, solved[0]) if solved else poses, posed & (in_metres or solved is not None)
    elif solved is not None:
        (gain, shift), unit = solved, _PATH_UNIT
    else:
        gain, shift, unit = *_assumed_placement(result, shot, ambiguity, options, notes), "unknown unit"
        posed = np.zeros(len(shot), bool)
    if not posed.any():
        poses = np.broadcast_to(np.eye(4), poses.shape).copy()
    geometry = ShotGeometry(shot, intrinsics, gain, shift, unit, np.inf, poses, posed, tuple(notes))
    return replace(geometry, max_z=options.max_z_over_median * _median_z(result, geometry))


def camera_values(result: DepthResult, number: int) -> dict[str, Any]:
    """``camera_to_json`` of a shot and the ``unit`` of its poses, which is that of the depth wherever they are tied."""
    camera, values = result.cameras[number], camera_to_json(result.cameras[number])
    in_metres = result.manifest["shots"][number].get("camera_unit") == "m"
    ambiguity = shot_ambiguity(result, number)
    if not camera.is_reliable:
        return {**values, "unit": "unknown unit"}
    if in_metres or ambiguity is not Ambiguity.METRIC:
        return {**values, "unit": "m" if in_metres else _PATH_UNIT}
    solved = _solved_placement(result, number, ambiguity)
    if solved is None:
        return {**values, "unit": _PATH_UNIT}
    poses = _scaled(np.asarray(camera.world_from_cam, np.float64), solved[0])
    return {**values, "world_from_cam": poses.round(9).tolist(), "unit": "m"}


def shot_ambiguity(result: DepthResult, number: int) -> Ambiguity:
    """Ambiguity of one shot, which can be less than the whole result's."""
    return Ambiguity(result.manifest["shots"][number].get("ambiguity") or result.ambiguity)


def solve_affine(
    close: Float32Array, target: Float32Array, weight: Float32Array, *, with_shift: bool
) -> tuple[float, float]:
    """min over (g, s) of sum_i w_i rho((g c_i + s - t_i) / t_i), rho Cauchy with scale 0.05; s = 0 without shift.

    close, target, weight: (N,) float32; target > 0. Iteratively reweighted least squares on relative residuals.
    """
    c, t, w = (np.asarray(values, np.float64) for values in (close, target, weight))
    design = np.stack([c / t, 1 / t], axis=1)[:, : 2 if with_shift else 1]
    robust = np.ones(len(c))
    solution = np.zeros(2)
    for _ in range(20):
        root = np.sqrt(w * robust)
        found = np.linalg.lstsq(design * root[:, None], root, rcond=None)[0]
        solution[: len(found)] = found
        robust = 1 / (1 + ((design @ found - 1) / 0.05) ** 2)
    return float(solution[0]), float(solution[1])


def _solved_placement(result: DepthResult, number: int, ambiguity: Ambiguity) -> tuple[float, float] | None:
    """Gain and shift that bring closeness to the inverse depth triangulated along the solved camera path."""
    maps = structure_maps(result)
    if maps is None:
        return None
    samples = [_fit_samples(result, maps, index) for index in _fit_frames(result.shots[number])]
    close, target, weight = (np.concatenate(values) for values in zip(*samples, strict=True))
    if len(close) < _MIN_FIT_SAMPLES:
        return None
    gain, shift = solve_affine(close, target, weight, with_shift=ambiguity is Ambiguity.AFFINE)
    misfit = float(np.median(np.abs((gain * close + shift) / target - 1)))
    return (gain, shift) if gain > 0 and misfit < _MAX_MISFIT else None


def _fit_frames(shot: Shot) -> list[int]:
    count = min(len(shot), _FIT_FRAMES)
    return [shot.start + (2 * i + 1) * len(shot) // (2 * count) for i in range(count)]


def _fit_samples(result: DepthResult, maps: Any, index: int) -> tuple[Float32Array, ...]:
    target, weight = np.asarray(maps.disparity[index]), np.asarray(maps.confidence[index])
    wh = (target.shape[1], target.shape[0])
    depth, valid = np.asarray(result.depth[index]), np.asarray(result.valid[index])
    full = closeness(depth, result.representation, result.ambiguity)
    close = cv2.resize(full, wh, interpolation=cv2.INTER_NEAREST_EXACT)
    mask = cv2.resize(valid.astype(np.uint8), wh, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    usable = np.flatnonzero(mask & (weight > _MIN_STRUCTURE_CONFIDENCE) & (target > 0))
    usable = usable[:: max(1, len(usable) // _FIT_SAMPLES_PER_FRAME)]
    return tuple(np.asarray(values, np.float32).ravel()[usable] for values in (close, target, weight))


def _assumed_placement(
    result: DepthResult, shot: Shot, ambiguity: Ambiguity, options: GeometryOptions, notes: list[str]
) -> tuple[float, float]:
    if ambiguity is Ambiguity.SCALE:
        return 1.0, 0.0
    if options.far_over_near is None:
        lost = result.cameras[result.shots.index(shot)].is_reliable and structure_maps(result) is None
        raise AmbiguityError(
            "depth with an unknown offset makes bent point clouds",
            where=f"{result.folder} frames {shot.start} to {shot.stop - 1}",
            got="the triangulated depth that tells the offset is no longer cached" if lost else None,
            hint="Repeat the run of this video: it makes that again"
            if lost
            else "Use a shot with a solved moving camera, a metric model, or assume a far_over_near",
        )
    shown = shot_range(result.depth, result.valid, shot, result.representation, result.ambiguity)
    # 1 at the near end and 1 / ratio at the far end.
    gain = (1 - 1 / options.far_over_near) / (shown.near - shown.far)
    notes.append(f"assumed: the far end is {options.far_over_near:g} times as far as the near end")
    return gain, 1 / options.far_over_near - gain * shown.far


def _intrinsics(result: DepthResult, number: int, options: GeometryOptions) -> tuple[Intrinsics, str]:
    camera = result.cameras[number]
    _, height, width = result.depth.shape
    if options.fov_degrees is not None:
        focal = 0.5 * width / np.tan(np.radians(options.fov_degrees) / 2)
        given = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
        return given, f"given: horizontal field of view {options.fov_degrees:g} degrees"
    if camera.kind is MotionKind.PARALLAX:
        return camera.intrinsics.resized(width, height), ""
    if stated := _stated_to_the_run(result):
        return stated[0].resized(width, height), stated[1]
    raise GeometryError(
        "the focal length of this shot is not known",
        where=f"{result.folder} shot {number} ({camera.kind.value})",
        hint="State the horizontal field of view with fov_degrees; a phone's main camera has about 65",
    )


def _stated_to_the_run(result: DepthResult) -> tuple[Intrinsics, str] | None:
    """The focal length that the run was told, at the size of the source, which it refers to; None without one.

    As in the camera solve, a focal length in pixels wins over a field of view.
    """
    run = result.manifest["config"].get("geometry")
    stated = GeometryConfig.of({key: run[key] for key in _STATED if key in run}) if isinstance(run, dict) else None
    if stated is None:
        return None
    width, height = result.source_wh
    if stated.focal_px is not None:
        focal, note = stated.focal_px, f"focal length {stated.focal_px:g} px at {width}x{height}"
    elif stated.horizontal_fov_degrees is not None:
        focal = 0.5 * width / np.tan(np.radians(stated.horizontal_fov_degrees) / 2)
        note = f"horizontal field of view {stated.horizontal_fov_degrees:g} degrees"
    else:
        return None
    centre = (width - 1) / 2, (height - 1) / 2
    return Intrinsics(focal, focal, *centre, width, height), f"given to the run: {note}"


def _scaled(poses: Float64Array, factor: float) -> Float64Array:
    out = poses.copy()
    # closeness_cam = gain * closeness_metric, so lengths in metres are gain times those of the camera path.
    out[:, :3, 3] *= factor
    return out


def _median_z(result: DepthResult, geometry: ShotGeometry) -> float:
    medians = []
    for index in _fit_frames(geometry.shot)[:8]:
        depth, valid = np.asarray(result.depth[index]), np.asarray(result.valid[index])
        z = geometry.z(closeness(depth, result.representation, result.ambiguity)[valid])
        if np.isfinite(z).any():
            medians.append(float(np.nanmedian(z)))
    if not medians:
        raise GeometryError("no valid depth in front of the camera", where=f"{result.folder} shot {geometry.shot}")
    return float(np.median(medians))
