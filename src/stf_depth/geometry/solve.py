"""The camera of a shot: what it does, where it is, and whether that can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import GeometryConfig
from stf_depth.geometry.mapping import SparseMap, focal_is_observed, locate_frames, map_key_frames, with_focal
from stf_depth.geometry.motion import parallax_free_motion
from stf_depth.geometry.poses import fill_poses, project_points
from stf_depth.geometry.tracks import Tracks, tracks_of
from stf_depth.types import CameraPath, Float32Array, Float64Array, Frames, Intrinsics, MotionKind, Role

__all__ = ["CameraSolve", "known_focal_px", "likelier", "solve_camera", "solve_tracks"]

Int64Array = NDArray[np.int64]

_ASSUMED = "the motion does not tell the focal length; a usual one is assumed"


@dataclass(frozen=True)
class CameraSolve:
    """The camera path of a shot with the sparse points that each frame sees.

    Frame t sees rows ``offsets[t]:offsets[t + 1]`` of ``point_index`` (M,) int64, rows of ``path.points_world``, at
    ``xy_px`` (M, 2) float32. sharpness: (T,) float32, mean gradient of each frame, to compare frames of the shot.
    """

    path: CameraPath
    offsets: Int64Array
    point_index: Int64Array
    xy_px: Float32Array
    sharpness: Float32Array

    def sparse_disparity(self, frame: int) -> tuple[Float32Array, Float32Array]:
        """Positions (n, 2) in pixels and inverse depths (n,) of the points that frame ``frame`` sees."""
        rows = slice(int(self.offsets[frame]), int(self.offsets[frame + 1]))
        points = self.path.points_world[self.point_index[rows]].astype(np.float64)
        _, z = project_points(points, self.path.world_from_cam[frame], self.path.intrinsics)
        front = z > 0
        return self.xy_px[rows][front], (1 / z[front]).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays that ``from_arrays`` reads back; text as a zero-dimensional string array."""
        path, k = self.path, self.path.intrinsics
        return {
            "kind": np.array(path.kind.value),
            "reason": np.array(path.reason),
            "intrinsics": np.array([k.fx_px, k.fy_px, k.cx_px, k.cy_px, k.width_px, k.height_px], np.float64),
            "quality": np.array(
                [path.inlier_fraction, path.triangulation_angle_degrees, path.reprojection_error_px], np.float64
            ),
            "world_from_cam": path.world_from_cam,
            "solved": path.solved,
            "reliability": path.reliability,
            "points_world": path.points_world,
            "offsets": self.offsets,
            "point_index": self.point_index,
            "xy_px": self.xy_px,
            "sharpness": self.sharpness,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> CameraSolve:
        """Inverse of ``to_arrays``."""
        fx, fy, cx, cy, width, height = arrays["intrinsics"].tolist()
        inliers, angle, error = arrays["quality"].tolist()
        path = CameraPath(
            kind=MotionKind(str(arrays["kind"])),
            intrinsics=Intrinsics(fx, fy, cx, cy, int(width), int(height)),
            world_from_cam=arrays["world_from_cam"],
            solved=arrays["solved"],
            reliability=arrays["reliability"],
            points_world=arrays["points_world"],
            inlier_fraction=inliers,
            triangulation_angle_degrees=angle,
            reprojection_error_px=error,
            reason=str(arrays["reason"]),
        )
        return cls(path, arrays["offsets"], arrays["point_index"], arrays["xy_px"], arrays["sharpness"])


def solve_camera(rgb: Frames, *, roles: Frames | None = None, config: GeometryConfig) -> CameraSolve:
    """Camera path of one shot with unknown focal length, in a unit where the median point has depth 1.

    rgb: (T, H, W, 3) uint8 at the working size. roles: (T, h, w) uint8 of ``Role``; sky and movers are not tracked
    where that explains the rest better than a solve of everything does: masks are often wrong. Whatever the frames
    show, a solve comes back: its ``path.kind`` and ``path.reason`` say what is wrong with it. Raises ShapeError when
    rgb and roles disagree.
    """
    masked = solve_tracks(tracks_of(rgb, roles, config), config)
    if roles is None or not any(np.isin(roles[frame], (Role.SKY, Role.MOVER)).any() for frame in range(len(roles))):
        return masked
    return likelier(masked, solve_tracks(tracks_of(rgb, None, config), config), config)


def likelier(masked: CameraSolve, free: CameraSolve, config: GeometryConfig) -> CameraSolve:
    """The solve without masks, unless they took away what does not fit: then more of the other points are explained.

    A camera that masked frames show to stand still or to turn alone is believed.
    """
    if not free.path.is_reliable or masked.path.kind not in (MotionKind.PARALLAX, MotionKind.UNSOLVED):
        return masked
    gained = masked.path.inlier_fraction - free.path.inlier_fraction
    return masked if masked.path.is_reliable and gained > config.mask_evidence else free


def solve_tracks(tracks: Tracks, config: GeometryConfig) -> CameraSolve:
    """``solve_camera`` from tracks."""
    if len(tracks) < config.min_frames:
        return _without_structure(tracks, config, MotionKind.UNSOLVED, f"only {len(tracks)} frames")
    kind, reason = parallax_free_motion(tracks)
    if kind is not None:
        return _without_structure(tracks, config, kind, reason)
    known, usual = known_focal_px(config, tracks.wh[0]), config.first_focal * max(tracks.wh)
    if known is not None:
        return _with_map(tracks, map_key_frames(tracks, known, focal_known=True, config=config), config)
    free = _with_map(tracks, map_key_frames(tracks, usual, focal_known=False, config=config), config)
    if free.path.is_reliable:
        return free
    # Motion straight ahead, or little of it, does not hold the focal length: a free one then runs away with the rest.
    fixed = _with_map(tracks, map_key_frames(tracks, usual, focal_known=True, config=config), config, _ASSUMED)
    return fixed if fixed.path.is_reliable else free


def _with_map(tracks: Tracks, map_: Any | None, config: GeometryConfig, reason: str = "") -> CameraSolve:
    """The solve that a map of the key frames gives, gated; ``reason`` for how its focal length came about."""
    if map_ is None or map_.num_points3D() < config.min_points:
        unfit = "the tracks fit no rigid scene seen by one camera"
        return _without_structure(tracks, config, MotionKind.UNSOLVED, unfit)
    if not reason and known_focal_px(config, tracks.wh[0]) is None:
        assumed = with_focal(map_, config.first_focal * max(tracks.wh))
        if not focal_is_observed(map_, assumed, config):
            map_, reason = assumed, _ASSUMED
    solve = _assemble(tracks, locate_frames(tracks, map_, config))
    return _gated(replace(solve, path=replace(solve.path, reason=reason)), config)


def known_focal_px(config: GeometryConfig, width_px: int) -> float | None:
    """The user's focal length in pixels of an image ``width_px`` wide, None without one.

    f = width / (2 tan(fov / 2)) for a field of view; ``focal_px`` is taken as it is and wins over it.
    """
    if config.focal_px is not None:
        return config.focal_px
    if config.horizontal_fov_degrees is not None:
        return width_px / (2 * math.tan(math.radians(config.horizontal_fov_degrees) / 2))
    return None


def _intrinsics(focal_px: float, wh: tuple[int, int]) -> Intrinsics:
    return Intrinsics(focal_px, focal_px, (wh[0] - 1) / 2, (wh[1] - 1) / 2, *wh)


def _without_structure(tracks: Tracks, config: GeometryConfig, kind: MotionKind, reason: str) -> CameraSolve:
    count = len(tracks)
    focal = known_focal_px(config, tracks.wh[0]) or config.first_focal * max(tracks.wh)
    path = CameraPath(
        kind=kind,
        intrinsics=_intrinsics(focal, tracks.wh),
        world_from_cam=np.tile(np.eye(4), (count, 1, 1)),
        solved=np.zeros(count, bool),
        reliability=np.zeros(count, np.float32),
        reason=reason,
    )
    nothing = np.zeros(0, np.int64)
    return CameraSolve(path, np.zeros(count + 1, np.int64), nothing, np.zeros((0, 2), np.float32), tracks.sharpness)


def _assemble(tracks: Tracks, found: SparseMap) -> CameraSolve:
    """Poses of all frames, points in a unit where their median depth is 1, and who sees which point."""
    intrinsics = _intrinsics(found.focal_px, tracks.wh)
    poses = fill_poses(found.world_from_cam, found.solved)
    frame_of_row = np.repeat(np.arange(len(tracks)), np.diff(tracks.offsets))
    point = found.point_of_track[tracks.ids]
    rows = np.flatnonzero((point >= 0) & found.solved[frame_of_row])
    error, z = _reprojection(found.points[point[rows]], tracks.xy_px[rows], poses[frame_of_row[rows]], intrinsics)
    good = (error < _MAX_POINT_ERROR_PX * max(tracks.wh) / 640) & (z > 0)
    unit = float(np.median(z[good])) if good.any() else 1.0
    poses[:, :3, 3] /= unit
    rows, error = rows[good], error[good]
    frames = frame_of_row[rows]
    path = CameraPath(
        kind=MotionKind.PARALLAX,
        intrinsics=intrinsics,
        world_from_cam=poses,
        solved=found.solved,
        reliability=np.where(found.solved, found.inliers, 0).astype(np.float32),
        points_world=(found.points / unit).astype(np.float32),
        inlier_fraction=len(rows) / max(len(tracks.ids), 1),
        reprojection_error_px=float(np.median(error)) if len(error) else 0.0,
    )
    offsets = np.searchsorted(frames, np.arange(len(tracks) + 1)).astype(np.int64)
    solve = CameraSolve(path, offsets, point[rows], tracks.xy_px[rows], tracks.sharpness)
    return replace(solve, path=replace(path, triangulation_angle_degrees=_median_angle_degrees(solve)))


_MAX_POINT_ERROR_PX = 4.0  # at 640 px long side


def _reprojection(
    points: Float64Array, xy_px: Float32Array, world_from_cam: Float64Array, intrinsics: Intrinsics
) -> tuple[Float64Array, Float64Array]:
    uv, z = project_points(points, world_from_cam, intrinsics)
    return np.linalg.norm(uv - xy_px, axis=1), z


def _median_angle_degrees(solve: CameraSolve) -> float:
    """Median over points of the angle between the rays from the first and the last frame that see the point."""
    frames = np.repeat(np.arange(len(solve.path)), np.diff(solve.offsets))
    count = len(solve.path.points_world)
    first, last = np.full(count, len(solve.path)), np.full(count, -1)
    np.minimum.at(first, solve.point_index, frames)
    np.maximum.at(last, solve.point_index, frames)
    seen = last > first
    if not seen.any():
        return 0.0
    centres = solve.path.world_from_cam[:, :3, 3]
    rays = [solve.path.points_world[seen] - centres[index[seen]] for index in (first, last)]
    a, b = (ray / np.linalg.norm(ray, axis=1, keepdims=True) for ray in rays)
    return float(np.median(np.degrees(np.arccos(np.clip((a * b).sum(1), -1, 1)))))


def _gated(solve: CameraSolve, config: GeometryConfig) -> CameraSolve:
    """The solve as it is if it passes the gates; else named UNSOLVED with the reason and no reliability."""
    path = solve.path
    long_side_px = max(path.intrinsics.width_px, path.intrinsics.height_px)
    limit_px = config.max_reprojection_px * long_side_px / 640
    focal, known = path.intrinsics.fx_px / long_side_px, known_focal_px(config, path.intrinsics.width_px)
    complaints = {
        f"only {path.inlier_fraction:.0%} of the tracked points fit": path.inlier_fraction < config.min_inlier_fraction,
        f"median triangulation angle of {path.triangulation_angle_degrees:.1f} degrees": (
            path.triangulation_angle_degrees < config.min_angle_degrees
        ),
        f"median reprojection error of {path.reprojection_error_px:.1f} px": path.reprojection_error_px > limit_px,
        # Little perspective in few frames can swap near and far; the focal length that then fits best is absurd.
        f"a focal length of {path.intrinsics.fx_px:.0f} px, not a usual one": (
            known is None and not config.min_focal <= focal <= config.max_focal
        ),
        f"only {path.solved.mean():.0%} of the frames have a pose": path.solved.mean() < config.min_solved_fraction,
    }
    found = [text for text, is_wrong in complaints.items() if is_wrong]
    if not found:
        return solve
    nothing = np.zeros(len(path), np.float32)
    return replace(solve, path=replace(path, kind=MotionKind.UNSOLVED, reliability=nothing, reason="; ".join(found)))
