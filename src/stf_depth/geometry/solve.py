"""The camera of a stretch of frames: what it does, where it is, and whether that can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import GeometryConfig
from stf_depth.geometry.camera_solve import CameraSolve
from stf_depth.geometry.explained import explained
from stf_depth.geometry.features import FrameFeatures
from stf_depth.geometry.focal import likeliest_focal
from stf_depth.geometry.mapping import SparseMap, locate_frames, map_key_frames, with_focal
from stf_depth.geometry.matches import KeyFrameMatches
from stf_depth.geometry.mirror import near_side_near
from stf_depth.geometry.motion import parallax_free_motion
from stf_depth.geometry.pieces import longest_piece, scale_carriers
from stf_depth.geometry.points import FramePoints
from stf_depth.geometry.poses import fill_poses, project_points
from stf_depth.geometry.tracks import Tracks
from stf_depth.geometry.turning import turn_instead
from stf_depth.types import CameraPath, Float64Array, Intrinsics, MotionKind

__all__ = ["ASSUMED_FOCAL", "TracksSolve", "gated", "known_focal_px", "solve_at_focal", "solve_tracks"]

Int64Array = NDArray[np.int64]

ASSUMED_FOCAL = "the motion does not tell the focal length; a usual one is assumed"
_MAX_POINT_ERROR_PX = 4.0  # at 640 px long side
_FITTING = 0.7  # of where a point is seen


@dataclass(frozen=True, eq=False)
class TracksSolve:
    """A solve and the map of key frames behind it, None where there is none.

    share: of what was tracked, how much it explains; frames without a pose count too. weakest: of points that carry the
    scale from one key frame of the solve to the next, the fewest. Solves are compared by these two.
    """

    solve: CameraSolve
    map_: Any | None = None
    share: float = 0.0
    weakest: int = 0


def solve_tracks(tracks: Tracks, config: GeometryConfig, features: FrameFeatures | None = None) -> TracksSolve:
    """Camera path of the frames of ``tracks``, in a unit where the median point has depth 1.

    Points that do not fit, on things that move by themselves, are left out and the rest is solved again, as long as
    that explains more of all points. Whatever the tracks show, a solve comes back: its ``path.kind`` and
    ``path.reason`` say what is wrong with it. features: of the shot's frames, which join key frames that share few
    tracked points; None for none.
    """
    if len(tracks) < config.min_frames:
        return TracksSolve(_without_structure(tracks, config, MotionKind.UNSOLVED, f"only {len(tracks)} frames"))
    kind, reason = parallax_free_motion(tracks)
    if kind is not None:
        return TracksSolve(_without_structure(tracks, config, kind, reason))
    found = _mapped(tracks, config, features)
    for _ in range(config.solve_rounds):
        again = _without_misfits(found, tracks, config, features)
        if again is None:
            break
        found = again
    turn = turn_instead(tracks, found.solve.path, known_focal_px(config, tracks.wh[0]), config)
    if turn is None:
        return found
    reason = f"a turn on the spot explains {turn.turning:.0%} of the points, the best path {turn.moving:.0%}"
    return TracksSolve(_without_structure(tracks, config, MotionKind.ROTATION, reason))


def _mapped(
    tracks: Tracks, config: GeometryConfig, features: FrameFeatures | None, left_out: Int64Array | None = None
) -> TracksSolve:
    """The best of the solves of a few maps.

    With the known focal length, or with a free and a usual one: a mapper may go astray with a free focal length, or at
    a usual one that is far off. Where the tracked points do not hold all frames firmly together, key frames are joined
    by features too.
    """
    known, usual = known_focal_px(config, tracks.wh[0]), config.first_focal * max(tracks.wh)

    def mapped(matches: KeyFrameMatches, is_free: bool) -> TracksSolve:
        return _with_map(tracks, map_key_frames(matches, known or usual, focal_known=not is_free), config)

    ways = [True, False] if known is None else [False]
    alone = KeyFrameMatches(tracks, config, left_out=left_out)
    found = [mapped(alone, is_free) for is_free in ways]
    firm = _firm_carriers(tracks, config)
    best = _best(found, firm, config)
    if features is None or _is_firm(best, firm):
        return best
    joined = KeyFrameMatches(tracks, config, left_out=left_out, features=features)
    if joined.has_features:
        again = [ways[found.index(best)]] if best.solve.path.is_reliable else ways
        found += [mapped(joined, is_free) for is_free in again]
    return _best(found, firm, config)


def _is_firm(found: TracksSolve, firm: float) -> bool:
    """Whether all frames have a pose and many points hold them together."""
    path = found.solve.path
    return path.is_reliable and bool(path.solved.all()) and found.weakest >= firm


def _firm_carriers(tracks: Tracks, config: GeometryConfig) -> float:
    """How many points hold neighbouring key frames firmly together."""
    counts = np.diff(tracks.offsets)[tracks.key_frames]
    return config.firm_share * float(np.median(counts))


def _best(found: list[TracksSolve], firm: float, config: GeometryConfig) -> TracksSolve:
    """The reliable solve that explains most; the first one where none is reliable.

    A map whose scale breaks somewhere explains as much, but there it has lost the points that contradict it: of solves
    that explain nearly as much, the one whose weakest link is the strongest, as long as it is not firm.
    """
    solves = [one for one in found if one.solve.path.is_reliable]
    if not solves:
        return found[0]
    most = max(one.share for one in solves)
    as_good = [one for one in solves if one.share >= most - config.link_evidence]
    return max(as_good, key=lambda one: (min(one.weakest, firm), one.share))


def _without_misfits(
    found: TracksSolve, tracks: Tracks, config: GeometryConfig, features: FrameFeatures | None
) -> TracksSolve | None:
    """The solve of the points that fit alone; None where nearly all do, or where it does not explain clearly more."""
    path = found.solve.path
    if not path.solved.any():
        return None
    misfit_px = config.misfit_px * max(tracks.wh) / 640
    misfits = explained(tracks, path, misfit_px).misfits(misfit_px, _FITTING)
    if len(misfits) < config.misfit_share * len(np.unique(tracks.ids)):
        return None
    again = _mapped(tracks, config, features, misfits)
    if not again.solve.path.is_reliable:
        return None
    return again if again.share - found.share > config.misfit_evidence else None


def solve_at_focal(tracks: Tracks, map_: Any, focal_px: float, config: GeometryConfig, reason: str) -> CameraSolve:
    """The solve of a map that is adjusted to another focal length."""
    return _located(tracks, with_focal(map_, focal_px), config, reason).solve


def _with_map(tracks: Tracks, map_: Any | None, config: GeometryConfig) -> TracksSolve:
    """The solve that a map of the key frames gives, gated."""
    if map_ is None or map_.num_points3D() < config.min_points:
        unfit = "the tracks fit no rigid scene seen by one camera"
        return TracksSolve(_without_structure(tracks, config, MotionKind.UNSOLVED, unfit))
    known, usual = known_focal_px(config, tracks.wh[0]), config.first_focal * max(tracks.wh)
    map_, reason = near_side_near(map_, known or usual, focal_known=known is not None), ""
    if known is None:
        map_, is_told = likeliest_focal(map_, usual, config)
        reason = "" if is_told else ASSUMED_FOCAL
    return _located(tracks, map_, config, reason)


def _located(tracks: Tracks, map_: Any, config: GeometryConfig, reason: str) -> TracksSolve:
    """Poses of the longest run of frames that has one scale."""
    keys = tracks.key_frames
    carriers = scale_carriers(map_, len(keys), config.carrier_degrees, config.min_carriers)
    found = locate_frames(tracks, map_, config)
    piece = longest_piece(keys, carriers, config.min_carriers, found.solved)
    solve = _assemble(tracks, replace(found, solved=found.solved & piece), config)
    solve = gated(replace(solve, path=replace(solve.path, reason=reason)), config)
    tolerance_px = config.explained_px * max(tracks.wh) / 640
    share = explained(tracks, solve.path, tolerance_px).share(tolerance_px) * float(solve.path.solved.mean())
    within = piece[keys[:-1]] & piece[keys[1:]]
    return TracksSolve(solve, map_, share, int(carriers[within].min(initial=map_.num_points3D())))


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
    focal = known_focal_px(config, tracks.wh[0]) or config.first_focal * max(tracks.wh)
    return CameraSolve.without_poses(kind, _intrinsics(focal, tracks.wh), tracks.sharpness, reason=reason)


def _assemble(tracks: Tracks, found: SparseMap, config: GeometryConfig) -> CameraSolve:
    """Poses of all frames and who sees which point, in a unit where the median depth of the points is 1."""
    intrinsics = _intrinsics(found.focal_px, tracks.wh)
    poses = fill_poses(found.world_from_cam, found.solved)
    frame_of_row = np.repeat(np.arange(len(tracks)), np.diff(tracks.offsets))
    point = found.point_of_track[tracks.ids]
    rows = np.flatnonzero((point >= 0) & found.solved[frame_of_row])
    uv, z = project_points(found.points[point[rows]], poses[frame_of_row[rows]], intrinsics)
    error = np.linalg.norm(uv - tracks.xy_px[rows], axis=1)
    good = (error < _MAX_POINT_ERROR_PX * max(tracks.wh) / 640) & (z > 0)
    rows, error, z = rows[good], error[good], z[good]
    unit = float(np.median(z)) if len(z) else 1.0
    angle = _median_angle_degrees(found.points, poses, frame_of_row[rows], point[rows])
    poses[:, :3, 3] /= unit
    path = CameraPath(
        kind=MotionKind.PARALLAX,
        intrinsics=intrinsics,
        world_from_cam=poses,
        solved=found.solved,
        reliability=np.where(found.solved, found.inliers, 0).astype(np.float32),
        triangulation_angle_degrees=angle,
        reprojection_error_px=float(np.median(error)) if len(error) else 0.0,
    )
    seen = np.column_stack([tracks.xy_px[rows], unit / z])
    inlier_px = config.inlier_px * max(tracks.wh) / 640
    path = replace(path, inlier_fraction=explained(tracks, path, inlier_px).share(inlier_px))
    bounds = np.searchsorted(frame_of_row[rows], np.arange(1, len(tracks)))
    return CameraSolve(path, FramePoints(np.split(seen, bounds)), tracks.sharpness)


def _median_angle_degrees(
    points: Float64Array, world_from_cam: Float64Array, frames: Int64Array, point: Int64Array
) -> float:
    """Median over points of the largest angle between the ray from the first frame that sees the point and the others.

    frames, point: (M,) who sees which point, in the order of the frames.
    """
    rays = points[point] - world_from_cam[frames, :3, 3]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    seen, first = np.unique(point, return_index=True)
    first_ray = np.zeros_like(points)
    first_ray[seen] = rays[first]
    largest = np.zeros(len(points))
    np.maximum.at(largest, point, np.arccos(np.clip((rays * first_ray[point]).sum(1), -1, 1)))
    return float(np.degrees(np.median(largest[seen]))) if len(seen) else 0.0


def gated(solve: CameraSolve, config: GeometryConfig) -> CameraSolve:
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
        # Where the motion holds no focal length, the one that fits best can be absurd.
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
