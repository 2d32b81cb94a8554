"""One run at a time in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stf_depth.cache.files import output_errors, remove_partials
from stf_depth.errors import LockedError

__all__ = ["LOCK", "folder_lock"]

LOCK = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process and clear what a killed one left unfinished in it.

    A folder that was made for a block that failed goes again where nothing came to lie in it. The lock belongs to the
    open file, so it ends with its process however that dies.

    Raises LockedError when another run holds the folder.
    """
    with output_errors(folder):
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            hint = "Wait for it to end, or choose another --output-dir and --working-dir"
            raise LockedError("another run is working in this folder", where=folder, hint=hint) from None
    try:
        with output_errors(folder):
            remove_partials(folder)
        yield
    except BaseException:
        if is_new and [path.name for path in folder.iterdir()] == [LOCK]:
            shutil.rmtree(folder)
        raise
    finally:
        lock.release()
