"""Bonn RGB-D Dynamic, the five clips of published tables.

rgbd_bonn_balloon2/rgb.txt  depth.txt  groundtruth.txt  rgb/<time>.png  depth/<time>.png
"""

from __future__ import annotations

from pathlib import Path

from stf_depth.errors import InputNotFoundError
from stf_depth.evaluation.clips import Crop, GroundTruthClip, png_reader
from stf_depth.evaluation.datasets.base import Dataset, Setting, existing
from stf_depth.evaluation.datasets.tum import rgbd_pairs

__all__ = ["BONN"]

D_MAX_M = 10.0
UNITS_PER_M = 5000.0
CLIPS = ("balloon2", "crowd2", "crowd3", "person_tracking", "synchronous")
FRAMES = {Setting.SHORT: slice(30, 140), Setting.LONG: slice(0, 500), Setting.ALL: slice(None)}


def _clip(folder: Path) -> GroundTruthClip:
    _, color, depth = rgbd_pairs(folder)
    reader = png_reader(UNITS_PER_M)
    height, width = reader(depth[0]).shape
    crop = Crop(0, height // 2 * 2, 0, width // 2 * 2)
    name = folder.name.removeprefix("rgbd_bonn_")
    reason = "people move through the scene: temporal alignment error needs a static one"
    return GroundTruthClip(name, depth, color, reader, D_MAX_M, crop, poses_absent=reason)


def _find(root: Path, setting: Setting) -> list[GroundTruthClip]:
    if setting is Setting.ALL:
        folders = sorted(path.parent for path in root.glob("rgbd_bonn_*/rgb.txt"))
    else:
        folders = existing(root, [f"rgbd_bonn_{name}" for name in CLIPS], dataset="Bonn")
    if not folders:
        raise InputNotFoundError("Bonn: no clips", where=root)
    return [_clip(folder).frames(FRAMES[setting]) for folder in folders]


BONN = Dataset(
    name="bonn",
    title="Bonn RGB-D Dynamic",
    licence="not stated by its authors",
    source="ipb.uni-bonn.de/data/rgbd-dynamic-dataset",
    settings=(Setting.SHORT, Setting.LONG, Setting.ALL),
    find=_find,
)
