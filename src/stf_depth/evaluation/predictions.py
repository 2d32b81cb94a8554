"""Predictions to be scored: result folders, files of depth, arrays; read as disparity, a few frames at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import AmbiguityError, InputError, SpecError
from stf_depth.result import DEPTH_STORE, PROGRESS
from stf_depth.types import Ambiguity, BoolArray, DepthMaps, Float32Array, Representation

__all__ = ["ArrayPrediction", "Confident", "FilePrediction", "MissingPrediction", "Prediction", "open_prediction"]


class Prediction(Protocol):
    """Depth of one clip and what it promises to be."""

    @property
    def name(self) -> str: ...

    @property
    def ambiguity(self) -> Ambiguity: ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[Float32Array]:
        """Disparity (h, w) float32 of frames, NaN where nothing was predicted; index -1 is a missing frame."""
        ...


@runtime_checkable
class Confident(Protocol):
    """A prediction that may say how sure it is."""

    def read_confidence(self, indices: Sequence[int]) -> list[Float32Array] | None:
        """Confidence (h, w) float32 of frames, 0 where one is missing; None where it has none."""
        ...


_NO_CONFIDENCE: Float32Array = np.zeros((1, 1), np.float32)
MISSING_FRAME: Float32Array = np.full((1, 1), np.nan, np.float32)


def _as_disparity(
    depth: NDArray[Any], valid: BoolArray | None, representation: Representation, ambiguity: Ambiguity
) -> Float32Array:
    values = np.asarray(depth, np.float32)
    declared = None if valid is None else valid[None]
    maps = DepthMaps.of(values[None], representation, ambiguity, valid=declared).as_disparity()
    return np.where(maps.valid[0], maps.depth[0], np.float32(np.nan))


def _refuse_affine_z(representation: Representation, ambiguity: Ambiguity, where: object) -> None:
    if representation is Representation.Z_DEPTH and ambiguity is Ambiguity.AFFINE:
        raise AmbiguityError(
            "affine-invariant z-depth cannot be scored: its inverse is no disparity",
            where=where,
            expected="disparity, or z_depth known up to scale",
        )


class ArrayPrediction:
    """Arrays in memory or read lazily: depth (T, h, w); valid, bool, and confidence of the same shape, or None."""

    def __init__(
        self,
        depth: Any,
        representation: Representation | str,
        ambiguity: Ambiguity | str,
        *,
        valid: Any = None,
        confidence: Any = None,
        name: str = "prediction",
    ) -> None:
        self.name = name
        self.ambiguity = Ambiguity(ambiguity)
        self._representation = Representation(representation)
        self._depth, self._valid, self._confidence = depth, valid, confidence
        _refuse_affine_z(self._representation, self.ambiguity, name)

    def __len__(self) -> int:
        return int(self._depth.shape[0])

    def read(self, indices: Sequence[int]) -> list[Float32Array]:
        """See ``Prediction``."""
        present = [k for k in indices if k >= 0]
        if not present:
            return [MISSING_FRAME for _ in indices]
        # One read of the whole span: a store decodes each of its chunks once.
        low, high = min(present), max(present) + 1
        depth = np.asarray(self._depth[low:high])
        valid = None if self._valid is None else np.asarray(self._valid[low:high], bool)

        def frame(k: int) -> Float32Array:
            mask = None if valid is None else valid[k - low]
            return _as_disparity(depth[k - low], mask, self._representation, self.ambiguity)

        return [frame(k) if k >= 0 else MISSING_FRAME for k in indices]

    def read_confidence(self, indices: Sequence[int]) -> list[Float32Array] | None:
        """See ``Confident``."""
        if self._confidence is None:
            return None
        return [np.asarray(self._confidence[k], np.float32) if k >= 0 else _NO_CONFIDENCE for k in indices]


@dataclass(frozen=True)
class FilePrediction:
    """One map a frame, read through ``read_map``: number -> values and validity."""

    name: str
    frame_count: int
    representation: Representation
    ambiguity: Ambiguity
    read_map: Callable[[int], tuple[Float32Array, BoolArray | None]]
    unit_m: float = 1.0

    def __len__(self) -> int:
        return self.frame_count

    def read(self, indices: Sequence[int]) -> list[Float32Array]:
        """See ``Prediction``."""
        return [self._frame(k) if k >= 0 else MISSING_FRAME for k in indices]

    def _frame(self, index: int) -> Float32Array:
        values, valid = self.read_map(index)
        is_metric_z = (self.representation, self.ambiguity) == (Representation.Z_DEPTH, Ambiguity.METRIC)
        scaled = values * np.float32(self.unit_m) if is_metric_z else values
        return _as_disparity(scaled, valid, self.representation, self.ambiguity)


@dataclass(frozen=True)
class MissingPrediction:
    """A clip that nothing was predicted for: every pixel fails."""

    name: str
    frame_count: int
    ambiguity: Ambiguity = Ambiguity.METRIC

    def __len__(self) -> int:
        return self.frame_count

    def read(self, indices: Sequence[int]) -> list[Float32Array]:
        """See ``Prediction``."""
        return [MISSING_FRAME for _ in indices]


def open_prediction(
    path: Path, *, representation: Representation | str | None = None, ambiguity: Ambiguity | str | None = None
) -> Prediction:
    """Open a result folder, or anything that the precomputed depth backend reads.

    representation, ambiguity: what the values mean, where the files do not say or say it wrongly.

    Raises InputNotFoundError, InputError, SpecError when the meaning is not stated, AmbiguityError for affine z-depth.
    """
    from stf_depth.perception.depth.map_files import open_maps

    maps = open_maps(path)
    stated: dict[str, str] = {**maps.assumed, **maps.stated} if "representation" not in maps.stated else {**maps.stated}
    meaning = _meaning(stated, representation, ambiguity, path)
    store = path / DEPTH_STORE if (path / DEPTH_STORE).is_dir() else path
    if store.suffix == ".zarr":
        return _open_store(store, path, *meaning)
    _refuse_affine_z(*meaning, path)
    return FilePrediction(path.stem, len(maps), *meaning, maps.read, float(stated.get("unit_m", 1.0)))


def _meaning(
    stated: Mapping[str, str],
    representation: Representation | str | None,
    ambiguity: Ambiguity | str | None,
    path: Path,
) -> tuple[Representation, Ambiguity]:
    found = (representation or stated.get("representation"), ambiguity or stated.get("ambiguity"))
    if found[0] is None or found[1] is None:
        raise SpecError(
            "the meaning of the depth is not stated",
            where=path,
            expected="representation and ambiguity",
            hint="Give both, for example --representation disparity --ambiguity affine",
        )
    try:
        return Representation(found[0]), Ambiguity(found[1])
    except ValueError as error:
        raise InputError("unknown meaning of depth", where=path, got=error) from None


def _open_store(store: Path, path: Path, representation: Representation, ambiguity: Ambiguity) -> ArrayPrediction:
    import zarr

    from stf_depth.cache.store import ChunkedFrames

    group: Any = zarr.open_group(store, mode="r")
    arrays: dict[str, Any] = {name: group[name] for name in ("depth", "valid", "confidence") if name in group}
    if store != path:  # a result, of which every chunk has a file: one without is damage and not zeros
        count = int(arrays["depth"].shape[0])
        arrays = {name: ChunkedFrames(array, count, path / PROGRESS, result=store) for name, array in arrays.items()}
    valid, confidence = arrays.get("valid"), arrays.get("confidence")
    return ArrayPrediction(
        arrays["depth"], representation, ambiguity, valid=valid, confidence=confidence, name=path.stem
    )
