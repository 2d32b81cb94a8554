"""Independent work on the threads that the numeric libraries may use."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2

__all__ = ["AHEAD_ITEMS", "SHORT_STEP_THREADS", "delayed", "mapped_ahead", "thread_pool"]

AHEAD_ITEMS = 2  # in work beyond the one that is waited for: enough to keep every thread busy
# Most threads that pay where work is thousands of short steps: more wait for the interpreter's lock.
SHORT_STEP_THREADS = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def thread_pool(*, most: int | None = None, initializer: Callable[[], None] | None = None) -> Iterator[Executor]:
    """As many threads as OpenCV may use, which is what a worker that shares the machine has been given.

    most: no more than that. initializer: run by each thread at its start. Meanwhile OpenCV has one thread for a call:
    its own ones would wait for those of the pool.
    """
    count = cv2.getNumThreads()
    workers = max(1, min(count, most or count))
    with ThreadPoolExecutor(workers, thread_name_prefix="frames", initializer=initializer) as pool:
        if workers > 1:
            cv2.setNumThreads(1)
        try:
            yield pool
        finally:
            cv2.setNumThreads(count)


def mapped_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], pool: Executor, *, ahead: int
) -> Iterator[Result]:
    """``function`` of every item, in order, with ``ahead`` items worked on beyond the one that is waited for.

    Items are taken in the caller's thread. The first error is raised in its place.

    >>> with thread_pool() as pool:
    ...     list(mapped_ahead(abs, [-1, 2, -3], pool, ahead=1))
    [1, 2, 3]
    """
    source = iter(items)
    waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in itertools.islice(source, ahead))
    try:
        for item in source:
            waiting.append(pool.submit(function, item))
            yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def delayed(items: Iterable[Item], by: int) -> Iterator[Item]:
    """``items``, each when the one ``by`` later has come, the last ones when there are no more.

    >>> list(delayed("abc", 2))
    ['a', 'b', 'c']
    """
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > by:
            yield waiting.popleft()
    yield from waiting
