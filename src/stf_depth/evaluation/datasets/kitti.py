"""KITTI depth, validation drives.

data_depth_annotated/val/<drive>/proj_depth/groundtruth/image_02/0000000005.png   (or val/ at the root)
raw/<date>/<drive>/image_02/data/0000000005.png
"""

from __future__ import annotations

from pathlib import Path

from stf_depth.errors import InputNotFoundError
from stf_depth.evaluation.clips import Crop, GroundTruthClip, numbered, png_reader
from stf_depth.evaluation.datasets.base import Dataset, Setting

__all__ = ["KITTI"]

D_MAX_M = 80.0
CROP = Crop(0, 374, 0, 1242)
UNITS_PER_M = 256.0
DRIVES = 13
FRAMES = {Setting.SHORT: slice(0, 110), Setting.LONG: slice(0, 500), Setting.ALL: slice(None)}


def _clip(drive: Path, raw: Path) -> GroundTruthClip:
    depth = numbered(drive / "proj_depth" / "groundtruth" / "image_02", "*.png")
    images = raw / drive.name[:10] / drive.name / "image_02" / "data"
    # The first and last five frames of a drive have no accumulated depth.
    color = tuple(images / path.name for path in depth)
    absent = [path.name for path in color if not path.is_file()]
    if absent:
        raise InputNotFoundError("KITTI: colour frames are absent", where=images, got=absent[:5])
    reason = "drives hold moving traffic: temporal alignment error needs a static scene"
    return GroundTruthClip(drive.name, depth, color, png_reader(UNITS_PER_M), D_MAX_M, CROP, poses_absent=reason)


def _find(root: Path, setting: Setting) -> list[GroundTruthClip]:
    annotated = root / "data_depth_annotated"
    drives = sorted(((annotated if annotated.is_dir() else root) / "val").glob("*_sync"))
    if not drives or (setting is not Setting.ALL and len(drives) != DRIVES):
        where, hint = root, "Score what is there with --setting all"
        raise InputNotFoundError("KITTI: validation drives", where=where, expected=DRIVES, got=len(drives), hint=hint)
    return [_clip(drive, root / "raw").frames(FRAMES[setting]) for drive in drives]


KITTI = Dataset(
    name="kitti",
    title="KITTI depth (validation drives)",
    licence="CC-BY-NC-SA 3.0",
    source="cvlibs.net/datasets/kitti (depth completion: annotated depth; raw data: synced drives)",
    settings=(Setting.SHORT, Setting.LONG, Setting.ALL),
    find=_find,
)
