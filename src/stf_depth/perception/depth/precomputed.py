"""Depth from any other tool, read by frame number.

| path | read as |
|---|---|
| .npz | ``depth`` (T, h, w), optional ``valid``, ``pts_seconds``, ``representation``, ``ambiguity`` |
| .npy | (T, h, w) |
| result folder, or its depth.zarr | a result of this package |
| folder of 16-bit .png | one frame a file; where nothing says otherwise z-depth in millimetres, 0 = none |
| folder of .exr | one frame a file; channel Z is z-depth in metres |
| folder of .npy | one frame a file; the meaning is read from ``meaning.json`` where there is one |

Files of a folder are sorted by the numbers in their names. Where nothing says which pixels are known, NaN and
infinite values are not, nor is zero in z-depth, nor are negative values, which only affine disparity has. Where
something does (``valid``, a code for unknown), known pixels without a surface are infinitely far: see
``DepthMaps.of``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.errors import ConfigError, InputError, ShapeError, SpecError
from stf_depth.frames import nearest
from stf_depth.perception.base import BackendInfo, BackendRequest
from stf_depth.perception.depth.map_files import MapSource, open_maps
from stf_depth.types import Ambiguity, BoolArray, DepthMaps, Float32Array, Float64Array, Representation

__all__ = ["PrecomputedDepth"]

VERSION = 2
OFFSET_HINT = "Frames count from the first of the video: add ?offset=-N to maps that begin with frame N"

log = logging.getLogger(__name__)


class PrecomputedOptions(FrozenConfig):
    """representation, ambiguity: what the values mean, over what the file says.

    unit_m: metres in one unit of metric z-depth. offset: maps to skip, for a video that starts later; below zero,
    frames of the video before the first map.
    """

    representation: Representation | None = None
    ambiguity: Ambiguity | None = None
    unit_m: float | None = Field(None, gt=0)
    offset: int = 0


class PrecomputedDepth:
    """Maps on disk as depth of a video.

    Raises InputNotFoundError and InputError for a path that holds no maps or states a meaning that is none, SpecError
    when neither the files nor the options say what the values mean, AmbiguityError where they mean affine z-depth.
    """

    def __init__(self, request: BackendRequest) -> None:
        path = Path(request.location)
        self._path = path
        self._maps: MapSource = open_maps(path)
        given = PrecomputedOptions.of(request.options).model_dump(exclude_none=True)
        stated = self._stated(given)
        self._options = self._meant({"ambiguity": "affine", **stated})
        if self._options.representation is None or "ambiguity" not in stated:
            hint = f"precomputed:{path}?representation=disparity&ambiguity=affine, or z_depth and metric"
            raise SpecError("the meaning of the depth is not stated", where=path, hint=f"Write for example {hint}")
        self.info: BackendInfo = request.info(
            self._maps.digest(),
            options=self._options.model_dump(mode="json"),
            version=VERSION,
            representation=self._options.representation,
            ambiguity=self._options.ambiguity,
        )

    def _stated(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the values mean: by the options, else the files, else what is assumed where both are silent."""
        stated, assumed = {**self._maps.stated, **given}, self._maps.assumed
        if "representation" not in stated and assumed:
            log.warning("%s: taken as z-depth in millimetres; ?representation=... says otherwise", self._path)
            return {**assumed, **stated}
        is_assumed = all(stated.get(key) == assumed.get(key) for key in ("representation", "ambiguity"))
        if "representation" not in self._maps.stated and is_assumed:
            # Who states the meaning that is assumed anyway does not change the unit.
            return {**assumed, **stated}
        return stated

    def _meant(self, stated: Mapping[str, Any]) -> PrecomputedOptions:
        """As options; raises InputError for words of the files that mean nothing: the caller's are checked already."""
        try:
            return PrecomputedOptions.of(stated)
        except ConfigError as error:
            what = error.what.replace("for option", "in the maps for")
            hint = "?representation=...&ambiguity=... after the path says what is right"
            raise InputError(what, where=self._path, expected=error.expected, got=error.got, hint=hint) from error

    def __len__(self) -> int:
        return max(0, len(self._maps) - self._options.offset)

    @property
    def pts_seconds(self) -> Float64Array | None:
        """(T,) times of the maps that are not skipped, where the file has them."""
        times = self._maps.pts_seconds
        return None if times is None else times[max(0, self._options.offset) :]

    def check_length(self, frame_count: int) -> None:
        """Raise ShapeError unless there is one map for each of ``frame_count`` frames."""
        if len(self) != frame_count:
            what = "precomputed depth needs one map for each frame"
            raise ShapeError(what, where=self._path, expected=frame_count, got=len(self))

    def check_numbering(self, places: Sequence[int] | None) -> None:
        """Raise ShapeError where the names of the maps skip other numbers than those of the images."""
        found, offset = self._maps.places, self._options.offset
        if found is None:
            return
        expected = range(len(found) + abs(offset)) if places is None else places
        pairs = zip(found[max(0, offset) :], expected[max(0, -offset) :], strict=False)
        ahead = [own - other for own, other in pairs]
        position = next((k for k, by in enumerate(ahead) if by != ahead[0]), None)
        if position is not None:
            what = "the numbering of the maps skips other frames than that of the images"
            got = f"map {position + max(0, offset)} of the folder, counted from 0, is another frame's"
            raise ShapeError(what, where=self._path, expected="one map for each frame", got=got)

    def check_times(self, index: Sequence[int], pts_seconds: Float64Array) -> None:
        """Raise ShapeError where maps have times of their own, and others than the frames ``index`` have.

        Times count from the first frame of the video, or, with maps skipped, from the first map that is not.
        """
        times, offset = self._maps.pts_seconds, self._options.offset
        if times is None or len(times) < 2:
            return
        begin = times[offset] if 0 < offset < len(times) else 0.0
        tolerance = np.median(np.diff(times)) / 2
        for number, seconds in zip(index, pts_seconds.tolist(), strict=True):
            position = number + offset
            if 0 <= position < len(times) and abs(times[position] - begin - seconds) > tolerance:
                what, hint = "the times of the maps contradict those of the frames", OFFSET_HINT
                where, got = f"{self._path}: map {position}", f"{times[position] - begin:.3f} s"
                raise ShapeError(what, where=where, expected=f"{seconds:.3f} s", got=got, hint=hint)

    def read(self, index: Sequence[int]) -> DepthMaps:
        """Frame numbers -> maps (N, h, w), at the size of the first of them.

        Raises ShapeError for a frame without a map.
        """
        pairs = [self._map(int(number)) for number in index]
        size = pairs[0][0].shape if pairs else (1, 1)
        values = [nearest(values, size) for values, _ in pairs]
        valid = [nearest(valid, size) for _, valid in pairs if valid is not None]
        representation, ambiguity = self._meaning()
        if not values:
            return DepthMaps.of(np.zeros((0, 1, 1)), representation, ambiguity)
        declared = None if pairs[0][1] is None else np.stack(valid)
        return DepthMaps.of(np.stack(values), representation, ambiguity, valid=declared)

    def _meaning(self) -> tuple[Representation, Ambiguity]:
        if self._options.representation is None or self._options.ambiguity is None:
            raise InputError("the meaning of the depth is not stated", where=self._path)
        return self._options.representation, self._options.ambiguity

    def _map(self, number: int) -> tuple[Float32Array, BoolArray | None]:
        position = number + self._options.offset
        if not 0 <= position < len(self._maps):
            what, expected = "no precomputed map for this frame", f"{max(0, -self._options.offset)} to {len(self) - 1}"
            raise ShapeError(what, where=self._path, expected=expected, got=number, hint=OFFSET_HINT)
        values, valid = self._maps.read(position)
        meaning = self._meaning()
        if meaning == (Representation.Z_DEPTH, Ambiguity.METRIC) and self._options.unit_m is not None:
            values = values * np.float32(self._options.unit_m)
        if valid is None and meaning != (Representation.DISPARITY, Ambiguity.AFFINE):
            values = np.where(values < 0, np.float32(np.nan), values)
        return values, valid
