"""Writing files so that a reader sees the whole old one or the whole new one, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stf_depth.errors import OutputError

__all__ = [
    "PARTIAL",
    "atomic_path",
    "fsync_path",
    "output_errors",
    "read_json",
    "remove_partials",
    "remove_tree",
    "write_json",
]

# Unfinished files carry this in their name; a run removes those that an earlier one left.
PARTIAL = ".partial-"
# Names of unfinished files and folders: of this module, of exports (those replaced included), of Zarr.
_UNFINISHED = re.compile(
    rf"{re.escape(PARTIAL)}\d+-.+|\..+\.partial-\d+(\.[^.]+)?|\..+\.old-\d+|.+\.[0-9a-f]{{32}}\.partial", re.DOTALL
)


def fsync_path(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into OutputError with advice."""
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: ("no space left on the disk", "Free some space and run again: finished parts are kept"),
            errno.EDQUOT: ("the disk quota is used up", "Free some space and run again: finished parts are kept"),
            errno.EACCES: ("no permission to write", "Choose another folder or change its permissions"),
            errno.EPERM: ("no permission to write", "Choose another folder or change its permissions"),
            errno.EROFS: ("the file system is read-only", "Choose another folder"),
            errno.ENOENT: ("the folder cannot be made, or is gone", "Choose another folder"),
            errno.EIO: ("the disk reports an error", "Choose a folder on another disk"),
            errno.ENOTDIR: ("a file stands where a folder is needed", "Choose another folder"),
            errno.EEXIST: ("a file stands where a folder is needed", "Choose another folder"),
            errno.ENAMETOOLONG: ("the file name is too long for this file system", "Rename the input"),
        }
        if error.errno not in hints:
            raise
        what, hint = hints[error.errno]
        raise OutputError(what, where=path, hint=hint) from error


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to; it takes the target's name only when the block succeeds.

    Raises OutputError when the disk is full or the folder cannot be written.
    """
    partial = target.with_name(f"{PARTIAL}{os.getpid()}-{target.name}")
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            fsync_path(partial)
            partial.replace(target)
            fsync_path(target.parent)
        finally:
            partial.unlink(missing_ok=True)


def write_json(target: Path, values: Any) -> None:
    """Write ``values`` as JSON, whole or not at all."""
    with atomic_path(target) as partial:
        partial.write_text(json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Content of a JSON file; None where it is absent or unreadable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def remove_partials(folder: Path) -> None:
    """Remove what a killed run left unfinished in a folder, at any depth; links are not followed."""
    for where, folders, files in os.walk(folder):
        for name in [name for name in folders if _UNFINISHED.fullmatch(name)]:
            folders.remove(name)
            shutil.rmtree(Path(where, name))
        for name in filter(_UNFINISHED.fullmatch, files):
            Path(where, name).unlink()


def remove_tree(folder: Path) -> None:
    """Remove a folder in one step as seen by a reader: renamed first, deleted after. Of a link, the link alone goes."""
    if folder.is_symlink():
        with output_errors(folder):
            folder.unlink()
        return
    if not folder.exists():
        return
    doomed = folder.with_name(f"{PARTIAL}{os.getpid()}-{folder.name}")
    with output_errors(folder):
        folder.replace(doomed)
        shutil.rmtree(doomed)
