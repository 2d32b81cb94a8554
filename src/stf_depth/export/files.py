"""Exports appear whole or not at all: they are written aside and take their name at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from stf_depth.errors import OutputError

__all__ = ["aside", "holds_only", "remove"]

_LEFT_BEHIND = {".DS_Store", "Thumbs.db", "desktop.ini"}


@contextmanager
def aside(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a path beside ``target`` that replaces it when the block succeeds and vanishes when it fails.

    folder: make the yielded path a folder. The suffix is kept, because encoders choose their format by it.
    Raises OutputError where the disk refuses, or a folder lies where a file is to be.
    """
    partial = target.with_name(f".{target.stem}.partial-{os.getpid()}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove(partial)
        if folder:
            partial.mkdir()
        yield partial
        _take_place(partial, target)
    except OSError as error:
        raise OutputError("export cannot be written", where=target, got=error.strerror or str(error)) from error
    finally:
        if target.parent.is_dir():
            remove(partial)


def _take_place(partial: Path, target: Path) -> None:
    if partial.is_file():
        with partial.open("rb") as file:
            os.fsync(file.fileno())
    if not target.is_dir():
        partial.replace(target)
        return
    if partial.is_file():
        raise OutputError(
            "a folder lies where the file is to be", where=target, hint="Move it away, or choose another place"
        )
    # A folder cannot be replaced in one step: the old one moves away first.
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    target.replace(old)
    partial.replace(target)
    remove(old)


def holds_only(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether a folder is empty, or all its files match ``patterns`` and one of them the first.

    A pattern is a path below the folder with ``*`` within names, or ``**`` at the end for anything further below.
    What file managers leave behind does not count.
    """
    paths = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    names = [path.relative_to(folder).as_posix() for path in paths if path.name not in _LEFT_BEHIND]
    matched = all(any(_matches(name, pattern) for pattern in patterns) for name in names)
    return not names or (matched and any(_matches(name, patterns[0]) for name in names))


def _matches(name: str, pattern: str) -> bool:
    if pattern.endswith("/**"):
        return name.startswith(pattern.removesuffix("**"))
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def remove(path: Path) -> None:
    """Remove a file, a folder or a link, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
