"""Progress for people at a terminal, for log files and for machines."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from stf_depth.pipeline.progress import SilentReporter

__all__ = ["JsonReporter", "PlainReporter", "RichReporter", "make_reporter"]


class RichReporter:
    """Bars with the remaining time, one line a stage, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[video]}", style="bold", markup=False),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> RichReporter:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stage(self, video: str, stage: str, total: int | None) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(stage, total=total, video=video)

    def advance(self, frames: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, frames)

    def message(self, video: str, text: str) -> None:
        self._console.print(f"{video}: {text}", style="yellow", markup=False, emoji=False, highlight=False)


class PlainReporter:
    """One line a stage, and one every ten seconds, for log files."""

    _EVERY_SECONDS = 10.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._video = self._stage = ""
        self._total: int | None = None
        self._done = 0
        self._last = 0.0

    def __enter__(self) -> PlainReporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def stage(self, video: str, stage: str, total: int | None) -> None:
        self._video, self._stage, self._total, self._done = video, stage, total, 0
        self._last = time.monotonic()
        self._write(f"{video}: {stage}" + (f" ({total} frames)" if total else ""))

    def advance(self, frames: int) -> None:
        self._done += frames
        if time.monotonic() - self._last >= self._EVERY_SECONDS:
            self._last = time.monotonic()
            self._write(f"{self._video}: {self._stage} {self._done}/{self._total or '?'}")

    def message(self, video: str, text: str) -> None:
        self._write(f"{video}: {text}")

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class JsonReporter:
    """One JSON object a line: ``{"event": "stage" | "progress" | "message", ...}``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._where: dict[str, object] = {}
        self._done = 0

    def __enter__(self) -> JsonReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def stage(self, video: str, stage: str, total: int | None) -> None:
        self._where, self._done = {"video": video, "stage": stage, "total": total}, 0
        self.event("stage", **self._where)

    def advance(self, frames: int) -> None:
        self._done += frames
        self.event("progress", **self._where, done=self._done)

    def message(self, video: str, text: str) -> None:
        self.event("message", video=video, text=text)

    def event(self, kind: str, **values: object) -> None:
        """Write one event."""
        self._stream.write(json.dumps({"event": kind, **values}) + "\n")
        self._stream.flush()


class _Quiet(SilentReporter):
    def __enter__(self) -> _Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def make_reporter(
    *, quiet: bool, log_json: bool, console: Console
) -> RichReporter | PlainReporter | JsonReporter | _Quiet:
    """The reporter that fits the options and the output stream."""
    if log_json:
        return JsonReporter(sys.stdout)
    if quiet:
        return _Quiet()
    return RichReporter(console) if console.is_terminal else PlainReporter(sys.stderr)
