"""Poses, focal length and sparse points from tracks: pycolmap's global mapper, seeded and single-threaded.

COLMAP puts (0.5, 0.5) at the centre of the top-left pixel; half a pixel is added on the way in and taken off on the
way out. One thread and one seed make the result the same bytes every time.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from stf_depth.config import GeometryConfig
from stf_depth.geometry.tracks import Tracks
from stf_depth.types import BoolArray, Float64Array

__all__ = [
    "SparseMap",
    "adjusted",
    "locate_frames",
    "map_key_frames",
    "mean_error_px",
    "with_focal",
]

Int64Array = NDArray[np.int64]

_CAMERA_ID = 1
_HALF_PX = 0.5
_NEAR_SPANS = (1, 2, 3, 4, 6, 8)  # in key frames; beyond the last, its multiples
_MIN_MATCHES = 30
_TRACKS_PER_VIEW = 150  # halves the time of the bundle adjustment and changes no pose that was measured
_MIN_POSE_POINTS = 12
_FOCAL_TEST_STEPS = 40
_LOSS_PX = 0.5  # at 640 px long side, from where on an error counts by its size


@dataclass(frozen=True)
class SparseMap:
    """Sparse structure of a shot. focal_px for the tracks' image size, principal point in its middle.

    world_from_cam: (T, 4, 4) float64, identity where not ``solved`` (T,) bool. inliers: (T,) float64, share of the
    frame's mapped points that its pose explains. point_of_track: (number of tracks,) int64 row in ``points``, -1
    for tracks without a point. points: (N, 3) float64.
    """

    focal_px: float
    world_from_cam: Float64Array
    solved: BoolArray
    inliers: Float64Array
    point_of_track: Int64Array
    points: Float64Array


def map_key_frames(
    tracks: Tracks, focal_px: float, *, focal_known: bool, config: GeometryConfig, left_out: Int64Array | None = None
) -> Any | None:
    """Global structure from motion over the key frames; the largest reconstruction, or None without one.

    left_out: ids of points that are not matched.
    """
    width, height = tracks.wh
    camera = pycolmap.Camera.create_from_model_name(_CAMERA_ID, "SIMPLE_PINHOLE", focal_px, width, height)
    camera.has_prior_focal_length = focal_known
    pycolmap.set_random_seed(config.seed)
    with _quiet(), tempfile.TemporaryDirectory(prefix="stf-depth-") as folder:
        database, output = Path(folder) / "tracks.db", Path(folder) / "map"
        output.mkdir()
        if _write_database(database, tracks, camera, config, left_out) == 0:
            return None
        found = pycolmap.global_mapping(database, folder, output, _mapper_options(config, focal_known))
    return max(found.values(), key=lambda map_: map_.num_reg_images(), default=None)


@contextmanager
def _quiet() -> Iterator[None]:
    """pycolmap reports every missing picture on stderr; tracks come without pictures."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def _write_database(
    path: Path, tracks: Tracks, camera: Any, config: GeometryConfig, left_out: Int64Array | None
) -> int:
    database = pycolmap.Database.open(path)
    try:
        database.write_camera(camera, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(camera.sensor_id)
        database.write_rig(rig, use_rig_id=True)
        for position, key in enumerate(tracks.key_frames.tolist()):
            _write_image(database, position + 1, tracks.frame(key)[1])
        return sum(
            _write_pair(database, tracks, camera, pair, config, left_out) for pair in _pairs(len(tracks.key_frames))
        )
    finally:
        database.close()


def _write_image(database: Any, image_id: int, xy_px: NDArray[np.float32]) -> None:
    image = pycolmap.Image(name=f"{image_id:06d}", camera_id=_CAMERA_ID, image_id=image_id)
    database.write_image(image, use_image_id=True)
    frame = pycolmap.Frame()
    frame.frame_id, frame.rig_id = image_id, 1
    frame.add_data_id(image.data_id)
    database.write_frame(frame, use_frame_id=True)
    database.write_keypoints(image_id, xy_px + np.float32(_HALF_PX))


def _pairs(count: int) -> Iterator[tuple[int, int]]:
    for first in range(count):
        spans = (*_NEAR_SPANS, *range(2 * _NEAR_SPANS[-1], count, _NEAR_SPANS[-1]))
        yield from ((first, first + span) for span in spans if first + span < count)


def _write_pair(
    database: Any,
    tracks: Tracks,
    camera: Any,
    pair: tuple[int, int],
    config: GeometryConfig,
    left_out: Int64Array | None,
) -> int:
    first, second = (int(tracks.key_frames[position]) for position in pair)
    rows = np.stack(tracks.common(first, second), 1)
    if left_out is not None:
        rows = rows[~np.isin(tracks.frame(first)[0][rows[:, 0]], left_out)]
    if len(rows) < _MIN_MATCHES:
        return 0
    matches = rows.astype(np.uint32)
    points = [tracks.frame(frame)[1].astype(np.float64) + _HALF_PX for frame in (first, second)]
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = config.seed
    options.detect_watermark = False
    options.compute_relative_pose = True
    geometry = pycolmap.estimate_two_view_geometry(camera, points[0], camera, points[1], matches, options)
    database.write_matches(pair[0] + 1, pair[1] + 1, matches)
    database.write_two_view_geometry(pair[0] + 1, pair[1] + 1, geometry)
    return 1


def _mapper_options(config: GeometryConfig, focal_known: bool) -> Any:
    options = pycolmap.GlobalPipelineOptions()
    mapper = options.mapper
    options.num_threads = mapper.num_threads = 1
    mapper.bundle_adjustment.ceres.solver_options.num_threads = 1
    seeded = (options, mapper, mapper.rotation_averaging, mapper.global_positioning, mapper.retriangulation)
    for part in seeded:
        part.random_seed = config.seed
    mapper.track_required_tracks_per_view = _TRACKS_PER_VIEW
    mapper.global_positioning.use_gpu = mapper.bundle_adjustment.ceres.use_gpu = False
    mapper.bundle_adjustment.refine_focal_length = not focal_known
    return options


def with_focal(map_: Any, focal_px: float) -> Any:
    """Copy of a reconstruction with poses and points adjusted to a fixed focal length."""
    return adjusted(map_, focal_px, refine_focal=False, steps=_FOCAL_TEST_STEPS)


def adjusted(map_: Any, focal_px: float | None, *, refine_focal: bool, steps: int) -> Any:
    """Copy of a reconstruction after a bundle adjustment of at most ``steps``, from its own focal length when None."""
    other = copy.deepcopy(map_)
    camera = other.cameras[_CAMERA_ID]
    if focal_px is not None:
        camera.params = np.array([focal_px, *camera.params[1:]])
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = refine_focal
    options.ceres.loss_function_type = pycolmap.LossFunctionType.HUBER
    options.ceres.loss_function_scale = _LOSS_PX * max(camera.width, camera.height) / 640
    options.print_summary = False
    options.ceres.use_gpu = False
    options.ceres.solver_options.num_threads = 1
    options.ceres.solver_options.max_num_iterations = steps
    problem = pycolmap.BundleAdjustmentConfig()
    for image in other.reg_image_ids():
        problem.add_image(image)
    problem.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    with _quiet():  # the adjuster itself: ``pycolmap.bundle_adjustment`` reports on stderr whatever the level
        pycolmap.create_default_bundle_adjuster(options, problem, other).solve()
    other.update_point_3d_errors()
    return other


def mean_error_px(map_: Any) -> float:
    """Mean reprojection error of the key frames' points; infinite where an adjustment diverged."""
    error = float(map_.compute_mean_reprojection_error())
    return error if np.isfinite(error) else float("inf")


def locate_frames(tracks: Tracks, map_: Any, config: GeometryConfig) -> SparseMap:
    """Absolute poses of all frames from the mapped points; that of a key frame is found anew as well."""
    points, point_of_track = _points_by_track(tracks, map_)
    count = len(tracks)
    world_from_cam = np.tile(np.eye(4), (count, 1, 1))
    solved, inliers = np.zeros(count, bool), np.zeros(count)
    camera = map_.cameras[_CAMERA_ID]
    for frame in range(count):
        ids, xy = tracks.frame(frame)
        point = point_of_track[ids]
        seen = point >= 0
        found = _absolute_pose(points[point[seen]], xy[seen].astype(np.float64) + _HALF_PX, camera, config)
        if found is not None:
            world_from_cam[frame], inliers[frame], solved[frame] = found[0], found[1], True
    return SparseMap(float(camera.params[0]), world_from_cam, solved, inliers, point_of_track, points)


def _points_by_track(tracks: Tracks, map_: Any) -> tuple[Float64Array, Int64Array]:
    ids = sorted(map_.points3D.keys())
    points = np.array([map_.points3D[point_id].xyz for point_id in ids], np.float64).reshape(-1, 3)
    point_of_track = np.full(int(tracks.ids.max(initial=-1)) + 1, -1, np.int64)
    for row, point_id in enumerate(ids):
        for element in map_.points3D[point_id].track.elements:
            key = int(tracks.key_frames[element.image_id - 1])
            point_of_track[tracks.frame(key)[0][element.point2D_idx]] = row
    return points, point_of_track


def _absolute_pose(
    points: Float64Array, xy_px: Float64Array, camera: Any, config: GeometryConfig
) -> tuple[Float64Array, float] | None:
    if len(points) < _MIN_POSE_POINTS:
        return None
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = config.pose_error_px
    options.ransac.random_seed = config.seed
    found = pycolmap.estimate_and_refine_absolute_pose(xy_px, points, camera, options)
    if found is None or found["num_inliers"] < _MIN_POSE_POINTS:
        return None
    pose = np.eye(4)
    pose[:3] = found["cam_from_world"].inverse().matrix()
    return pose, found["num_inliers"] / len(points)
