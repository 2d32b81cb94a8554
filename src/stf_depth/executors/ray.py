"""Videos on a Ray cluster: one actor a worker, each with its own networks. The only file that knows Ray.

Results and cache are files, so all nodes must see the same folders. A worker that dies takes nothing with it: its
video goes to a new worker, which continues after the last chunk that was stored.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from stf_depth.config import RunConfig
from stf_depth.errors import ConfigError, MissingExtraError, StfDepthError
from stf_depth.executors.base import Job, JobResult
from stf_depth.executors.local import run_job
from stf_depth.executors.threads import limit_threads
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.progress import Reporter
from stf_depth.result import DepthResult

__all__ = ["RayExecutor", "Share", "WorkerFacts", "share_cluster"]

_POLL_SECONDS = 0.25
_REPORT_EVERY_SECONDS = 0.5

Event = tuple[str, str, tuple[Any, ...]]  # video, name of a Reporter method, its other arguments


@dataclass(frozen=True)
class Share:
    """How many workers run, and what each of them takes of the cluster."""

    workers: int
    cpus_each: int
    gpus_each: int


@dataclass(frozen=True)
class WorkerFacts:
    """What one worker did: process id, how often it made the networks, and the videos that it finished."""

    pid: int
    networks_made: int
    videos: tuple[str, ...]


def share_cluster(nodes: Sequence[tuple[int, int]], jobs: int, device: str, workers: int | None = None) -> Share:
    """One worker a GPU where the device allows one, else one a CPU, never more than jobs; CPUs are divided evenly.

    nodes: (CPUs, GPUs) of every machine; a worker lies within one. Raises ConfigError where nothing can run.

    >>> share_cluster([(16, 2)], 10, "auto")
    Share(workers=2, cpus_each=8, gpus_each=1)
    >>> share_cluster([(4, 0), (4, 0)], 3, "cpu")
    Share(workers=3, cpus_each=2, gpus_each=0)
    """
    on_gpus = device == "cuda" or (device == "auto" and any(gpus for _, gpus in nodes))
    slots = sum(gpus if on_gpus else cpus for cpus, gpus in nodes)
    if slots < 1:
        raise ConfigError("the cluster has nothing to run on", expected="a GPU" if on_gpus else "a CPU", got=slots)
    count = max(1, min(jobs, slots, workers or slots))
    most = max(cpus for cpus, _ in nodes)
    fitting = (each for each in range(most, 0, -1) if sum(_places(node, each, on_gpus) for node in nodes) >= count)
    return Share(count, next(fitting, 1), int(on_gpus))


def _places(node: tuple[int, int], cpus_each: int, on_gpus: bool) -> int:
    cpus, gpus = node
    return min(cpus // cpus_each, gpus) if on_gpus else cpus // cpus_each


class RayExecutor:
    """Videos side by side on the workers of a Ray cluster.

    address: of a running cluster; without one a cluster is started on this machine and stopped afterwards. workers: at
    most so many. attempts: how often a video is begun before a dying worker counts as its failure. After a run,
    ``facts`` says what each worker did and ``deaths`` how many died.
    """

    def __init__(self, address: str | None = None, *, workers: int | None = None, attempts: int = 3) -> None:
        self._address, self._workers, self._attempts = address, workers, attempts
        self.facts: list[WorkerFacts] = []
        self.deaths = 0

    def run(self, jobs: Sequence[Job], config: RunConfig, reporter: Reporter) -> list[JobResult]:
        """See Executor. Raises MissingExtraError without Ray, and UsageError or ModelError as local runs do."""
        if not jobs:
            return []
        ray = _import_ray()
        with _cluster(ray, self._address):
            share = share_cluster(_nodes(ray), len(jobs), config.device, self._workers)
            pool = _Pool(ray, share, config, _Board(reporter), self._attempts)
            try:
                return pool.process(jobs)
            finally:
                self.facts, self.deaths = pool.facts, pool.deaths
                pool.close()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError.of("ray", "ray") from error
    return ray


@contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to a cluster for the duration of a run; a connection that is there already is used and kept."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address or "local", log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        hint = "Check --ray-address, or leave it out to use this machine alone"
        raise ConfigError("cannot reach the Ray cluster", where=address, got=error, hint=hint) from error
    try:
        yield
    finally:
        ray.shutdown()


def _nodes(ray: Any) -> list[tuple[int, int]]:
    alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return [(int(resources.get("CPU", 0)), int(resources.get("GPU", 0))) for resources in alive]


class _Mailbox:
    """Actor that keeps the events of all workers until they are collected."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def post(self, event: Event) -> None:
        self._events.append(event)

    def collect(self) -> list[Event]:
        events, self._events = self._events, []
        return events


class _Worker:
    """Actor that processes videos with networks that it makes once."""

    def __init__(self, config: RunConfig, mailbox: Any, threads: int) -> None:
        limit_threads(threads)
        self._config, self._mailbox = config, mailbox
        self._backends: Backends | None = None
        self._made = 0
        self._videos: tuple[str, ...] = ()

    def process(self, job: Job) -> tuple[JobResult, WorkerFacts]:
        """Process one video; raises what making the networks raises."""
        if self._backends is None:
            self._backends = Backends.of(self._config)
            self._made += 1
        reporter = _PostingReporter(self._mailbox)
        result = run_job(job, self._config, self._backends, reporter)
        reporter.send()
        self._videos += (job.item.name,)
        return _portable(result), WorkerFacts(os.getpid(), self._made, self._videos)


def _portable(result: JobResult) -> JobResult:
    """The same result without the open files that it may hold."""
    if result.outcome is None:
        return result
    closed = DepthResult(result.outcome.result.folder)
    return replace(result, outcome=replace(result.outcome, result=closed))


class _PostingReporter:
    """Sends what a video reports to the mailbox, frames a few times a second at most."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._video, self._frames = "", 0
        self._sent = time.monotonic()

    def stage(self, video: str, stage: str, total: int | None) -> None:
        self.send()
        self._video = video
        self._mailbox.post.remote((video, "stage", (stage, total)))

    def advance(self, frames: int) -> None:
        self._frames += frames
        if time.monotonic() - self._sent >= _REPORT_EVERY_SECONDS:
            self.send()

    def message(self, video: str, text: str) -> None:
        self._mailbox.post.remote((video, "message", (text,)))

    def send(self) -> None:
        """Send the frames that were done since the last time."""
        if self._frames:
            self._mailbox.post.remote((self._video, "advance", (self._frames,)))
        self._frames, self._sent = 0, time.monotonic()


class _Board:
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


class _Pool:
    """The workers of one run and the videos that wait for them."""

    def __init__(self, ray: Any, share: Share, config: RunConfig, board: _Board, attempts: int) -> None:
        self._ray, self._share, self._config, self._board, self._attempts = ray, share, config, board, attempts
        self._namespace = f"stf-depth-{uuid.uuid4().hex[:8]}"
        self._mailbox = ray.remote(num_cpus=0)(_Mailbox).options(name="progress", namespace=self._namespace).remote()
        self._workers: list[Any] = []
        self._running: dict[Any, tuple[int, Any, int]] = {}  # reference -> job, worker, attempt
        self._facts: dict[int, WorkerFacts] = {}
        self.deaths = 0

    @property
    def facts(self) -> list[WorkerFacts]:
        return list(self._facts.values())

    def process(self, jobs: Sequence[Job]) -> list[JobResult]:
        """Process every job; results are in the order of the jobs."""
        waiting = deque((number, 1) for number in range(len(jobs)))
        idle = [self._new_worker() for _ in range(self._share.workers)]
        results: dict[int, JobResult] = {}
        while len(results) < len(jobs):
            while idle and waiting:
                number, attempt = waiting.popleft()
                worker = idle.pop()
                reference = worker.process.options(name=jobs[number].item.name).remote(jobs[number])
                self._running[reference] = number, worker, attempt
            ready, _ = self._ray.wait(list(self._running), timeout=_POLL_SECONDS)
            self._board.take(self._ray.get(self._mailbox.collect.remote()))
            for reference in ready:
                number, worker, attempt = self._running.pop(reference)
                result = self._result(reference, jobs[number], attempt)
                idle.append(worker if result is not None and self._is_alive(result) else self._new_worker())
                if result is None:
                    waiting.appendleft((number, attempt + 1))
                else:
                    results[number] = result
                    self._board.ended(jobs[number].item.name, f"{len(results)} of {len(jobs)} videos")
        return [results[number] for number in range(len(jobs))]

    def _is_alive(self, result: JobResult) -> bool:
        return not isinstance(result.error, _WorkerLostError)

    def _result(self, reference: Any, job: Job, attempt: int) -> JobResult | None:
        """What a worker returned; None where it died and the video is to be tried again."""
        errors = self._ray.exceptions
        try:
            result, facts = self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, StfDepthError):
                raise error.cause from None
            raise
        except errors.RayError as error:
            self.deaths += 1
            if attempt >= self._attempts:
                hint = "Look at the worker's log in the Ray dashboard; memory is the usual reason"
                return JobResult(job, error=_WorkerLostError("its workers died", where=job.item.path, hint=hint))
            reason = type(error).__name__
            self._board.message(job.item.name, f"the worker died ({reason}); another one continues")
            return None
        self._facts[facts.pid] = facts
        try:
            if result.outcome is not None:
                job.fetch_output()
        except StfDepthError as error:
            return JobResult(job, error=error)
        return JobResult(job, result.outcome, result.error)

    def _new_worker(self) -> Any:
        resources = {"num_cpus": self._share.cpus_each, "num_gpus": self._share.gpus_each}
        actor = self._ray.remote(**resources)(_Worker)
        named = actor.options(name=f"stf-depth worker {len(self._workers) + 1}", namespace=self._namespace)
        self._workers.append(named.remote(self._config, self._mailbox, self._share.cpus_each))
        return self._workers[-1]

    def close(self) -> None:
        """End the workers."""
        for actor in (*self._workers, self._mailbox):
            self._ray.kill(actor)


class _WorkerLostError(StfDepthError):
    """Every worker that was given this video died."""
