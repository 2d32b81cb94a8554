"""One run at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stf_depth.cache.files import output_errors, remove_partials
from stf_depth.errors import LockedError

__all__ = ["folder_lock"]


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process and clear what a killed one left unfinished in it.

    The lock belongs to the open file, so it ends with its process however that dies.

    Raises LockedError when another run holds the folder.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            hint = "Wait for it to end, or choose another --output-dir and --working-dir"
            raise LockedError("another run is working in this folder", where=folder, hint=hint) from None
    try:
        with output_errors(folder):
            remove_partials(folder)
        yield
    finally:
        lock.release()
