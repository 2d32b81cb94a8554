"""From what the user names to an ordered list of inputs with safe, unique result names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Literal

from stf_depth.errors import InputError, InputNotFoundError
from stf_depth.ordering import natural_key
from stf_depth.video.sequence import sequence_images

__all__ = ["VIDEO_SUFFIXES", "InputItem", "discover", "safe_name", "unique_name"]

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".asf",
    ".flv", ".ogv", ".3gp", ".mxf", ".vob", ".apng",
})
# fmt: on
COLOR_FOLDER = "color"  # where an RGB-D sequence folder keeps its images
RESULT_STORE = "depth.zarr"
MAX_NAME_BYTES = 120  # leaves room for suffixes below the 255 of common file systems
# Separators, and what Windows and zip tools refuse.
UNSAFE = re.compile(r'[\\/<>:"|?*\x00-\x1f\x7f]')


@dataclass(frozen=True)
class InputItem:
    """One video to process; ``name`` is a single safe path component, unique among the items."""

    path: Path
    name: str
    kind: Literal["video", "sequence"]


def discover(paths: Iterable[Path], *, taken: set[str] | None = None) -> list[InputItem]:
    """Videos and image sequences at ``paths``, in the order given and in natural order within folders.

    A path is a video file, an image-sequence folder, an RGB-D sequence folder with a ``color`` folder inside, or a
    folder of these, searched to any depth. Hidden entries and folders of finished results are passed over; symlinks
    are followed once. taken: what ``unique_name`` keeps, where items have to be told from others.

    Raises InputNotFoundError where nothing lies at a path or a folder holds no video, InputError for a folder that
    cannot be listed.
    """
    items: list[InputItem] = []
    taken = set() if taken is None else taken
    seen: set[Path] = set()
    for path in dict.fromkeys(paths):
        if path.is_dir() and path.resolve() in seen:
            continue
        for where, label, kind in _found(path, seen):
            items.append(InputItem(where, unique_name(safe_name(label), where, taken), kind))
    return items


Found = tuple[Path, str, Literal["video", "sequence"]]


def _found(path: Path, seen: set[Path]) -> Iterator[Found]:
    if not path.exists():
        raise InputNotFoundError("no such file or folder", where=path)
    if not path.is_dir():
        yield path, path.stem, "video"
        return
    try:
        found = list(_in_folder(path, seen))
    except OSError as error:
        raise InputError("cannot list the folder", where=path, got=error.strerror) from error
    if not found:
        raise InputNotFoundError(
            "no video or image sequence in the folder", where=path, expected=" ".join(sorted(VIDEO_SUFFIXES))
        )
    yield from found


def _in_folder(folder: Path, seen: set[Path]) -> Iterator[Found]:
    real = folder.resolve()
    if real in seen or (folder / RESULT_STORE).exists():
        return
    seen.add(real)
    color = folder / COLOR_FOLDER
    if color.is_dir() and sequence_images(color):
        yield color, folder.resolve().name, "sequence"
        return
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    entries.sort(key=lambda entry: natural_key(entry.name))
    videos = [entry for entry in entries if entry.suffix.lower() in VIDEO_SUFFIXES and entry.is_file()]
    if not videos and sequence_images(folder):
        yield folder, folder.resolve().name, "sequence"
        return
    yield from ((video, video.stem, "video") for video in videos)
    for entry in entries:
        if entry.is_dir():
            yield from _in_folder(entry, seen)


def safe_name(label: str) -> str:
    """A path component that cannot leave its folder: no separators, no leading dot, bounded length.

    >>> safe_name("../../etc/passwd")
    '_.._etc_passwd'
    """
    text = label.encode("utf-8", "replace").decode("utf-8")
    text = UNSAFE.sub("_", unicodedata.normalize("NFC", text)).strip().lstrip(".").rstrip(". ")
    if len(text.encode()) > MAX_NAME_BYTES:
        mark = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = text.encode()[: MAX_NAME_BYTES - 9].decode("utf-8", "ignore") + "_" + mark
    return text or "video"


def unique_name(name: str, path: Path | None, taken: set[str]) -> str:
    """A name that is not taken, which it then is: ``name``, with the suffix of the file at ``path``, or with a number.

    Names that differ only in case would meet in one folder on common file systems.

    >>> taken = {"clip"}
    >>> unique_name("Clip", None, taken), unique_name("Clip", None, taken)
    ('Clip_2', 'Clip_3')
    """
    is_file = path is not None and bool(path.suffix) and path.is_file()
    suffixed = [f"{name}_{path.suffix.removeprefix('.')}"] if path is not None and is_file else []
    numbered = (f"{name}_{number}" for number in count(2))
    candidate = next(one for one in chain([name], suffixed, numbered) if one.casefold() not in taken)
    taken.add(candidate.casefold())
    return candidate
