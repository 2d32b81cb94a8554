"""One camera path from the solves of overlapping parts of a shot.

Each part has a frame and a unit of its own. In the frames that two neighbours share, the same tracked points have
depths z_a and z_b, and the same cameras poses (R_a, c_a) and (R_b, c_b):

    s = median z_a / z_b,    R = mean R_a R_b^T,    t = median (c_a - s R c_b)

moves the later part to the earlier one. Poses go over from one to the other along the frames that they share. Where
the parts contradict each other, or one has no reliable camera, the chain breaks; the longest piece is the path.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from stf_depth.geometry.camera_solve import CameraSolve, load_solve
from stf_depth.geometry.points import FramePoints
from stf_depth.geometry.poses import fill_poses, inverse
from stf_depth.types import CameraPath, Float32Array, Float64Array

__all__ = ["StoredPart", "chained"]

_MIN_COMMON_POINTS = 30
_MIN_COMMON_FRAMES = 3
_MAX_SCALE_SPREAD = 0.1  # median deviation of log(z_a / z_b)
_MAX_TURN_DEGREES = 2.0
_MAX_SHIFT = 0.05  # of the median depth


@dataclass(frozen=True)
class StoredPart:
    """The solve of frames ``start`` and following; its points lie in a file."""

    start: int
    path: CameraPath
    sharpness: Float32Array
    file: Path

    @property
    def stop(self) -> int:
        return self.start + len(self.path)

    def points(self) -> FramePoints:
        """Read anew each time."""
        return load_solve(self.file).points


@dataclass(frozen=True)
class _Similarity:
    """x -> scale rotation x + shift."""

    scale: float
    rotation: Float64Array
    shift: Float64Array

    def moved(self, world_from_cam: Float64Array) -> Float64Array:
        """Camera poses (T, 4, 4) of the moved world."""
        poses = world_from_cam.copy()
        poses[:, :3, :3] = self.rotation @ world_from_cam[:, :3, :3]
        poses[:, :3, 3] = self.scale * world_from_cam[:, :3, 3] @ self.rotation.T + self.shift
        return poses

    def after(self, first: _Similarity) -> _Similarity:
        """``first``, then this one."""
        shift = self.scale * self.rotation @ first.shift + self.shift
        return _Similarity(self.scale * first.scale, self.rotation @ first.rotation, shift)


_IDENTITY = _Similarity(1.0, np.eye(3), np.zeros(3))


def chained(parts: Sequence[StoredPart]) -> CameraSolve:
    """The solve of the whole shot, not gated; where no part is reliable, what the longest one says.

    parts: in order, each overlapping the next, with one focal length. Frames outside the longest chain are not solved
    and have no points.
    """
    sharpness = np.zeros(parts[-1].stop, np.float32)
    for part in parts:
        sharpness[part.start : part.stop] = part.sharpness
    chain = max(_chains(parts), key=lambda links: sum(len(part.path) for part, _ in links), default=[])
    if not chain:
        longest = max((part.path for part in parts), key=len)
        solve = CameraSolve.without_poses(longest.kind, longest.intrinsics, sharpness, reason=longest.reason)
        return replace(solve, path=_with_quality(solve.path, [longest]))
    solve = _Joined(chain, len(sharpness)).solve(sharpness)
    return replace(solve, path=_with_quality(solve.path, [part.path for part, _ in chain]))


Link = tuple[StoredPart, _Similarity]


def _chains(parts: Sequence[StoredPart]) -> Iterator[list[Link]]:
    """Runs of reliable parts that agree, each part with what moves it to the first of its run."""
    chain: list[Link] = []
    for part in parts:
        step = _link(chain[-1][0], part) if chain and part.path.is_reliable else None
        if step is not None:
            chain.append((part, chain[-1][1].after(step)))
            continue
        if chain:
            yield chain
        chain = [(part, _IDENTITY)] if part.path.is_reliable else []
    if chain:
        yield chain


def _link(first: StoredPart, second: StoredPart) -> _Similarity | None:
    """What moves the second part to the first, None where they do not agree."""
    offset = second.start - first.start
    common = len(first.path) - offset
    both = np.flatnonzero(first.path.solved[offset:] & second.path.solved[:common])
    if len(both) < _MIN_COMMON_FRAMES:
        return None
    ratios = _log_ratios(first.points(), second.points(), both, offset)
    if len(ratios) < _MIN_COMMON_POINTS or np.median(np.abs(ratios - np.median(ratios))) > _MAX_SCALE_SPREAD:
        return None
    ours, theirs = first.path.world_from_cam[both + offset], second.path.world_from_cam[both]
    return _between_poses(ours, theirs, float(np.exp(np.median(ratios))))


def _between_poses(ours: Float64Array, theirs: Float64Array, scale: float) -> _Similarity | None:
    """What moves poses (n, 4, 4) to others of the same cameras, None where no motion fits most of them."""
    turns = Rotation.from_matrix(ours[:, :3, :3] @ np.swapaxes(theirs[:, :3, :3], 1, 2))
    rotation = turns.mean()
    shifts = ours[:, :3, 3] - scale * rotation.apply(theirs[:, :3, 3])
    shift = np.median(shifts, axis=0)
    turn_degrees = np.degrees(np.median((turns * rotation.inv()).magnitude()))
    far = np.median(np.linalg.norm(shifts - shift, axis=1))
    agree = turn_degrees < _MAX_TURN_DEGREES and far < _MAX_SHIFT
    return _Similarity(scale, rotation.as_matrix(), shift) if agree else None


def _log_ratios(first: FramePoints, second: FramePoints, frames: NDArray[np.int64], offset: int) -> Float64Array:
    """log(z_a / z_b) of the points that both parts have in frames (n,) of the second; positions tell which they are."""
    found = []
    for frame in frames.tolist():
        ours, theirs = first[frame + offset], second[frame]
        keys_a, keys_b = (np.ascontiguousarray(rows[:, :2]).view(np.int64)[:, 0] for rows in (ours, theirs))
        _, a, b = np.intersect1d(keys_a, keys_b, return_indices=True)
        found.append(np.log(theirs[b, 2].astype(np.float64) / ours[a, 2]))
    return np.concatenate(found)


class _Joined:
    """The parts of one chain, laid over each other in the frame of the first."""

    def __init__(self, chain: Sequence[Link], count: int) -> None:
        self._chain = chain
        self._poses = np.tile(np.eye(4), (count, 1, 1))
        self._solved = np.zeros(count, bool)
        self._reliability = np.zeros(count, np.float32)
        for part, moved in chain:
            self._lay(part, moved)

    def _lay(self, part: StoredPart, similarity: _Similarity) -> None:
        """Add a part; in frames that are there already, go over to it little by little."""
        frames, path = slice(part.start, part.stop), part.path
        both = self._solved[frames] & path.solved
        share = np.where(both, np.cumsum(both) / (both.sum() + 1), path.solved)
        self._poses[frames] = _between(self._poses[frames], similarity.moved(path.world_from_cam), share)
        self._reliability[frames] += (share * (path.reliability - self._reliability[frames])).astype(np.float32)
        self._solved[frames] |= path.solved

    def solve(self, sharpness: Float32Array) -> CameraSolve:
        """The path of all frames, in a unit where frames have a median depth of about 1, and their points."""
        first = self._chain[0][0].path
        unit = float(np.exp(np.median([np.log(similarity.scale) for _, similarity in self._chain])))
        self._poses[:, :3, 3] /= unit
        path = replace(
            first,
            world_from_cam=fill_poses(self._poses, self._solved),
            solved=self._solved,
            reliability=self._reliability,
        )
        return CameraSolve(path, self._points(unit), sharpness)

    def _points(self, unit: float) -> FramePoints:
        """Points of each frame from one part: where two overlap, each gives those of its own half."""
        borders = [0, *((a.stop + b.start) // 2 for (a, _), (b, _) in itertools.pairwise(self._chain))]
        points = FramePoints()
        for (part, similarity), begin, end in zip(self._chain, borders, [*borders[1:], len(self._solved)], strict=True):
            held = part.points()
            for frame in range(begin, end):
                inside = part.start <= frame < part.stop and bool(self._solved[frame])
                rows = held[frame - part.start] if inside else np.zeros((0, 3), np.float32)
                points.append(rows * np.array([1, 1, unit / similarity.scale], np.float32))
        return points


def _between(first: Float64Array, second: Float64Array, share: Float64Array) -> Float64Array:
    """Poses (T, 4, 4) at ``share`` (T,) of the way from the first to the second."""
    step = Rotation.from_matrix((inverse(first) @ second)[:, :3, :3])
    poses = first.copy()
    poses[:, :3, :3] = first[:, :3, :3] @ Rotation.from_rotvec(step.as_rotvec() * share[:, None]).as_matrix()
    poses[:, :3, 3] += share[:, None] * (second[:, :3, 3] - first[:, :3, 3])
    return poses


def _with_quality(path: CameraPath, parts: Sequence[CameraPath]) -> CameraPath:
    """Figures of the parts, by their numbers of frames and medians."""
    frames = [len(part) for part in parts]
    return replace(
        path,
        inlier_fraction=float(np.average([part.inlier_fraction for part in parts], weights=frames)),
        triangulation_angle_degrees=float(np.median([part.triangulation_angle_degrees for part in parts])),
        reprojection_error_px=float(np.median([part.reprojection_error_px for part in parts])),
    )
