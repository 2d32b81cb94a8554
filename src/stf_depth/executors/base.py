"""What an executor is: something that processes a list of videos and loses none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stf_depth.cache.remote import Mirror
from stf_depth.config import RunConfig
from stf_depth.errors import StfDepthError
from stf_depth.pipeline.plan import VideoFolders
from stf_depth.pipeline.process import Delivery, Outcome
from stf_depth.pipeline.progress import Reporter
from stf_depth.video.discover import InputItem

__all__ = ["Executor", "Job", "JobResult"]


@dataclass(frozen=True)
class Job:
    """One video, where its files go, and what is made from it. mirrors: those of its folders on shared storage."""

    item: InputItem
    folders: VideoFolders
    delivery: Delivery
    mirrors: tuple[Mirror, ...] = ()

    @property
    def output(self) -> str:
        """Where the result lies, as the user knows it."""
        urls = {mirror.local: mirror.url for mirror in self.mirrors}
        return urls.get(self.folders.output, str(self.folders.output))

    def fetch_output(self) -> None:
        """Have the result on this machine, where another one made it; raises as ``Mirror.pull`` does."""
        for mirror in self.mirrors:
            if mirror.local == self.folders.output:
                mirror.pull()


@dataclass(frozen=True)
class JobResult:
    """How one job ended: exactly one of ``outcome`` and ``error`` is set."""

    job: Job
    outcome: Outcome | None = None
    error: StfDepthError | None = None


class Executor(Protocol):
    """Processes jobs."""

    def run(self, jobs: Sequence[Job], config: RunConfig, reporter: Reporter) -> list[JobResult]:
        """Process every job; a job that fails does not touch the others. Results are in the order of the jobs."""
        ...
