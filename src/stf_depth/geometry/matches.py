"""Key frames and what they share, written for COLMAP's mapper.

COLMAP puts (0.5, 0.5) at the centre of the top-left pixel; half a pixel is added on the way in and taken off on the
way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.spatial import KDTree

from stf_depth.config import GeometryConfig
from stf_depth.geometry.features import FrameFeatures
from stf_depth.geometry.tracks import Tracks
from stf_depth.types import BoolArray, Float32Array

__all__ = ["CAMERA_ID", "HALF_PX", "KeyFrameMatches"]

Int64Array = NDArray[np.int64]

CAMERA_ID = 1
HALF_PX = 0.5
_NEAR_SPANS = (1, 2, 3, 4, 6, 8)  # in key frames; beyond the last, its multiples
_FEATURE_SPAN = 3  # key frames further apart are not joined by features
_MIN_MATCHES = 30


class KeyFrameMatches:
    """Which points pairs of key frames share.

    Each key frame has its tracked points and, where one near it shares less than ``feature_share`` of them, its
    features after them. shared: for pairs of positions in ``tracks.key_frames``, (n, 2) rows of both. left_out: ids of
    tracked points that are not matched. features: of the shot's frames; None for the tracked points alone.
    """

    def __init__(
        self,
        tracks: Tracks,
        config: GeometryConfig,
        *,
        left_out: Int64Array | None = None,
        features: FrameFeatures | None = None,
    ) -> None:
        self.tracks, self.config, self._left_out, self._features = tracks, config, left_out, features
        shared = {pair: self._tracked(pair) for pair in _pairs(len(tracks.key_frames))}
        weak = [pair for pair, rows in shared.items() if self._is_weak(pair, rows)]
        self._with_features = {position for pair in weak for position in pair}
        shared |= {pair: np.concatenate([shared[pair], self._matched(pair)]) for pair in weak}
        self.shared = {pair: rows for pair, rows in shared.items() if len(rows) >= _MIN_MATCHES}

    @property
    def has_features(self) -> bool:
        """Whether any pair is joined by features."""
        return bool(self._with_features)

    def write(self, path: Path, camera: Any) -> None:
        """Write a COLMAP database, with a verified geometry for each pair; key frame k is image k + 1."""
        points = [self._xy_px(position) + np.float32(HALF_PX) for position in range(len(self.tracks.key_frames))]
        database = pycolmap.Database.open(path)
        try:
            database.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=1)
            rig.add_ref_sensor(camera.sensor_id)
            database.write_rig(rig, use_rig_id=True)
            for position, xy_px in enumerate(points):
                _write_image(database, position + 1, xy_px)
            for pair, rows in self.shared.items():
                matches = rows.astype(np.uint32)
                geometry = _geometry(camera, [points[position] for position in pair], matches, self.config.seed)
                database.write_matches(pair[0] + 1, pair[1] + 1, matches)
                database.write_two_view_geometry(pair[0] + 1, pair[1] + 1, geometry)
        finally:
            database.close()

    def _frame(self, position: int) -> int:
        return int(self.tracks.key_frames[position])

    def _tracked(self, pair: tuple[int, int]) -> Int64Array:
        """(n, 2) rows of the tracked points that both see."""
        first, second = map(self._frame, pair)
        rows = np.stack(self.tracks.common(first, second), 1)
        return rows[self._kept(first)[rows[:, 0]]]

    def _kept(self, frame: int) -> BoolArray:
        """(n,) bool, which tracked points of a frame are not left out."""
        ids = self.tracks.frame(frame)[0]
        return np.ones(len(ids), bool) if self._left_out is None else ~np.isin(ids, self._left_out)

    def _is_weak(self, pair: tuple[int, int], rows: Int64Array) -> bool:
        if self._features is None or pair[1] - pair[0] > _FEATURE_SPAN:
            return False
        return len(rows) < self.config.feature_share * int(self._kept(self._frame(pair[0])).sum())

    def _matched(self, pair: tuple[int, int]) -> Int64Array:
        """(n, 2) rows of the features that match, without those whose nearest tracked point is left out."""
        assert self._features is not None
        first, second = map(self._frame, pair)
        rows = self._features.matches(self.tracks.start + first, self.tracks.start + second)
        for frame, column in ((first, 0), (second, 1)):
            kept, xy_px = self._kept(frame), self.tracks.frame(frame)[1]
            if not kept.all():
                features = self._features.of_frame(self.tracks.start + frame)
                rows = rows[kept[KDTree(xy_px).query(features.xy_px[rows[:, column]])[1]]]
        return rows + np.array([len(self.tracks.frame(frame)[0]) for frame in (first, second)], np.int64)

    def _xy_px(self, position: int) -> Float32Array:
        """(n, 2) float32 tracked points of a key frame, then its features where they are used."""
        tracked = self.tracks.frame(self._frame(position))[1]
        if self._features is None or position not in self._with_features:
            return tracked
        return np.concatenate([tracked, self._features.of_frame(self.tracks.start + self._frame(position)).xy_px])


def _pairs(count: int) -> Iterator[tuple[int, int]]:
    for first in range(count):
        spans = (*_NEAR_SPANS, *range(2 * _NEAR_SPANS[-1], count, _NEAR_SPANS[-1]))
        yield from ((first, first + span) for span in spans if first + span < count)


def _write_image(database: Any, image_id: int, xy_px: Float32Array) -> None:
    image = pycolmap.Image(name=f"{image_id:06d}", camera_id=CAMERA_ID, image_id=image_id)
    database.write_image(image, use_image_id=True)
    frame = pycolmap.Frame()
    frame.frame_id, frame.rig_id = image_id, 1
    frame.add_data_id(image.data_id)
    database.write_frame(frame, use_frame_id=True)
    database.write_keypoints(image_id, xy_px)


def _geometry(camera: Any, points: list[Float32Array], matches: NDArray[np.uint32], seed: int) -> Any:
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    options.detect_watermark = False
    options.compute_relative_pose = True
    first, second = (xy_px.astype(np.float64) for xy_px in points)
    return pycolmap.estimate_two_view_geometry(camera, first, camera, second, matches, options)
