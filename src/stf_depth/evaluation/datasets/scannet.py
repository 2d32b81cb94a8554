"""ScanNet, test scenes, as its own SensReader exports them.

<root>/scene0707_00/color/0.jpg  depth/0.png  pose/0.txt  intrinsic/intrinsic_depth.txt
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stf_depth.errors import InputNotFoundError
from stf_depth.evaluation.clips import Crop, GroundTruthClip, numbered, orthonormal_poses, png_reader
from stf_depth.evaluation.datasets.base import Dataset, Setting
from stf_depth.evaluation.sequences import read_matrix
from stf_depth.types import Float64Array

__all__ = ["SCANNET"]

D_MAX_M = 10.0
CROP = Crop(8, -8, 11, -11)
UNITS_PER_M = 1000.0
FRAMES = {
    Setting.SHORT: slice(0, 270, 3),
    Setting.LONG: slice(0, 500),
    Setting.TAE: slice(10, 180),
    Setting.ALL: slice(None),
}
SCENES = {Setting.SHORT: 100, Setting.LONG: 100, Setting.TAE: 20}


def _poses(files: tuple[Path, ...], where: Path) -> Float64Array:
    # Frames that the reconstruction lost have poses of infinities.
    return orthonormal_poses(np.stack([read_matrix(path, (4, 4)) for path in files]), where=where)


def _clip(scene: Path, frames: slice) -> GroundTruthClip:
    color, depth = numbered(scene / "color", "*.jpg")[frames], numbered(scene / "depth", "*.png")[frames]
    K = read_matrix(scene / "intrinsic" / "intrinsic_depth.txt", (4, 4))[:3, :3]
    poses = _poses(numbered(scene / "pose", "*.txt")[frames], scene / "pose")
    reader = png_reader(UNITS_PER_M)
    return GroundTruthClip(scene.name, depth, color, reader, D_MAX_M, CROP, K=K, world_from_cam=poses)


def _find(root: Path, setting: Setting) -> list[GroundTruthClip]:
    scenes = sorted(path for path in root.glob("scene*") if path.is_dir())
    wanted = SCENES.get(setting, len(scenes))
    if not scenes or len(scenes) < wanted:
        hint = "Score what is there with --setting all"
        raise InputNotFoundError("ScanNet: test scenes", where=root, expected=wanted, got=len(scenes), hint=hint)
    return [_clip(scene, FRAMES[setting]) for scene in scenes[:wanted]]


SCANNET = Dataset(
    name="scannet",
    title="ScanNet (first 100 test scenes)",
    licence="ScanNet terms of use, non-commercial research",
    source="scan-net.org (on request), exported with its SensReader",
    settings=(Setting.SHORT, Setting.LONG, Setting.TAE, Setting.ALL),
    find=_find,
)
