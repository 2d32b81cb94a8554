"""A clip with ground truth: where its frames lie, how depth is read, and which part of it counts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from stf_depth.errors import InputNotFoundError, SequenceError, ShapeError
from stf_depth.types import BoolArray, Float32Array, Float64Array, Intrinsics, Uint8Array

__all__ = ["Crop", "GroundTruthClip", "intrinsics_for_depth", "numbered", "orthonormal_poses", "png_reader", "read_rgb"]

DepthReader = Callable[[Path], Float32Array]
MAX_ROTATION_ERROR = 0.05


@dataclass(frozen=True)
class Crop:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, as Python slices; None is the image border."""

    top: int | None = None
    bottom: int | None = None
    left: int | None = None
    right: int | None = None

    def of(self, image: Float32Array) -> Float32Array:
        """The part of (H, W, ...) inside."""
        return image[self.top : self.bottom, self.left : self.right]

    def intrinsics(self, K: Float64Array) -> Float64Array:
        """K of the cropped image: the principal point moves by the crop's corner."""
        moved = K.copy()
        moved[0, 2] -= self.left or 0
        moved[1, 2] -= self.top or 0
        return moved


@dataclass(frozen=True)
class GroundTruthClip:
    """Frames of one clip with ground truth, read one at a time.

    depth_files, color_files: one of each a frame. read_depth_m: file -> (H, W) float32 metres, 0 = none. d_max_m:
    depth from there on is not scored. K: (3, 3) pixels at the uncropped depth size. world_from_cam: (T, 4, 4) rigid.
    Without poses, ``poses_absent`` says why.
    """

    name: str
    depth_files: tuple[Path, ...]
    color_files: tuple[Path, ...]
    read_depth_m: DepthReader
    d_max_m: float
    crop: Crop = Crop()
    K: Float64Array | None = None
    world_from_cam: Float64Array | None = None
    poses_absent: str = "no camera poses"

    def __post_init__(self) -> None:
        if not self.depth_files:
            raise SequenceError("a clip without frames", where=self.name)
        if len(self.color_files) != len(self.depth_files):
            counts = (len(self.color_files), len(self.depth_files))
            raise SequenceError("colour and depth differ in frames", where=self.name, got=counts)
        if self.world_from_cam is not None and len(self.world_from_cam) != len(self.depth_files):
            counts = (len(self.world_from_cam), len(self.depth_files))
            raise SequenceError("poses and depth differ in frames", where=self.name, got=counts)

    def __len__(self) -> int:
        return len(self.depth_files)

    def full_truth_m(self, index: int) -> Float32Array:
        """Depth of a frame before the crop, (H, W) float32 metres, 0 = none."""
        return self.read_depth_m(self.depth_files[index])

    def rgb(self, index: int) -> Uint8Array:
        """Colour of a frame before the crop, (H, W, 3) uint8."""
        return read_rgb(self.color_files[index])

    @property
    def cropped_K(self) -> Float64Array | None:  # noqa: N802
        """K of what is scored."""
        return None if self.K is None else self.crop.intrinsics(self.K)

    def frames(self, wanted: slice) -> GroundTruthClip:
        """The same clip with only some frames."""
        poses = None if self.world_from_cam is None else self.world_from_cam[wanted]
        depth, color = self.depth_files[wanted], self.color_files[wanted]
        return replace(self, depth_files=depth, color_files=color, world_from_cam=poses)


def read_rgb(path: Path) -> Uint8Array:
    """An image as (H, W, 3) uint8 RGB; raises SequenceError for what is not an image."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SequenceError("not an image", where=path)
    return np.asarray(image[..., ::-1], np.uint8)


def png_reader(units_per_m: float, *, invalid: int = 0) -> DepthReader:
    """Reader of 16-bit depth images: value / units_per_m; ``invalid`` and 0 become 0."""

    def read(path: Path) -> Float32Array:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None or image.ndim != 2 or image.dtype != np.uint16:
            got = "nothing readable" if image is None else f"{image.dtype} {image.shape}"
            raise SequenceError("not a depth image", where=path, expected="16-bit greyscale", got=got)
        absent: BoolArray = np.asarray(image == invalid)
        return np.where(absent, np.float32(0), image.astype(np.float32) / np.float32(units_per_m))

    return read


def numbered(folder: Path, pattern: str, suffixes: Collection[str] | None = None) -> tuple[Path, ...]:
    """Files matching ``pattern``, sorted by the last number in their names; raises when there are none.

    Hidden files are left out, and those of other ``suffixes`` where any are given.
    """
    if not folder.is_dir():
        raise InputNotFoundError("no such folder", where=folder)
    found = sorted(folder.glob(pattern), key=lambda path: (_last_number(path), path.name))
    found = [path for path in found if not path.name.startswith(".")]
    if suffixes is not None:
        found = [path for path in found if path.suffix.lower() in suffixes]
    if not found:
        raise SequenceError("no frames", where=folder, expected=pattern)
    return tuple(found)


def _last_number(path: Path) -> int:
    digits = "".join(c if c.isdecimal() else " " for c in path.name.split(".")[0]).split()
    return int(digits[-1]) if digits else -1


def orthonormal_poses(poses: Float64Array, *, where: object) -> Float64Array:
    """The rigid motions nearest to (T, 4, 4) camera-to-world matrices: each rotation becomes U V^T of its SVD.

    Non-finite poses stay NaN. Raises ShapeError for matrices that are not rotations and translations at all.
    """
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise ShapeError("poses must be 4x4 matrices", where=where, got=poses.shape)
    out = np.full_like(poses, np.nan)
    for pose, rigid in zip(poses, out, strict=True):
        if not np.isfinite(pose).all():
            continue
        u, _, vt = np.linalg.svd(pose[:3, :3])
        rotation = u @ vt
        if np.linalg.det(rotation) < 0 or np.abs(rotation - pose[:3, :3]).max() > MAX_ROTATION_ERROR:
            raise ShapeError("not a rotation", where=where, got=pose[:3, :3].round(3).tolist())
        rigid[:] = np.eye(4)
        rigid[:3, :3], rigid[:3, 3] = rotation, pose[:3, 3]
    return out


def intrinsics_for_depth(K: Float64Array, color_wh: tuple[int, int], depth_wh: tuple[int, int]) -> Float64Array:
    """K of the colour camera for depth registered to it at another size."""
    camera = Intrinsics(K[0, 0], K[1, 1], K[0, 2], K[1, 2], *color_wh)
    return camera.resized(*depth_wh).matrix()
