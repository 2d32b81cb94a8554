"""Work on videos whose folders lie on shared storage: fetched before, sent back while they grow and afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from stf_depth.cache.remote import Mirror, Snapshot
from stf_depth.errors import StfDepthError
from stf_depth.pipeline.progress import Reporter

__all__ = ["mirrored"]

_EVERY_SECONDS = 15.0


@contextmanager
def mirrored(mirrors: Sequence[Mirror], reporter: Reporter) -> Iterator[Reporter]:
    """Fetch the folders, yield a reporter that sends them at every stage and now and then, and send them at the end.

    A run that fails sends what it has finished as well. Raises OutputError, MissingExtraError or ConfigError.
    """
    if not mirrors:
        yield reporter
        return
    sending = _SendingReporter(mirrors, reporter)
    try:
        yield sending
    except Exception:
        with suppress(StfDepthError):  # the first error is the one to be told
            sending.send()
        raise
    sending.send()


class _SendingReporter:
    """Passes progress on, and sends the folders between whiles."""

    def __init__(self, mirrors: Sequence[Mirror], reporter: Reporter) -> None:
        self._reporter = reporter
        self._known: dict[Mirror, Snapshot] = {mirror: mirror.pull() for mirror in mirrors}
        self._sent = time.monotonic()

    def stage(self, video: str, stage: str, total: int | None) -> None:
        self.send()
        self._reporter.stage(video, stage, total)

    def advance(self, frames: int) -> None:
        if time.monotonic() - self._sent > _EVERY_SECONDS:
            self.send()
        self._reporter.advance(frames)

    def message(self, video: str, text: str) -> None:
        self._reporter.message(video, text)

    def send(self) -> None:
        """Send what is new; the working folder first, as the result is made from it."""
        for mirror, known in self._known.items():
            self._known[mirror] = mirror.push(known)
        self._sent = time.monotonic()
