"""What a perception backend is: one description and one method.

A backend owns its weights, its preprocessing and the map back to input pixels: every output covers exactly the
input frame (edges aligned), at a resolution of the backend's choice. Making a backend finds its weights (and
downloads them where they are not cached); the network is loaded with the first call.

Maps that exist already are not inferred but read by frame number: ``IndexedDepth`` and ``IndexedSegments``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from stf_depth.errors import AmbiguityError, ShapeError
from stf_depth.types import Ambiguity, DepthMaps, Float32Array, Float64Array, Representation, SegmentMaps, Uint8Array

__all__ = [
    "BackendInfo",
    "BackendRequest",
    "DepthBackend",
    "DepthFromGeometry",
    "FlowBackend",
    "IndexedDepth",
    "IndexedSegments",
    "Licence",
    "SegmentBackend",
    "Task",
    "check_frames",
]

Task = Literal["depth", "semantic", "panoptic", "flow"]


@dataclass(frozen=True)
class Licence:
    """Licence of the weights; ``commercial`` is None when it is not known."""

    name: str
    commercial: bool | None
    source: str = ""


@dataclass(frozen=True)
class BackendInfo:
    """What a backend is called, what its output means, and what its weights are.

    weights_digest: identity of the weights for cache keys (file digest, hub revision, or a version string for
    backends without weights). size_mb: download size, None when unknown. options: everything else that decides the
    output, defaults included, as JSON values, also for cache keys; the content of files in place of their paths.

    Raises AmbiguityError for affine z-depth: its inverse is not disparity up to a factor and an offset, so nothing can
    be done with it.
    """

    name: str
    task: str
    licence: Licence
    weights: str = ""
    weights_digest: str = ""
    size_mb: float | None = None
    representation: Representation | None = None
    ambiguity: Ambiguity | None = None
    version: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.representation is Representation.Z_DEPTH and self.ambiguity is Ambiguity.AFFINE:
            raise AmbiguityError(
                "affine-invariant z-depth cannot be turned into disparity",
                where=self.name,
                expected="disparity, or z_depth known up to scale",
                hint="State representation=disparity if the values grow towards the camera",
            )


@dataclass(frozen=True)
class BackendRequest:
    """What a backend is made from: where its weights are, where it runs, and its options.

    name: as the user wrote it. location: hub id, file or folder of the weights or maps. options: still as text;
    the backend checks them. device: ``auto``, ``cpu``, ``cuda`` or ``mps``. precision: dtype of the network.
    """

    name: str
    task: Task
    location: str
    licence: Licence
    options: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    precision: str = "float32"
    size_mb: float | None = None
    representation: Representation | None = None
    ambiguity: Ambiguity | None = None

    def info(
        self,
        weights_digest: str,
        *,
        options: Mapping[str, Any] | None = None,
        version: int = 1,
        representation: Representation | None = None,
        ambiguity: Ambiguity | None = None,
        licence: Licence | None = None,
    ) -> BackendInfo:
        """Description of the backend made from this request.

        options: as the backend reads them, with its defaults; left out, those of the request.
        """
        return BackendInfo(
            name=self.name,
            task=self.task,
            licence=licence or self.licence,
            weights=self.location,
            weights_digest=weights_digest,
            size_mb=self.size_mb,
            representation=representation or self.representation,
            ambiguity=ambiguity or self.ambiguity,
            version=version,
            options=dict(self.options if options is None else options),
        )


def check_frames(rgb: Uint8Array) -> None:
    """Raise ShapeError unless rgb is (N, H, W, 3) uint8 with at least one frame of at least one pixel."""
    if rgb.ndim != 4 or rgb.shape[-1] != 3 or rgb.dtype != "uint8" or rgb.size == 0:
        got = (rgb.shape, str(rgb.dtype))
        raise ShapeError("frames must be RGB", expected="(N, H, W, 3) uint8, nothing empty", got=got)


@runtime_checkable
class DepthBackend(Protocol):
    """Depth of single frames."""

    @property
    def info(self) -> BackendInfo: ...

    def infer(self, rgb: Uint8Array) -> DepthMaps:
        """rgb (N, H, W, 3) uint8 -> N depth maps (N, h, w) covering the same field of view."""
        ...


@runtime_checkable
class IndexedDepth(Protocol):
    """Depth computed before, read by frame number."""

    @property
    def info(self) -> BackendInfo: ...

    def __len__(self) -> int: ...

    def check_length(self, frame_count: int) -> None:
        """Raise ShapeError unless there is one map for each of ``frame_count`` frames."""
        ...

    def check_numbering(self, places: Sequence[int] | None) -> None:
        """Raise ShapeError where the names of the maps skip other numbers than those of the images.

        places: of the images in their numbering, None for a video, which skips none.
        """
        ...

    def check_times(self, index: Sequence[int], pts_seconds: Float64Array) -> None:
        """Raise ShapeError where maps have times of their own, and others than the frames ``index`` have."""
        ...

    def read(self, index: Sequence[int]) -> DepthMaps:
        """Frame numbers, counted from the first frame of the video -> their maps, in that order."""
        ...


@dataclass(frozen=True)
class DepthFromGeometry:
    """Depth without a network: the pipeline computes it from camera motion, so there is nothing to infer."""

    info: BackendInfo


@runtime_checkable
class SegmentBackend(Protocol):
    """Semantic or panoptic segmentation of single frames."""

    @property
    def info(self) -> BackendInfo: ...

    def infer(self, rgb: Uint8Array) -> SegmentMaps:
        """rgb (N, H, W, 3) uint8 -> N segment maps (N, h, w) covering the same field of view."""
        ...


@runtime_checkable
class IndexedSegments(Protocol):
    """Segments computed before, read by frame number."""

    @property
    def info(self) -> BackendInfo: ...

    @property
    def unusable(self) -> Mapping[int, str]:
        """Frame number -> why its map was missing or damaged, for the frames read so far."""
        ...

    def __len__(self) -> int: ...

    def check_length(self, frame_count: int) -> None:
        """Raise ShapeError unless there is one map for each of ``frame_count`` frames."""
        ...

    def read(self, index: Sequence[int]) -> SegmentMaps:
        """Frame numbers, counted from the first frame of the video -> their maps; unusable ones all 0."""
        ...


@runtime_checkable
class FlowBackend(Protocol):
    """Optical flow between pairs of frames."""

    @property
    def info(self) -> BackendInfo: ...

    def infer(self, source: Uint8Array, target: Uint8Array) -> Float32Array:
        """source, target (N, H, W, 3) uint8 -> flow_px (N, H, W, 2) from source to target, in pixels (dx, dy)."""
        ...
