"""Writing a stage in frame order, from the first frame that is still missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.cache.store import StageStore

__all__ = ["SequentialWriter"]


def _at_once(task: Callable[[], None]) -> None:
    task()


class SequentialWriter:
    """Collects frames into chunks and stores each chunk as soon as it is full.

    ``position`` is the frame that ``append`` expects next; it starts at the first chunk from frame ``first`` on that
    the store lacks. stop: where the frames end. submit: who stores a full chunk, at once or later, in order.
    """

    def __init__(
        self, store: StageStore, stop: int, submit: Callable[[Callable[[], None]], None] = _at_once, *, first: int = 0
    ) -> None:
        self._store = store
        self._stop = stop
        self._submit = submit
        self._parts: list[dict[str, NDArray[Any]]] = []
        self._extras: list[Any] = []
        chunk = first // store.chunk_frames
        while store.has(chunk):
            chunk += 1
        self.position = min(chunk * store.chunk_frames, stop)

    def append(self, arrays: Mapping[str, NDArray[Any]], extra: Any = None) -> None:
        """Take the next frames, arrays (n, ...) of any length, and a small JSON value that belongs to them.

        A chunk keeps each different value once, in order.
        """
        length = len(next(iter(arrays.values())))
        done = 0
        while done < length:
            room = self._store.chunk_frames - self.position % self._store.chunk_frames
            take = min(room, length - done)
            self._parts.append({name: data[done : done + take] for name, data in arrays.items()})
            # Once only: how often the same value comes depends on where a resumed run began.
            if extra not in self._extras:
                self._extras.append(extra)
            done += take
            self.position += take
            if take == room or self.position == self._stop:
                self._write_chunk()

    def _write_chunk(self) -> None:
        chunk = (self.position - 1) // self._store.chunk_frames
        self._submit(partial(_store, self._store, chunk, self._parts, self._extras))
        self._parts, self._extras = [], []


def _store(store: StageStore, chunk: int, parts: list[dict[str, NDArray[Any]]], extras: list[Any]) -> None:
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    store.write(chunk, arrays, extras)
