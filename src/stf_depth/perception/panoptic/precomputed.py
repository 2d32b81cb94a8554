"""Segments from any other tool, read by frame number.

A folder of PNG files, one a frame, sorted by the numbers in their names; pixel values (8 or 16 bits) are segment
ids, 0 is unlabelled. ``roles.json`` in the folder or its parent maps id -> {"name", "role"}. Frames whose file is
missing from the numbering or damaged are left unlabelled and counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stf_depth.config import FrozenConfig
from stf_depth.errors import InputError, InputNotFoundError, SequenceError, ShapeError
from stf_depth.frames import nearest
from stf_depth.ordering import files_in_order, places_in_numbering
from stf_depth.perception.base import BackendInfo, BackendRequest
from stf_depth.perception.depth.map_files import tree_digest
from stf_depth.types import Int32Array, Role, SegmentInfo, SegmentMaps

__all__ = ["PrecomputedSegments"]

VERSION = 2
ROLES_FILE = "roles.json"
# Pillow's names of greyscale with 8 and 16 bits, and of palette images.
ID_MODES = ("L", "P", "I;16", "I;16B", "I")
# A folder may lack some frames, but not so many that it must belong to another video.
TOLERATED_GAP = 0.1
ROLE_NAMES = {role.name.lower(): role for role in Role}


class SegmentFolderOptions(FrozenConfig):
    """offset: maps to skip, for a video that starts later; below zero, frames of the video before the first map.

    numbered: a number that the names leave out is a frame without a map; otherwise the files are the frames in order.
    """

    offset: int = 0
    numbered: bool = True


class PrecomputedSegments:
    """A folder of segment ids.

    Raises InputNotFoundError without the folder, SequenceError without PNG files in it, InputError for a damaged
    ``roles.json``. Without that file every segment is UNKNOWN.
    """

    def __init__(self, request: BackendRequest) -> None:
        folder = Path(request.location)
        if not folder.is_dir():
            raise InputNotFoundError("no folder of segments", where=folder)
        self._folder = folder
        options = SegmentFolderOptions.of(request.options)
        self._offset = options.offset
        files = files_in_order(folder, (".png",))
        if not files:
            raise SequenceError("no segment images", where=folder, expected="one .png for each frame")
        self._files = _with_gaps(files) if options.numbered else list[Path | None](files)
        roles_path = next((path for path in (folder / ROLES_FILE, folder.parent / ROLES_FILE) if path.is_file()), None)
        self._table = _read_roles(roles_path) if roles_path is not None else {}
        self._size = _first_size(files, folder)
        self.unusable: dict[int, str] = {}
        used = files if roles_path is None else [*files, roles_path]
        self.info: BackendInfo = request.info(
            tree_digest(used, folder.parent), options=options.model_dump(mode="json"), version=VERSION
        )

    def __len__(self) -> int:
        return max(0, len(self._files) - self._offset)

    def check_length(self, frame_count: int) -> None:
        """Raise ShapeError unless there is a map for nearly each of ``frame_count`` frames."""
        if abs(len(self) - frame_count) > TOLERATED_GAP * frame_count:
            what = "precomputed segments need one map for each frame"
            raise ShapeError(what, where=self._folder, expected=frame_count, got=len(self))

    def read(self, index: Sequence[int]) -> SegmentMaps:
        """Frame numbers -> ids (N, h, w), at the size of the first readable map; unusable frames are all 0."""
        ids = [self._ids(int(number)) for number in index]
        tables = tuple(self._known(frame_ids) for frame_ids in ids)
        return SegmentMaps(np.stack(ids) if ids else np.zeros((0, *self._size), np.int32), tables)

    def _ids(self, number: int) -> Int32Array:
        position = number + self._offset
        path = self._files[position] if 0 <= position < len(self._files) else None
        image = None if path is None else _read_ids(path)
        if image is None:
            self.unusable[number] = "missing" if path is None else f"damaged: {path.name}"
            return np.zeros(self._size, np.int32)
        return nearest(image, self._size)

    def _known(self, frame_ids: Int32Array) -> Mapping[int, SegmentInfo]:
        present = (int(number) for number in np.unique(frame_ids) if number)
        return {number: self._table.get(number, SegmentInfo(f"segment {number}", Role.UNKNOWN)) for number in present}


def _with_gaps(files: list[Path]) -> list[Path | None]:
    """Files in order, with None where the numbering of their names skips a frame; the first file is the first frame."""
    places = places_in_numbering([path.stem for path in files])
    if places is None:
        return list(files)
    slots: list[Path | None] = [None] * (places[-1] + 1)
    for place, path in zip(places, files, strict=True):
        slots[place] = path
    return slots


def _read_ids(path: Path) -> Int32Array | None:
    # Pillow keeps the indices of palette images, which OpenCV turns into colours.
    try:
        with Image.open(path) as image:
            ids = np.asarray(image) if image.mode in ID_MODES else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return None if ids is None else ids.astype(np.int32)


def _first_size(files: list[Path], folder: Path) -> tuple[int, int]:
    for path in files:
        image = _read_ids(path)
        if image is not None:
            return image.shape[0], image.shape[1]
    raise SequenceError("no readable segment image", where=folder, expected="8- or 16-bit greyscale PNG")


def _read_roles(path: Path) -> dict[int, SegmentInfo]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return {int(key): _segment(value) for key, value in content.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        roles = " | ".join(ROLE_NAMES)
        expected = f'{{"1": {{"name": "...", "role": "{roles}"}}}}'
        raise InputError("unusable roles", where=path, expected=expected, got=repr(error)[:200]) from error


def _segment(value: Mapping[str, Any]) -> SegmentInfo:
    role = ROLE_NAMES[str(value["role"]).lower()]
    return SegmentInfo(str(value.get("name", "")), role, is_thing=bool(value.get("is_thing", role is Role.MOVER)))
