"""NYUv2, eight raw clips, colour and depth synchronised by the dataset's toolbox.

<root>/basement_0001a/rgb/00000.png (or .jpg)  depth/00000.png
"""

from __future__ import annotations

from pathlib import Path

from stf_depth.errors import InputNotFoundError
from stf_depth.evaluation.clips import Crop, GroundTruthClip, numbered, png_reader
from stf_depth.evaluation.datasets.base import Dataset, Setting, existing
from stf_depth.video.sequence import IMAGE_SUFFIXES

__all__ = ["NYUV2"]

D_MAX_M = 10.0
UNITS_PER_M = 6000.0
CROP = Crop(45, 471, 41, 601)
CLIPS = (
    *("basement_0001a", "bookstore_0001a", "cafe_0001a", "classroom_0001a"),
    *("kitchen_0003", "office_0004", "playroom_0002", "study_0002"),
)
FRAMES = {Setting.LONG: slice(0, 500), Setting.ALL: slice(None)}


def _clip(folder: Path) -> GroundTruthClip:
    color, depth = numbered(folder / "rgb", "*.*", IMAGE_SUFFIXES), numbered(folder / "depth", "*.png")
    return GroundTruthClip(folder.name, depth, color, png_reader(UNITS_PER_M), D_MAX_M, CROP)


def _find(root: Path, setting: Setting) -> list[GroundTruthClip]:
    if setting is Setting.ALL:
        folders = sorted(path.parent for path in root.glob("*/depth") if path.is_dir())
    else:
        folders = existing(root, CLIPS, dataset="NYUv2")
    if not folders:
        raise InputNotFoundError("NYUv2: no clips", where=root)
    return [_clip(folder).frames(FRAMES[setting]) for folder in folders]


NYUV2 = Dataset(
    name="nyuv2",
    title="NYU Depth v2 (raw clips)",
    licence="not stated by its authors; research",
    source="cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html (raw), synchronised with its toolbox",
    settings=(Setting.LONG, Setting.ALL),
    find=_find,
)
