"""What a run tells whoever watches it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Reporter", "SilentReporter"]


class Reporter(Protocol):
    """Receives the progress of a run."""

    def stage(self, video: str, stage: str, total: int | None) -> None:
        """A stage of a video begins; total is its number of frames where that is known."""
        ...

    def advance(self, frames: int) -> None:
        """The current stage has done some more frames."""
        ...

    def message(self, video: str, text: str) -> None:
        """Something that the user should know, in one line."""
        ...


class SilentReporter:
    """Tells nobody."""

    def stage(self, video: str, stage: str, total: int | None) -> None:
        """See Reporter."""

    def advance(self, frames: int) -> None:
        """See Reporter."""

    def message(self, video: str, text: str) -> None:
        """See Reporter."""
