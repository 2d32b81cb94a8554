"""Videos one after the other in this process."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

from stf_depth.cache.files import output_errors
from stf_depth.config import RunConfig
from stf_depth.errors import OutputError, StfDepthError
from stf_depth.executors.base import Job, JobResult
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.process import Outcome, process_video
from stf_depth.pipeline.progress import Reporter
from stf_depth.pipeline.remote import mirrored

__all__ = ["LocalExecutor", "attempted", "run_job"]

Done = TypeVar("Done")

ERROR_LOG = "error.log"


class LocalExecutor:
    """One process, one video at a time; every network is loaded once."""

    def run(self, jobs: Sequence[Job], config: RunConfig, reporter: Reporter) -> list[JobResult]:
        """See Executor."""
        backends = Backends.of(config)
        return [run_job(job, config, backends, reporter) for job in jobs]


def run_job(job: Job, config: RunConfig, backends: Backends, reporter: Reporter) -> JobResult:
    """Process one job; an error ends this job only."""

    def work() -> Outcome:
        with mirrored(job.mirrors, reporter) as told:
            return process_video(job.item, config, backends, job.folders, job.delivery, told)

    done = attempted(job, work)
    return JobResult(job, error=done) if isinstance(done, StfDepthError) else JobResult(job, outcome=done)


def attempted(job: Job, work: Callable[[], Done]) -> Done | StfDepthError:
    """What ``work`` on a job returns, or the error that ended it; an unexpected one is described in a file."""
    try:
        return work()
    except StfDepthError as error:
        return error
    except Exception as error:  # a defect: the other videos of the batch are done all the same
        return _unexpected(job, error)


def _unexpected(job: Job, error: Exception) -> StfDepthError:
    log = job.folders.working / ERROR_LOG
    what = f"unexpected {type(error).__name__}: {error}"
    try:
        with output_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except (OSError, OutputError) as unwritable:
        return StfDepthError(what, where=job.item.path, hint=f"The details could not be written: {unwritable}")
    return StfDepthError(what, where=job.item.path, hint=f"Please report it with {log}")
