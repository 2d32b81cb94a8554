"""Work that goes on beside the caller: one thread, a bounded queue, and no error lost."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

__all__ = ["WAITING_CHUNKS", "Background"]

# Finished chunks of a stage that may wait for the disk.
WAITING_CHUNKS = 4

Task = Callable[[], None]


class Background:
    """Runs tasks one after the other in a thread of its own; at most ``capacity`` of them wait.

    The first error of a task is raised by the next ``submit`` or at the end of the block, and the tasks behind it are
    dropped. When the block is left, in whatever way that is, the tasks are done and the thread has ended.

    >>> seen = []
    >>> with Background(capacity=2) as background:
    ...     background.submit(lambda: seen.append(1))
    >>> seen
    [1]
    """

    def __init__(self, capacity: int) -> None:
        self._tasks: queue.Queue[Task | None] = queue.Queue(maxsize=capacity)
        self._error: BaseException | None = None
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="background", daemon=True)

    def submit(self, task: Task) -> None:
        """Queue a task, waiting for room. Raises the first error of the tasks before it."""
        self._raise_error()
        self._tasks.put(task)

    def _work(self) -> None:
        # The queue is emptied after an error too: whoever waits for room must not wait for ever.
        while (task := self._tasks.get()) is not None:
            if self._failed:
                continue
            try:
                task()
            except BaseException as error:  # handed to the caller, which raises it
                self._error, self._failed = error, True

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.put(None)
        self._thread.join()
        if kind is None:
            self._raise_error()
