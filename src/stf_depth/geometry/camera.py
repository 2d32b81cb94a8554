"""The camera of a whole shot, short or hours long."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap

from stf_depth.config import GeometryConfig
from stf_depth.geometry.camera_solve import CameraSolve, save_solve
from stf_depth.geometry.chain import StoredPart, chained
from stf_depth.geometry.explained import share_explained
from stf_depth.geometry.features import FrameFeatures
from stf_depth.geometry.pictures import GrayFrames
from stf_depth.geometry.solve import ASSUMED_FOCAL, gated, solve_at_focal, solve_tracks
from stf_depth.geometry.tracks import KeptTracks, Tracks, track_parts
from stf_depth.types import CameraPath, Frames, MotionKind, Role

__all__ = ["likelier", "solve_camera"]

_SAME_FOCAL = 1e-3  # of the focal length


def solve_camera(rgb: Frames, *, roles: Frames | None = None, config: GeometryConfig) -> CameraSolve:
    """Camera path of one shot with unknown focal length, in a unit where the median point has depth 1.

    rgb: (T, H, W, 3) uint8 at the working size. roles: (T, h, w) uint8 of ``Role``; sky and movers are not tracked
    where that explains the rest better than a solve of everything does: masks are often wrong. A long shot is solved
    in parts with one focal length, which are then chained: memory is that of a part, time grows with the number of
    frames. Whatever the frames show, a solve comes back: its ``path.kind`` and ``path.reason`` say what is wrong with
    it. Raises ShapeError when rgb and roles disagree.
    """
    if roles is None or not any(np.isin(roles[frame], (Role.SKY, Role.MOVER)).any() for frame in range(len(roles))):
        return _solve_parts(*_tracked(rgb, roles, config), config)
    tolerance_px = config.explained_px * max(rgb.shape[1:3]) / 640
    with tempfile.TemporaryDirectory(prefix="stf-depth-") as folder:
        parts, features = _tracked(rgb, roles, config)
        beside_masks = KeptTracks(parts, Path(folder))
        masked = _solve_parts(beside_masks, features, config)
        free = _solve_parts(*_tracked(rgb, None, config), config)
        return likelier(masked, free, lambda path: share_explained(beside_masks, path, tolerance_px), config)


def _tracked(rgb: Frames, roles: Frames | None, config: GeometryConfig) -> tuple[Iterator[Tracks], FrameFeatures]:
    features = FrameFeatures(GrayFrames(rgb, roles))
    return track_parts(rgb, roles, config, features), features


def likelier(
    masked: CameraSolve, free: CameraSolve, explained: Callable[[CameraPath], float], config: GeometryConfig
) -> CameraSolve:
    """The solve without masks, unless they took away what misled it: then less of the other points is explained.

    explained: share of the points beside the masks that a path explains. A camera that masked frames show to stand
    still or to turn alone is believed.
    """
    if not free.path.is_reliable or masked.path.kind not in (MotionKind.PARALLAX, MotionKind.UNSOLVED):
        return masked
    if not masked.path.is_reliable:
        return free
    return masked if explained(masked.path) - explained(free.path) > config.mask_evidence else free


def _solve_parts(parts: Iterable[Tracks], features: FrameFeatures, config: GeometryConfig) -> CameraSolve:
    parts = iter(parts)
    head = list(itertools.islice(parts, 2))
    if len(head) == 1:
        return solve_tracks(head[0], config, features).solve
    with tempfile.TemporaryDirectory(prefix="stf-depth-") as folder:
        solved = [
            _SolvedPart.of(tracks, Path(folder) / f"{number:05d}", config, features)
            for number, tracks in enumerate(itertools.chain(head, parts))
        ]
        focal_px, reason = _shared_focal([part.stored.path for part in solved])
        solve = chained([part.at_focal(focal_px, reason, config) for part in solved])
    if not solve.path.is_reliable:
        return solve
    return gated(replace(solve, path=replace(solve.path, reason=reason)), config)


def _shared_focal(paths: list[CameraPath]) -> tuple[float | None, str]:
    """Median over the reliable parts whose motion tells the focal length, by frame; None where none does."""
    told = [path for path in paths if path.is_reliable and path.reason != ASSUMED_FOCAL]
    if not told:
        return None, ASSUMED_FOCAL
    of_frames = np.repeat([path.intrinsics.fx_px for path in told], [len(path) for path in told])
    return float(np.percentile(of_frames, 50, method="lower")), ""


@dataclass(frozen=True)
class _SolvedPart:
    """The solve of one part on disk, with what it takes to solve it again at another focal length."""

    stored: StoredPart
    folder: Path

    @classmethod
    def of(cls, tracks: Tracks, folder: Path, config: GeometryConfig, features: FrameFeatures) -> _SolvedPart:
        """Solve a part and put everything away."""
        folder.mkdir()
        found = solve_tracks(tracks, config, features)
        save_solve(folder / "solve.npz", found.solve)
        tracks.save(folder / "tracks.npz")
        if found.map_ is not None:
            (folder / "map").mkdir()
            found.map_.write(folder / "map")
        return cls(StoredPart(tracks.start, found.solve.path, tracks.sharpness, folder / "solve.npz"), folder)

    def at_focal(self, focal_px: float | None, reason: str, config: GeometryConfig) -> StoredPart:
        """The same part with the focal length of the whole shot."""
        own_px = self.stored.path.intrinsics.fx_px
        if focal_px is None or not (self.folder / "map").exists() or abs(own_px / focal_px - 1) < _SAME_FOCAL:
            return self.stored
        tracks = Tracks.load(self.folder / "tracks.npz")
        solve = solve_at_focal(tracks, pycolmap.Reconstruction(self.folder / "map"), focal_px, config, reason)
        file = self.folder / "solve_again.npz"
        save_solve(file, solve)
        return replace(self.stored, path=solve.path, file=file)
