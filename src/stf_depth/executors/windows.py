"""Windows of a job on whatever machine does them, with shared storage fetched before and sent afterwards."""

from __future__ import annotations

from filelock import FileLock

from stf_depth.cache.remote import Mirror
from stf_depth.config import RunConfig
from stf_depth.errors import StfDepthError
from stf_depth.executors.base import Job
from stf_depth.executors.local import attempted
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.progress import Reporter
from stf_depth.pipeline.remote import mirrored
from stf_depth.pipeline.split import Splitting, fill_window, plan_windows
from stf_depth.pipeline.windows import Window

__all__ = ["fill_job_window", "plan_job_windows"]


def plan_job_windows(
    job: Job, splitting: Splitting, config: RunConfig, backends: Backends, reporter: Reporter
) -> list[Window] | StfDepthError:
    """The windows of a job, see ``plan_windows``, or why there are none."""

    def work() -> list[Window]:
        with mirrored(job.mirrors, reporter) as told:
            resume = job.delivery.resume
            return plan_windows(job.item, config, backends, job.folders, splitting, told, resume=resume)

    return attempted(job, work)


def fill_job_window(
    job: Job, window: Window, config: RunConfig, backends: Backends, reporter: Reporter
) -> StfDepthError | None:
    """Fill a window of a job, see ``fill_window``; returns what ended it early."""

    def work() -> None:
        with mirrored(_mirrors(job, window), reporter) as told:
            fill_window(job.item, window, config, backends, job.folders, told)

    return attempted(job, work)


def _mirrors(job: Job, window: Window) -> tuple[Mirror, ...]:
    """Where the window lies on shared storage, after what it is made from was fetched."""
    working = [mirror for mirror in job.mirrors if mirror.local == job.folders.working]
    folder = window.folders(job.folders).working.relative_to(job.folders.working)
    for mirror in working if "structure" in window.stages else ():
        _fetch_once(mirror.of("cache"))
    return tuple(mirror.of(folder.as_posix()) for mirror in working)


def _fetch_once(mirror: Mirror) -> None:
    """Fetch a folder that other workers of this machine may be fetching, or reading, too."""
    mirror.local.mkdir(parents=True, exist_ok=True)
    # The second one to come finds every file as it should be, and so writes to none.
    with FileLock(mirror.local / ".lock"):
        mirror.pull()
