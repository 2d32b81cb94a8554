"""From what the user names to an ordered list of inputs with safe, unique result names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Literal

from stf_depth.errors import InputError, InputNotFoundError
from stf_depth.ordering import natural_key
from stf_depth.video.sequence import IMAGE_SUFFIXES, sequence_images

__all__ = ["INDEX_PAGE", "VIDEO_SUFFIXES", "InputItem", "discover", "safe_name", "unique_name"]

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".asf",
    ".flv", ".ogv", ".3gp", ".3g2", ".qt", ".mxf", ".vob", ".apng", ".m2v", ".h264", ".h265", ".hevc",
})
# fmt: on
COLOR_FOLDER = "color"  # where an RGB-D sequence folder keeps its images
RESULT_STORE = "depth.zarr"
INDEX_PAGE = "index.html"  # lies beside the results, so that none of them can have its name
MAX_NAME_BYTES = 120  # leaves room for suffixes below the 255 of common file systems
# Separators, and what Windows and zip tools refuse.
UNSAFE = re.compile(r'[\\/<>:"|?*\x00-\x1f\x7f]')


@dataclass(frozen=True)
class InputItem:
    """One video to process; ``name`` is a single safe path component, unique among the items."""

    path: Path
    name: str
    kind: Literal["video", "sequence"]


def discover(
    paths: Iterable[Path],
    *,
    taken: set[str] | None = None,
    skipped: Iterable[Path] = (),
    failures: list[InputError] | None = None,
) -> list[InputItem]:
    """Videos and image sequences at ``paths``, in the order given and in natural order within folders.

    A path is a video file, an image-sequence folder, an RGB-D sequence folder with a ``color`` folder inside, or a
    folder of these, searched to any depth. Hidden entries, folders of finished results and working folders are passed
    over; symlinks are followed once, and what is named in several ways is one input. taken: what ``unique_name``
    keeps, where items have to be told from others. skipped: folders to pass over below those named. failures: takes
    the errors of single paths, which then do not stop the others.

    Raises InputNotFoundError where nothing lies at a path or a folder holds no video, InputError for a folder that
    cannot be listed.
    """
    seen: set[Path] = set()
    passed_over = {path.resolve() for path in skipped}
    once: dict[Path, Found] = {}
    for path in dict.fromkeys(paths):
        if path.is_dir() and path.resolve() in seen:
            continue
        try:
            for one in _found(path, seen, passed_over - {path.resolve()}):
                once.setdefault(_real(one[0]), one)
        except InputError as error:
            if failures is None:
                raise
            failures.append(error)
    found = list(once.values())
    # Named in the order of their paths, so that the order in which they were given does not swap two names.
    taken = set() if taken is None else taken
    taken.add(INDEX_PAGE)
    homes: dict[str, Path] = {}
    names: dict[int, str] = {}
    for position in sorted(range(len(found)), key=lambda position: _place(found[position])):
        names[position] = _named(found[position], taken, homes)
    return [InputItem(where, names[position], kind) for position, (where, _, kind) in enumerate(found)]


Found = tuple[Path, str, Literal["video", "sequence"]]


def _found(path: Path, seen: set[Path], skipped: Collection[Path]) -> Iterator[Found]:
    if not path.exists():
        raise InputNotFoundError("no such file or folder", where=path)
    if not path.is_dir():
        yield path, path.stem, "video"
        return
    try:
        found = list(_in_folder(path, seen, skipped))
    except OSError as error:
        raise InputError("cannot list the folder", where=path, got=error.strerror) from error
    if not found:
        videos, images = " ".join(sorted(VIDEO_SUFFIXES)), " ".join(sorted(IMAGE_SUFFIXES))
        expected = f"videos {videos} or images {images}"
        raise InputNotFoundError("no video or image sequence in the folder", where=path, expected=expected)
    yield from found


def _in_folder(folder: Path, seen: set[Path], skipped: Collection[Path]) -> Iterator[Found]:
    real = folder.resolve()
    if real in seen or real in skipped or _is_of_a_run(folder):
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
            yield from _in_folder(entry, seen, skipped)


def _is_of_a_run(folder: Path) -> bool:
    """Whether a folder is a result, or the working folder of a video."""
    is_working = (folder / "cache").is_dir() and (folder / "images.json").is_file()
    return is_working or (folder / RESULT_STORE).exists()


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


def unique_name(name: str, others: Iterable[str] | None, taken: set[str]) -> str:
    """A name that is not taken, which it then is: ``name``, one of ``others``, or ``name`` with a number.

    Names that differ only in case would meet in one folder on common file systems.

    >>> taken = {"clip"}
    >>> unique_name("Clip", None, taken), unique_name("Clip", None, taken), unique_name("Clip", ["b_Clip"], taken)
    ('Clip_2', 'Clip_3', 'b_Clip')
    """
    numbered = (f"{name}_{number}" for number in count(2))
    candidate = next(one for one in chain([name], others or (), numbered) if one.casefold() not in taken)
    taken.add(candidate.casefold())
    return candidate


def _place(found: Found) -> list[tuple[bool, object]]:
    """Sorts as a search through the folders finds: what lies in a folder before its subfolders, in natural order."""
    where, _, kind = found
    *folders, last = _real(where).parts
    return [*((True, natural_key(part)) for part in folders), (kind == "sequence", natural_key(last))]


def _named(found: Found, taken: set[str], homes: dict[str, Path]) -> str:
    name = safe_name(found[1])
    unique = unique_name(name, _telling_names(name, found, homes), taken)
    homes[unique.casefold()] = _home(found)
    return unique


def _telling_names(name: str, found: Found, homes: Mapping[str, Path]) -> Iterator[str]:
    """What tells an input from another of its name: the folders above it, but the suffix from one that lies with it.

    homes: where the others lie, by name; of a name that came from elsewhere, such as a stream's, nothing is known.
    """
    where, _, kind = found
    if kind == "video" and where.suffix and homes.get(name.casefold(), _home(found)) == _home(found):
        yield f"{name}_{where.suffix.removeprefix('.')}"
    above = _home(found).parts[1:]
    yield from (safe_name("_".join([*above[-many:], name])) for many in range(1, len(above) + 1))


def _home(found: Found) -> Path:
    """The folder that an input lies in."""
    where, label, kind = found
    home = _real(where).parent
    return home.parent if kind == "sequence" and label != where.resolve().name else home


def _real(path: Path) -> Path:
    """``path`` without links above it: a link to a video has a name of its own."""
    return path.parent.resolve() / path.name
