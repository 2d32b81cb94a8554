"""Exports appear whole or not at all: they are written aside and take their name at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stf_depth.errors import OutputError

__all__ = ["aside", "remove"]


@contextmanager
def aside(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a path beside ``target`` that replaces it when the block succeeds and vanishes when it fails.

    folder: make the yielded path a folder. The suffix is kept, because encoders choose their format by it.
    Raises OutputError where the disk refuses.
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
    # A folder cannot be replaced in one step: the old one moves away first.
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    target.replace(old)
    partial.replace(target)
    remove(old)


def remove(path: Path) -> None:
    """Remove a file, a folder or a link, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
