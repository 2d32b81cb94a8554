"""MPI Sintel, training clips, clean pass.

training/clean/<clip>/frame_0001.png
training/depth/<clip>/frame_0001.dpt
training/camdata_left/<clip>/frame_0001.cam
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from stf_depth.errors import SequenceError
from stf_depth.evaluation.clips import GroundTruthClip, numbered
from stf_depth.evaluation.datasets.base import Dataset, Setting, existing
from stf_depth.types import Float32Array, Float64Array

__all__ = ["SINTEL", "read_cam", "read_dpt"]

TAG = 202021.25
D_MAX_M = 70.0
CLIPS = (
    *("alley_1", "alley_2", "ambush_2", "ambush_4", "ambush_5", "ambush_6", "ambush_7", "bamboo_1", "bamboo_2"),
    *("bandage_1", "bandage_2", "cave_2", "cave_4", "market_2", "market_5", "market_6", "mountain_1"),
    *("shaman_2", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3"),
)
FRAMES = {Setting.SHORT: slice(0, 50), Setting.LONG: slice(0, 100), Setting.ALL: slice(None)}


def read_dpt(path: Path) -> Float32Array:
    """(H, W) float32 depth of a .dpt file: float tag, int32 width and height, float32 values."""
    data = path.read_bytes()
    if len(data) < 12 or struct.unpack("<f", data[:4])[0] != np.float32(TAG):
        raise SequenceError("not a .dpt file", where=path)
    width, height = struct.unpack("<ii", data[4:12])
    if len(data) != 12 + 4 * width * height:
        raise SequenceError("truncated .dpt file", where=path, expected=12 + 4 * width * height, got=len(data))
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width).astype(np.float32)


def read_cam(path: Path) -> tuple[Float64Array, Float64Array]:
    """K (3, 3) and world_from_cam (4, 4) of a .cam file, which holds K and camera-from-world (3, 4) as doubles."""
    data = path.read_bytes()
    if len(data) != 4 + 8 * 21 or struct.unpack("<f", data[:4])[0] != np.float32(TAG):
        raise SequenceError("not a .cam file", where=path)
    values = np.frombuffer(data, "<f8", offset=4)
    cam_from_world = np.vstack([values[9:].reshape(3, 4), [0, 0, 0, 1]])
    return values[:9].reshape(3, 3).copy(), np.asarray(np.linalg.inv(cam_from_world), np.float64)


def _clip(root: Path, name: str) -> GroundTruthClip:
    training = root / "training"
    depth = numbered(training / "depth" / name, "frame_*.dpt")
    color = numbered(training / "clean" / name, "frame_*.png")
    # Its characters move, so the clips have no temporal alignment error although their cameras are known.
    reason = "the scene moves: temporal alignment error needs a static one"
    return GroundTruthClip(name, depth, color, read_dpt, D_MAX_M, poses_absent=reason)


def _find(root: Path, setting: Setting) -> list[GroundTruthClip]:
    folder = root / "training" / "depth"
    if setting is Setting.ALL:
        names = sorted(path.name for path in folder.glob("*") if path.is_dir())
    else:
        names = [path.name for path in existing(folder, CLIPS, dataset="Sintel")]
    return [_clip(root, name).frames(FRAMES[setting]) for name in names]


SINTEL = Dataset(
    name="sintel",
    title="MPI Sintel (clean, training)",
    licence="film CC-BY 3.0; data for research, cite Butler et al. 2012",
    source="sintel.is.tue.mpg.de (training images and depth)",
    settings=(Setting.SHORT, Setting.LONG, Setting.ALL),
    find=_find,
)
