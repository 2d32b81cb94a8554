"""Values that travel between stages; each carries its meaning and checks itself.

Conventions (docs/conventions.md): time is the first axis; images are RGB, row-major, height before width;
pixel (0, 0) is the centre of the top-left pixel; cameras look along +z with x right and y down; poses are
``world_from_cam``; disparity is larger when nearer; times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import AmbiguityError, ShapeError

__all__ = [
    "Ambiguity",
    "CameraPath",
    "DepthMaps",
    "FrameBatch",
    "Frames",
    "Intrinsics",
    "MotionKind",
    "Representation",
    "Role",
    "SegmentInfo",
    "SegmentMaps",
    "Shot",
    "VideoInfo",
]

BoolArray = NDArray[np.bool_]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Uint8Array = NDArray[np.uint8]
Int32Array = NDArray[np.int32]

# The smallest z whose inverse float32 can hold.
NEAREST_Z = np.finfo(np.float32).tiny


class Representation(StrEnum):
    """What a depth value measures."""

    DISPARITY = "disparity"  # grows as the surface comes nearer: a / z + b
    Z_DEPTH = "z_depth"  # distance along the optical axis


class Ambiguity(StrEnum):
    """What is unknown about a depth map: nothing, one factor, or a factor and an offset."""

    AFFINE = "affine"
    SCALE = "scale"
    METRIC = "metric"


class Role(IntEnum):
    """The part a segment plays in fusion; every label set is mapped to these."""

    UNKNOWN = 0
    SKY = 1
    GROUND = 2
    PLANAR = 3
    STATIC = 4
    MOVER = 5


class MotionKind(StrEnum):
    """What the camera does during a shot, as far as its geometry can be known."""

    PARALLAX = "parallax"  # translation large enough to triangulate
    ROTATION = "rotation"
    STATIC = "static"
    ZOOM = "zoom"
    UNSOLVED = "unsolved"


class Frames(Protocol):
    """A time-first array read lazily: a NumPy array, a Zarr array or a reader over a store."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True)
class Shot:
    """Frames ``start`` to ``stop`` (exclusive) without a cut between them."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ShapeError("a shot needs 0 <= start < stop", got=(self.start, self.stop))

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class VideoInfo:
    """A video as its container and first frame describe it; ``width`` and ``height`` are as displayed."""

    path: Path
    width_px: int
    height_px: int
    frame_rate: Fraction
    frame_count_from_header: int | None
    duration_seconds_from_header: float | None
    codec: str
    pixel_format: str
    rotation_degrees: int = 0
    is_hdr: bool = False
    has_audio: bool = False
    is_sequence: bool = False
    is_interlaced: bool = False


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive decoded frames.

    rgb: (N, H, W, 3) uint8. pts_seconds: (N,) float64, strictly increasing. index: (N,) int64, position
    in the processed range of the video.

    Raises ShapeError when lengths or dtypes disagree.
    """

    rgb: Uint8Array
    pts_seconds: Float64Array
    index: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.rgb.ndim != 4 or self.rgb.shape[-1] != 3 or self.rgb.dtype != np.uint8:
            raise ShapeError("frames must be RGB", expected="(N, H, W, 3) uint8", got=(self.rgb.shape, self.rgb.dtype))
        if not len(self.rgb) == len(self.pts_seconds) == len(self.index):
            raise ShapeError(
                "frames, times and indices must have one length",
                got=(len(self.rgb), len(self.pts_seconds), len(self.index)),
            )

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class DepthMaps:
    """Depth of consecutive frames, with what it means.

    depth: (N, H, W) float32, in metres (``metric`` z_depth), 1/metres (``metric`` disparity) or an unknown
    unit. valid: (N, H, W) bool. confidence: (N, H, W) float32 in [0, 1] or None. Values outside ``valid``
    carry no meaning.

    Raises ShapeError when shapes or dtypes disagree.
    """

    depth: Float32Array
    valid: BoolArray
    representation: Representation
    ambiguity: Ambiguity
    confidence: Float32Array | None = None

    def __post_init__(self) -> None:
        if self.depth.ndim != 3 or self.depth.dtype != np.float32:
            got = (self.depth.shape, self.depth.dtype)
            raise ShapeError("depth must be a stack", expected="(N, H, W) float32", got=got)
        others = [self.valid] if self.confidence is None else [self.valid, self.confidence]
        if any(other.shape != self.depth.shape for other in others) or self.valid.dtype != np.bool_:
            raise ShapeError("validity and confidence must match depth", expected=self.depth.shape)

    def __len__(self) -> int:
        return len(self.depth)

    @classmethod
    def of(
        cls,
        depth: NDArray[Any],
        representation: Representation | str,
        ambiguity: Ambiguity | str,
        *,
        valid: BoolArray | None = None,
        confidence: Float32Array | None = None,
    ) -> DepthMaps:
        """Wrap raw values (N, H, W): those that are not finite, and z_depth <= 0, become invalid and zero.

        valid: where something else than the values says what is known, (N, H, W) bool. Unless affine, a known pixel
        with a value <= 0 or z_depth of infinity has no surface: it is infinitely far, and zero, which is valid.
        """
        representation, ambiguity = Representation(representation), Ambiguity(ambiguity)
        values = np.ascontiguousarray(depth, np.float32)
        known = np.isfinite(values)
        if valid is None:
            if representation is Representation.Z_DEPTH:
                known &= values > 0
        elif ambiguity is Ambiguity.AFFINE:
            known &= valid
        else:
            endless = (values <= 0) | (np.isposinf(values) & (representation is Representation.Z_DEPTH))
            values = np.where(endless, np.float32(0), values)
            known = valid & (known | endless)
        return cls(np.where(known, values, np.float32(0)), known, representation, ambiguity, confidence)

    def as_disparity(self) -> DepthMaps:
        """Return 1 / z where z_depth is given, 0 where z is infinite or 0, and disparity unchanged.

        Raises AmbiguityError for affine z_depth, whose inverse is not a disparity up to an affine map.
        """
        if self.representation is Representation.DISPARITY:
            return self
        if self.ambiguity is Ambiguity.AFFINE:
            raise AmbiguityError(
                "affine-invariant z-depth cannot be inverted",
                expected="disparity, or z_depth known up to scale",
                hint="State representation=disparity if the values grow towards the camera",
            )
        has_surface = self.valid & (self.depth > 0)
        near = np.maximum(self.depth, NEAREST_Z)
        disparity = np.divide(1, near, out=np.zeros_like(self.depth), where=has_surface)
        return replace(self, depth=disparity, representation=Representation.DISPARITY)


@dataclass(frozen=True)
class SegmentInfo:
    """What one segment id means."""

    name: str
    role: Role
    is_thing: bool = False
    score: float = 1.0


@dataclass(frozen=True)
class SegmentMaps:
    """Segment ids of consecutive frames. Id 0 means unlabelled.

    ids: (N, H, W) int32. tables: one mapping from id to meaning for each frame; semantic segmentation uses
    the class number as id in every frame, panoptic segmentation numbers its segments frame by frame.
    """

    ids: Int32Array
    tables: tuple[Mapping[int, SegmentInfo], ...]

    def __post_init__(self) -> None:
        if self.ids.ndim != 3 or self.ids.dtype != np.int32:
            got = (self.ids.shape, self.ids.dtype)
            raise ShapeError("segment ids must be a stack", expected="(N, H, W) int32", got=got)
        if len(self.ids) != len(self.tables):
            raise ShapeError("one table for each frame", expected=len(self.ids), got=len(self.tables))

    def __len__(self) -> int:
        return len(self.ids)

    def roles(self) -> Uint8Array:
        """Map ids to roles: (N, H, W) uint8 of ``Role``; ids without a table entry become UNKNOWN."""
        roles = np.zeros(self.ids.shape, np.uint8)
        for frame_ids, table, out in zip(self.ids, self.tables, roles, strict=True):
            for segment_id, info in table.items():
                out[frame_ids == segment_id] = info.role
        return roles


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: u = fx x / z + cx, v = fy y / z + cy, pixel centres at integers."""

    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    width_px: int
    height_px: int

    def matrix(self) -> Float64Array:
        """The 3x3 matrix K."""
        return np.array([[self.fx_px, 0, self.cx_px], [0, self.fy_px, self.cy_px], [0, 0, 1]], np.float64)

    def resized(self, width_px: int, height_px: int) -> Intrinsics:
        """The same camera for the image resized to ``width_px`` x ``height_px`` (pixel edges stay aligned)."""
        sx, sy = width_px / self.width_px, height_px / self.height_px
        return Intrinsics(
            self.fx_px * sx,
            self.fy_px * sy,
            (self.cx_px + 0.5) * sx - 0.5,
            (self.cy_px + 0.5) * sy - 0.5,
            width_px,
            height_px,
        )


@dataclass(frozen=True)
class CameraPath:
    """Camera of one shot.

    world_from_cam: (T, 4, 4) float64, rigid, in the shot's own unit and frame. solved: (T,) bool; the pose
    of an unsolved frame is interpolated and must not be used for warping. reliability: (T,) float32 in
    [0, 1], 0 where the pose is not to be trusted. inlier_fraction: share of what was tracked that the path explains.
    """

    kind: MotionKind
    intrinsics: Intrinsics
    world_from_cam: Float64Array
    solved: BoolArray
    reliability: Float32Array
    inlier_fraction: float = 0.0
    triangulation_angle_degrees: float = 0.0
    reprojection_error_px: float = 0.0
    reason: str = ""

    def __post_init__(self) -> None:
        count = len(self.world_from_cam)
        if self.world_from_cam.shape != (count, 4, 4) or len(self.solved) != count or len(self.reliability) != count:
            raise ShapeError("poses, solved flags and reliability must have one length", got=self.world_from_cam.shape)

    def __len__(self) -> int:
        return len(self.world_from_cam)

    @property
    def is_reliable(self) -> bool:
        """Whether depth may be triangulated and fused along these poses."""
        return self.kind is MotionKind.PARALLAX and bool(self.solved.any())
