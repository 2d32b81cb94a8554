"""Progress of many workers on the way to one reporter."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from stf_depth.pipeline.progress import Reporter

__all__ = ["Board", "Event", "Mailbox", "PostingReporter"]

_REPORT_EVERY_SECONDS = 0.5

Event = tuple[str, str, tuple[Any, ...]]  # video, name of a Reporter method, its other arguments


class Mailbox:
    """Keeps the events of all workers until they are collected."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def post(self, event: Event) -> None:
        self._events.append(event)

    def collect(self) -> list[Event]:
        events, self._events = self._events, []
        return events


class PostingReporter:
    """Posts what a video reports, frames a few times a second at most."""

    def __init__(self, post: Callable[[Event], object], video: str) -> None:
        self._post, self._video = post, video
        self._frames = 0
        self._sent = time.monotonic()

    def stage(self, video: str, stage: str, total: int | None) -> None:
        self.send()
        self._post((video, "stage", (stage, total)))

    def advance(self, frames: int) -> None:
        self._frames += frames
        if time.monotonic() - self._sent >= _REPORT_EVERY_SECONDS:
            self.send()

    def message(self, video: str, text: str) -> None:
        self._post((video, "message", (text,)))

    def send(self) -> None:
        """Send the frames that were done since the last time."""
        if self._frames:
            self._post((self._video, "advance", (self._frames,)))
        self._frames, self._sent = 0, time.monotonic()


class Board:
    """Shows one running video at a time to a reporter that follows a single one; messages of all pass."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._stages: dict[str, tuple[str, int | None, int]] = {}  # video -> stage, total, frames done

    def take(self, events: Sequence[Event]) -> None:
        """Pass on what workers sent."""
        for video, kind, values in events:
            getattr(self, f"_{kind}")(video, *values)

    def message(self, video: str, text: str) -> None:
        """Pass on a message."""
        self._reporter.message(video, text)

    def ended(self, video: str, text: str) -> None:
        """A video left its worker; the next one comes into view."""
        was_shown = self._is_shown(video)
        self._stages.pop(video, None)
        self._reporter.message(video, text)
        if was_shown and self._stages:
            following = next(iter(self._stages))
            stage, total, done = self._stages[following]
            self._reporter.stage(following, stage, total)
            self._reporter.advance(done)

    def _is_shown(self, video: str) -> bool:
        return next(iter(self._stages), video) == video

    def _stage(self, video: str, stage: str, total: int | None) -> None:
        self._stages[video] = (stage, total, 0)
        if self._is_shown(video):
            self._reporter.stage(video, stage, total)

    def _advance(self, video: str, frames: int) -> None:
        if video in self._stages:
            stage, total, done = self._stages[video]
            self._stages[video] = (stage, total, done + frames)
            if self._is_shown(video):
                self._reporter.advance(frames)

    def _message(self, video: str, text: str) -> None:
        self._reporter.message(video, text)
