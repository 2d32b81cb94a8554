"""Decode ahead in a thread while the caller computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

__all__ = ["prefetched"]

Item = TypeVar("Item")
POLL_SECONDS = 0.1


class _End:
    """Marks the end of the items, with the error that ended them."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetched(items: Iterator[Item], capacity: int) -> Generator[Item]:
    """The same items, up to ``capacity`` of them produced ahead by one thread.

    An error of ``items`` is raised here after the items before it. The thread is joined when the generator ends, is
    closed or fails.

    >>> list(prefetched(iter("abc"), capacity=2))
    ['a', 'b', 'c']
    """
    ready: queue.Queue[Item | _End] = queue.Queue(maxsize=capacity)
    stopping = threading.Event()
    worker = threading.Thread(target=_produce, args=(items, ready, stopping), name="prefetch", daemon=True)
    worker.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopping.set()
        worker.join()


def _produce(items: Iterator[Item], ready: queue.Queue[Item | _End], stopping: threading.Event) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            _put(ready, item, stopping)
            if stopping.is_set():
                break
    except BaseException as raised:  # handed to the consumer, which raises it
        error = raised
    finally:
        if isinstance(items, Generator):
            items.close()
    _put(ready, _End(error), stopping)


def _put(ready: queue.Queue[Item | _End], item: Item | _End, stopping: threading.Event) -> None:
    while not stopping.is_set():
        try:
            ready.put(item, timeout=POLL_SECONDS)
        except queue.Full:
            continue
        return
