"""TUM RGB-D, and the association of frames by time that Bonn shares.

rgbd_dataset_freiburg1_xyz/rgb.txt  depth.txt  groundtruth.txt  rgb/<time>.png  depth/<time>.png
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stf_depth.errors import InputNotFoundError, SequenceError
from stf_depth.evaluation.clips import GroundTruthClip, png_reader
from stf_depth.evaluation.datasets.base import Dataset, Setting
from stf_depth.types import Float64Array

__all__ = ["TUM", "associate", "pose_matrix", "read_list"]

D_MAX_M = 10.0
UNITS_PER_M = 5000.0
MAX_GAP_SECONDS = 0.02
# Colour cameras by the dataset's own calibration; the published images are not undistorted.
INTRINSICS = {
    "freiburg1": (517.306408, 516.469215, 318.643040, 255.313989),
    "freiburg2": (520.908620, 521.007327, 325.141442, 249.701764),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}


def read_list(path: Path) -> tuple[Float64Array, list[list[str]]]:
    """Times (N,) and the other words of a list file, sorted by time; lines with # are comments."""
    if not path.is_file():
        raise InputNotFoundError("no list of frames", where=path)
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = sorted((float(words[0]), words[1:]) for words in lines if len(words) > 1)
    if not rows:
        raise SequenceError("an empty list", where=path)
    return np.array([time for time, _ in rows]), [words for _, words in rows]


def associate(times: Float64Array, others: Float64Array, *, max_gap_seconds: float = MAX_GAP_SECONDS) -> list[int]:
    """For each time, the index of the nearest of ``others`` (sorted), or -1 when none is near enough."""
    right = np.clip(np.searchsorted(others, times), 1, max(len(others) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(others) - 1)
    nearest = np.where(np.abs(others[left] - times) <= np.abs(others[right] - times), left, right)
    return [int(k) if abs(others[k] - t) <= max_gap_seconds else -1 for k, t in zip(nearest, times, strict=True)]


def pose_matrix(values: Float64Array) -> Float64Array:
    """world_from_cam (4, 4) of tx ty tz qx qy qz qw."""
    from scipy.spatial.transform import Rotation

    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(values[3:7]).as_matrix()
    pose[:3, 3] = values[:3]
    return pose


def rgbd_pairs(folder: Path) -> tuple[Float64Array, tuple[Path, ...], tuple[Path, ...]]:
    """Times of the colour frames that have depth, their files, and the depth files."""
    times, color = read_list(folder / "rgb.txt")
    depth_times, depth = read_list(folder / "depth.txt")
    matches = associate(times, depth_times)
    kept = [k for k, match in enumerate(matches) if match >= 0]
    if not kept:
        raise SequenceError("no colour frame has depth near in time", where=folder)
    color_files = tuple(folder / color[k][0] for k in kept)
    return times[kept], color_files, tuple(folder / depth[matches[k]][0] for k in kept)


def _clip(folder: Path) -> GroundTruthClip:
    times, color, depth = rgbd_pairs(folder)
    camera = next((values for name, values in INTRINSICS.items() if name in folder.name), None)
    if camera is None:
        raise SequenceError(
            "which camera took it?", where=folder, expected=f"one of {', '.join(INTRINSICS)} in the name"
        )
    fx, fy, cx, cy = camera
    pose_times, words = read_list(folder / "groundtruth.txt")
    matches = associate(times, pose_times)
    poses = np.full((len(times), 4, 4), np.nan)
    for pose, match in zip(poses, matches, strict=True):
        if match >= 0:
            pose[:] = pose_matrix(np.array(words[match], np.float64))
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    return GroundTruthClip(folder.name, depth, color, png_reader(UNITS_PER_M), D_MAX_M, K=K, world_from_cam=poses)


def _find(root: Path, setting: Setting) -> list[GroundTruthClip]:
    folders = sorted(path.parent for path in root.glob("rgbd_dataset_freiburg*/rgb.txt"))
    if not folders:
        raise InputNotFoundError(f"TUM RGB-D: no clips for setting {setting}", where=root)
    return [_clip(folder) for folder in folders]


TUM = Dataset(
    name="tum",
    title="TUM RGB-D",
    licence="CC-BY 4.0",
    source="cvg.cit.tum.de/data/datasets/rgbd-dataset",
    settings=(Setting.ALL,),
    find=_find,
)
