"""A short queue of jobs with progress and cancelling, shared by all visitors.

It knows nothing of web pages: a job is a function that takes a Reporter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from stf_depth.errors import StfDepthError
from stf_depth.pipeline.progress import Reporter

__all__ = ["BusyError", "JobCancelledError", "JobQueue", "Progress", "Ticket", "Work"]

Work = Callable[[Reporter], Any]


class JobCancelledError(StfDepthError):
    """The visitor cancelled the job; it stops at the next sign of progress."""


class BusyError(StfDepthError):
    """The queue takes no further job."""


@dataclass(frozen=True)
class Progress:
    """What a job is doing: jobs ahead of it while it waits, else a stage and its frames; total may be unknown."""

    ahead: int = 0
    stage: str = ""
    done: int = 0
    total: int | None = None


class Ticket:
    """One job in the queue, and the Reporter that it reports to."""

    def __init__(self, owner: str, number: int) -> None:
        self.owner = owner
        self.number = number
        self.messages: list[str] = []
        self.future: Future[Any] = Future()
        self._cancelled = threading.Event()
        self._progress = Progress()

    @property
    def progress(self) -> Progress:
        """The latest state."""
        return self._progress

    @property
    def finished(self) -> bool:
        """Whether nothing runs any more, for whatever reason."""
        return self.future.done()

    def wait(self, seconds: float) -> bool:
        """Wait for the end at most this long; says whether it has come."""
        reached = threading.Event()
        self.future.add_done_callback(lambda _: reached.set())
        return reached.wait(seconds)

    def result(self) -> Any:
        """What the job returned; raises what it raised, JobCancelledError when it was cancelled."""
        try:
            return self.future.result()
        except CancelledError:
            raise JobCancelledError("cancelled") from None

    def cancel(self) -> None:
        """Ask the job to stop; one that still waits never starts."""
        self._cancelled.set()
        self.future.cancel()

    def stage(self, video: str, stage: str, total: int | None) -> None:  # noqa: ARG002
        """See Reporter."""
        self._stop_if_cancelled()
        self._progress = Progress(stage=stage, total=total)

    def advance(self, frames: int) -> None:
        """See Reporter."""
        self._stop_if_cancelled()
        now = self._progress
        self._progress = Progress(stage=now.stage, done=now.done + frames, total=now.total)

    def message(self, video: str, text: str) -> None:  # noqa: ARG002
        """See Reporter."""
        self._stop_if_cancelled()
        self.messages.append(text)

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise JobCancelledError("cancelled")


class JobQueue:
    """Runs jobs first come, first served; one job for each owner at a time."""

    def __init__(self, *, running: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(running, thread_name_prefix="stf-depth-job")
        self._running = running
        self._waiting = waiting
        self._lock = threading.Lock()
        self._open: dict[int, Ticket] = {}
        self._next = 0

    def submit(self, owner: str, work: Work) -> Ticket:
        """Queue a job. Raises BusyError where the owner has one already or too many wait."""
        with self._lock:
            if any(ticket.owner == owner for ticket in self._open.values()):
                raise BusyError("a job of yours is still running", hint="Cancel it or wait for its end")
            if len(self._open) >= self._running + self._waiting:
                raise BusyError("too many jobs are waiting", hint="Try again in a few minutes")
            ticket = Ticket(owner, self._next)
            self._next += 1
            self._open[ticket.number] = ticket
        ticket.future.add_done_callback(lambda _: self._close(ticket))
        self._pool.submit(_run, ticket, work)
        return ticket

    def ahead(self, ticket: Ticket) -> int:
        """Jobs that must end before this one starts; 0 once it runs."""
        with self._lock:
            earlier = sum(number < ticket.number for number in self._open)
        return 0 if ticket.future.running() else max(0, earlier - self._running + 1)

    def of(self, owner: str) -> Ticket | None:
        """The owner's job that has not ended."""
        with self._lock:
            return next((ticket for ticket in self._open.values() if ticket.owner == owner), None)

    def close(self) -> None:
        """Cancel every job and wait for the running ones to stop."""
        with self._lock:
            tickets = list(self._open.values())
        for ticket in tickets:
            ticket.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _close(self, ticket: Ticket) -> None:
        with self._lock:
            self._open.pop(ticket.number, None)


def _run(ticket: Ticket, work: Work) -> None:
    """Run a job unless it was cancelled while it waited; whatever it raises goes to the ticket."""
    if not ticket.future.set_running_or_notify_cancel():
        return
    try:
        ticket.future.set_result(work(ticket))
    except BaseException as error:
        ticket.future.set_exception(error)
