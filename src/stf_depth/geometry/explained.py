"""How much of what was tracked a camera path explains, whatever points its mapper kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stf_depth.geometry.tracks import Tracks
from stf_depth.types import BoolArray, CameraPath, Float64Array

__all__ = ["Explained", "explained", "share_explained"]

Int64Array = NDArray[np.int64]

_MIN_SEEN = 5  # a depth fits less than that too easily
_STEPS = 6
_MIN_DEPTH = 1e-3  # of a ray turned into another frame; behind that it is not seen


@dataclass(frozen=True)
class Explained:
    """Which observations a camera path explains, in the order of the tracks' rows.

    error_px: (M,) float64, infinite behind the camera. judged: (M,) bool, rows that say something: of points seen in
    enough frames with a pose, without the one that their ray is taken from. ids: (M,) int64, the points.
    """

    error_px: Float64Array
    judged: BoolArray
    ids: Int64Array

    def counts(self, tolerance_px: float) -> tuple[int, int]:
        """How many of the judged rows fit, and how many there are."""
        return int((self.error_px[self.judged] < tolerance_px).sum()), int(self.judged.sum())

    def share(self, tolerance_px: float) -> float:
        """The first of ``counts`` over the second."""
        fitting, judged = self.counts(tolerance_px)
        return fitting / max(judged, 1)

    def misfits(self, tolerance_px: float, least_share: float) -> Int64Array:
        """Ids of the points of whose judged rows less than ``least_share`` fit, increasing."""
        ids, fits = self.ids[self.judged], self.error_px[self.judged] < tolerance_px
        seen, fitting = np.bincount(ids), np.bincount(ids, fits)
        return np.flatnonzero(fitting < least_share * seen)


def explained(tracks: Tracks, path: CameraPath, tolerance_px: float) -> Explained:
    """One inverse depth d for each point, on the ray r of the middle frame that sees it, fitted to all others.

    d = argmin >= 0 sum_k rho(|pi(R_k r + t_k d) - x_k| / tolerance), Cauchy's rho, by reweighted linear least squares.
    path: of the tracks' own frames.
    """
    rows, frames = _rows(tracks, path)
    point, ids = tracks.ids[rows], tracks.ids
    seen, first, of_point, count = np.unique(point, return_index=True, return_inverse=True, return_counts=True)
    middle = (first + count // 2)[of_point]
    k = path.intrinsics
    rays = (tracks.xy_px[rows].astype(np.float64) - [k.cx_px, k.cy_px]) / [k.fx_px, k.fy_px]
    turned, shift = _into_frames(path, frames, middle, rays)
    a, b = turned[:, :2] - rays * turned[:, 2:], shift[:, :2] - rays * shift[:, 2:]
    weight, found = np.ones(len(rows)), np.full(len(rows), np.inf)
    for _ in range(_STEPS):
        top = np.bincount(of_point, weight * (a * b).sum(1), len(seen))
        below = np.bincount(of_point, weight * (b * b).sum(1), len(seen))
        inverse_depth = np.clip(-top / np.maximum(below, 1e-12), 0, None)[of_point]
        z = turned[:, 2] + shift[:, 2] * inverse_depth
        gap = np.linalg.norm(a + b * inverse_depth[:, None], axis=1) * k.fx_px
        found = np.where(z > _MIN_DEPTH, gap / np.maximum(z, _MIN_DEPTH), np.inf)
        weight = 1 / (1 + (found / tolerance_px) ** 2) / np.maximum(z, _MIN_DEPTH) ** 2
    error, judged = np.full(len(ids), np.inf), np.zeros(len(ids), bool)
    error[rows] = found
    judged[rows] = (count[of_point] >= _MIN_SEEN) & (middle != np.arange(len(rows)))
    return Explained(error, judged, ids)


def share_explained(parts: Iterable[Tracks], path: CameraPath, tolerance_px: float) -> float:
    """Share of the judged rows of all parts that a path of the whole shot explains, 0 where there is none, times the
    share of its frames that have a pose: the others explain nothing.
    """
    fitting, judged = 0, 0
    for tracks in parts:
        counts = explained(tracks, _of_part(path, tracks), tolerance_px).counts(tolerance_px)
        fitting, judged = fitting + counts[0], judged + counts[1]
    return fitting / max(judged, 1) * float(path.solved.mean())


def _of_part(path: CameraPath, tracks: Tracks) -> CameraPath:
    frames = slice(tracks.start, tracks.start + len(tracks))
    solved, reliability = path.solved[frames], path.reliability[frames]
    return replace(path, world_from_cam=path.world_from_cam[frames], solved=solved, reliability=reliability)


def _rows(tracks: Tracks, path: CameraPath) -> tuple[Int64Array, Int64Array]:
    """Rows in frames with a pose, sorted by point and then frame, and their frames."""
    frame_of_row = np.repeat(np.arange(len(tracks)), np.diff(tracks.offsets))
    order = np.lexsort((frame_of_row, tracks.ids))
    rows = order[np.asarray(path.solved)[frame_of_row[order]]]
    return rows, frame_of_row[rows]


def _into_frames(
    path: CameraPath, frames: Int64Array, middle: Int64Array, rays: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """R r (n, 3) of the ray of each row's point from the row ``middle``, in each row's frame, and t (n, 3)."""
    world_from_cam = np.asarray(path.world_from_cam, np.float64)
    motion = np.linalg.inv(world_from_cam)[frames] @ world_from_cam[frames[middle]]
    turned = np.einsum("nij,nj->ni", motion[:, :3, :2], rays[middle]) + motion[:, :3, 2]
    return turned, motion[:, :3, 3]
