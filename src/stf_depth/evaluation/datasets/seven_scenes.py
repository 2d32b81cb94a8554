"""Microsoft 7-Scenes.

redkitchen/seq-01/frame-000000.color.png  frame-000000.depth.png  frame-000000.pose.txt
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stf_depth.errors import InputNotFoundError
from stf_depth.evaluation.clips import GroundTruthClip, numbered, orthonormal_poses, png_reader
from stf_depth.evaluation.datasets.base import Dataset, Setting
from stf_depth.evaluation.sequences import read_matrix

__all__ = ["SEVEN_SCENES"]

D_MAX_M = 10.0
UNITS_PER_M = 1000.0
INVALID = 65535
# The depth camera. Depth is not registered to colour, which shifts edges by some pixels.
K = np.array([[585.0, 0, 320.0], [0, 585.0, 240.0], [0, 0, 1.0]])


def _clip(folder: Path) -> GroundTruthClip:
    depth, color = numbered(folder, "frame-*.depth.png"), numbered(folder, "frame-*.color.png")
    poses = np.stack([read_matrix(path, (4, 4)) for path in numbered(folder, "frame-*.pose.txt")])
    rigid = orthonormal_poses(poses, where=folder)
    reader = png_reader(UNITS_PER_M, invalid=INVALID)
    name = f"{folder.parent.name}_{folder.name}"
    return GroundTruthClip(name, depth, color, reader, D_MAX_M, K=K, world_from_cam=rigid)


def _find(root: Path, setting: Setting) -> list[GroundTruthClip]:
    folders = sorted(path for path in root.glob("*/seq-*") if path.is_dir())
    if not folders:
        raise InputNotFoundError(f"7-Scenes: no clips for setting {setting}", where=root)
    return [_clip(folder) for folder in folders]


SEVEN_SCENES = Dataset(
    name="7-scenes",
    title="Microsoft 7-Scenes",
    licence="Microsoft research licence, non-commercial",
    source="microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes",
    settings=(Setting.ALL,),
    find=_find,
)
