"""Poses, focal length and sparse points from tracks: pycolmap's global mapper, seeded and single-threaded.

One thread and one seed make the result the same bytes every time.
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
from stf_depth.geometry.matches import CAMERA_ID, HALF_PX, KeyFrameMatches
from stf_depth.geometry.tracks import Tracks
from stf_depth.parallel import thread_pool
from stf_depth.types import BoolArray, Float64Array

__all__ = [
    "SparseMap",
    "adjusted",
    "bounded_error_px",
    "locate_frames",
    "map_key_frames",
    "mean_error_px",
    "with_focal",
]

Int64Array = NDArray[np.int64]

_TRACKS_PER_VIEW = 150  # halves the time of the bundle adjustment and changes no pose that was measured
_MIN_POSE_POINTS = 12
_FOCAL_TEST_STEPS = 40
_NO_ERROR_PX = 1e6
_MOST_ERROR_PX = 4.0  # at 640 px long side
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


def map_key_frames(matches: KeyFrameMatches, focal_px: float, *, focal_known: bool) -> Any | None:
    """Global structure from motion over the key frames; the largest reconstruction, or None without one.

    Pan et al., Global structure-from-motion revisited (2024).
    """
    width, height = matches.tracks.wh
    seed = matches.config.seed
    camera = pycolmap.Camera.create_from_model_name(CAMERA_ID, "SIMPLE_PINHOLE", focal_px, width, height)
    camera.has_prior_focal_length = focal_known
    pycolmap.set_random_seed(seed)
    if not matches.shared:
        return None
    with _quiet(), tempfile.TemporaryDirectory(prefix="stf-depth-") as folder:
        database, output = Path(folder) / "tracks.db", Path(folder) / "map"
        output.mkdir()
        matches.write(database, camera)
        found = pycolmap.global_mapping(database, folder, output, _mapper_options(seed, focal_known))
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


def _mapper_options(seed: int, focal_known: bool) -> Any:
    options = pycolmap.GlobalPipelineOptions()
    mapper = options.mapper
    options.num_threads = mapper.num_threads = 1
    mapper.bundle_adjustment.ceres.solver_options.num_threads = 1
    seeded = (options, mapper, mapper.rotation_averaging, mapper.global_positioning, mapper.retriangulation)
    for part in seeded:
        part.random_seed = seed
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
    camera = other.cameras[CAMERA_ID]
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
    """Mean reprojection error of the key frames' points; infinite where one lies behind a camera that sees it."""
    error = float(map_.compute_mean_reprojection_error())
    return error if error < _NO_ERROR_PX else float("inf")


def bounded_error_px(map_: Any) -> float:
    """Mean over the key frames' points of their reprojection error, that at most ``_MOST_ERROR_PX``."""
    camera = map_.cameras[CAMERA_ID]
    errors = np.array([point.error for point in map_.points3D.values()])
    most = _MOST_ERROR_PX * max(camera.width, camera.height) / 640
    return float(np.minimum(np.where(np.isfinite(errors), errors, most), most).mean()) if len(errors) else most


def locate_frames(tracks: Tracks, map_: Any, config: GeometryConfig) -> SparseMap:
    """Absolute poses of all frames from the mapped points; that of a key frame is found anew as well."""
    points, point_of_track = _points_by_track(tracks, map_)
    count = len(tracks)
    world_from_cam = np.tile(np.eye(4), (count, 1, 1))
    solved, inliers = np.zeros(count, bool), np.zeros(count)
    camera = map_.cameras[CAMERA_ID]

    def located(frame: int) -> tuple[Float64Array, float] | None:
        ids, xy = tracks.frame(frame)
        point = point_of_track[ids]
        seen = point >= 0
        return _absolute_pose(points[point[seen]], xy[seen].astype(np.float64) + HALF_PX, camera, config)

    with thread_pool() as pool:  # every frame has the same seed: the result does not depend on which thread takes it
        for frame, found in enumerate(pool.map(located, range(count))):
            if found is not None:
                world_from_cam[frame], inliers[frame], solved[frame] = found[0], found[1], True
    return SparseMap(float(camera.params[0]), world_from_cam, solved, inliers, point_of_track, points)


def _points_by_track(tracks: Tracks, map_: Any) -> tuple[Float64Array, Int64Array]:
    ids = sorted(map_.points3D.keys())
    points = np.array([map_.points3D[point_id].xyz for point_id in ids], np.float64).reshape(-1, 3)
    point_of_track = np.full(int(tracks.ids.max(initial=-1)) + 1, -1, np.int64)
    for row, point_id in enumerate(ids):
        for element in map_.points3D[point_id].track.elements:
            ids_seen = tracks.frame(int(tracks.key_frames[element.image_id - 1]))[0]
            if element.point2D_idx < len(ids_seen):  # beyond them it is a feature
                point_of_track[ids_seen[element.point2D_idx]] = row
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
