"""Videos on a Ray cluster: one actor a worker, each with its own networks. The only file that knows Ray.

Results and cache are files, so all nodes must see the same folders. A worker that dies takes nothing with it: its
video goes to a new worker, which continues after the last chunk that was stored.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from stf_depth.config import RunConfig
from stf_depth.errors import ConfigError, MissingExtraError, StfDepthError
from stf_depth.executors.base import Job, JobResult
from stf_depth.executors.board import Board, Mailbox, PostingReporter
from stf_depth.executors.local import run_job
from stf_depth.executors.threads import limit_threads
from stf_depth.executors.windows import fill_job_window, plan_job_windows
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.progress import Reporter
from stf_depth.pipeline.split import LEAST_CHUNKS, PARTS, Part, Splitting
from stf_depth.pipeline.windows import Window
from stf_depth.result import DepthResult

__all__ = ["RayExecutor", "Share", "WorkerFacts", "share_cluster"]

_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Share:
    """How many workers run, and what each of them takes of the cluster."""

    workers: int
    cpus_each: int
    gpus_each: int


@dataclass(frozen=True)
class WorkerFacts:
    """What one worker did: process id, how often it made the networks, and the videos that it finished.

    windows: (video, first frame) of those that it filled.
    """

    pid: int
    networks_made: int
    videos: tuple[str, ...]
    windows: tuple[tuple[str, int], ...] = ()


def share_cluster(nodes: Sequence[tuple[int, int]], jobs: int | None, device: str, workers: int | None = None) -> Share:
    """One worker a GPU where the device allows one, else one a CPU, never more than jobs; CPUs are divided evenly.

    nodes: (CPUs, GPUs) of every machine; a worker lies within one. jobs: None for as many workers as there can be.
    Raises ConfigError where nothing can run.

    >>> share_cluster([(16, 2)], 10, "auto")
    Share(workers=2, cpus_each=8, gpus_each=1)
    >>> share_cluster([(4, 0), (4, 0)], 3, "cpu")
    Share(workers=3, cpus_each=2, gpus_each=0)
    """
    on_gpus = device == "cuda" or (device == "auto" and any(gpus for _, gpus in nodes))
    slots = sum(gpus if on_gpus else cpus for cpus, gpus in nodes)
    if slots < 1:
        raise ConfigError("the cluster has nothing to run on", expected="a GPU" if on_gpus else "a CPU", got=slots)
    count = max(1, min(jobs or slots, slots, workers or slots))
    most = max(cpus for cpus, _ in nodes)
    fitting = (each for each in range(most, 0, -1) if sum(_places(node, each, on_gpus) for node in nodes) >= count)
    return Share(count, next(fitting, 1), int(on_gpus))


def _places(node: tuple[int, int], cpus_each: int, on_gpus: bool) -> int:
    cpus, gpus = node
    return min(cpus // cpus_each, gpus) if on_gpus else cpus // cpus_each


class RayExecutor:
    """Videos side by side on the workers of a Ray cluster; parts of long ones where there is room for more workers.

    address: of a running cluster; without one a cluster is started on this machine and stopped afterwards. workers: at
    most so many. attempts: how often a task is begun before a dying worker counts as its failure. least_chunks: see
    ``Splitting``. After a run, ``facts`` says what each worker did and ``deaths`` how many died.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        attempts: int = 3,
        least_chunks: int = LEAST_CHUNKS,
    ) -> None:
        self._address = address
        self.workers, self.attempts, self.least_chunks = workers, attempts, least_chunks
        self.facts: list[WorkerFacts] = []
        self.deaths = 0

    def run(self, jobs: Sequence[Job], config: RunConfig, reporter: Reporter) -> list[JobResult]:
        """See Executor. Raises MissingExtraError without Ray, and UsageError or ModelError as local runs do."""
        if not jobs:
            return []
        ray = _import_ray()
        with _cluster(ray, self._address):
            running = _Run(self, ray, jobs, config, Board(reporter))
            try:
                return running.process()
            finally:
                running.close()
                self.facts, self.deaths = running.facts, running.deaths


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


class _Worker:
    """Actor that works on videos, and on windows of them, with networks that it makes once."""

    def __init__(self, config: RunConfig, mailbox: Any, threads: int) -> None:
        limit_threads(threads)
        self._config, self._mailbox = config, mailbox
        self._backends: Backends | None = None
        self._made = 0
        self._videos: tuple[str, ...] = ()
        self._windows: tuple[tuple[str, int], ...] = ()

    def process(self, job: Job) -> tuple[JobResult, WorkerFacts]:
        """Process one video; raises what making the networks raises, as the others do."""
        with self._reporter(job) as reporter:
            result = run_job(job, self._config, self._made_once(), reporter)
        self._videos += (job.item.name,)
        return _portable(result), self._facts()

    def plan(self, job: Job, splitting: Splitting) -> tuple[list[Window] | StfDepthError, WorkerFacts]:
        """Which windows of a video others may fill meanwhile."""
        with self._reporter(job) as reporter:
            return plan_job_windows(job, splitting, self._config, self._made_once(), reporter), self._facts()

    def fill(self, job: Job, window: Window) -> tuple[StfDepthError | None, WorkerFacts]:
        """Fill one window of a video."""
        with self._reporter(job) as reporter:
            error = fill_job_window(job, window, self._config, self._made_once(), reporter)
        self._windows += ((job.item.name, window.start),)
        return error, self._facts()

    @contextmanager
    def _reporter(self, job: Job) -> Iterator[PostingReporter]:
        reporter = PostingReporter(self._mailbox.post.remote, job.item.name)
        yield reporter
        reporter.send()

    def _made_once(self) -> Backends:
        if self._backends is None:
            self._backends = self._make()
            self._made += 1
        return self._backends

    def _make(self) -> Backends:
        return Backends.of(self._config)

    def _facts(self) -> WorkerFacts:
        return WorkerFacts(os.getpid(), self._made, self._videos, self._windows)


def _portable(result: JobResult) -> JobResult:
    """The same result without the open files that it may hold."""
    if result.outcome is None:
        return result
    closed = DepthResult(result.outcome.result.folder)
    return replace(result, outcome=replace(result.outcome, result=closed))


@dataclass(frozen=True)
class _Task:
    """A call of a worker: its method, the job, what else the method takes, and how often it is tried."""

    method: str
    job: Job
    arguments: tuple[Any, ...] = ()
    attempts: int = 1

    @property
    def label(self) -> str:
        """What the dashboard calls it."""
        return " ".join([self.job.item.name, *map(str, self.arguments)])


class _Run:
    """The videos of one run, and the workers that it has at the time.

    There are as many workers as videos, or as there is room for. Where there is room for more, more of them, with less
    of the cluster each, first fill windows of the videos: as far as the networks go, then as far as triangulation goes.
    """

    def __init__(self, executor: RayExecutor, ray: Any, jobs: Sequence[Job], config: RunConfig, board: Board) -> None:
        self._executor, self._ray, self._jobs, self._config, self._board = executor, ray, jobs, config, board
        self._todo = list(jobs)  # as they stand after what was done of them
        nodes = _nodes(ray)
        self._share = share_cluster(nodes, len(jobs), config.device, executor.workers)
        self._widest = share_cluster(nodes, None, config.device, executor.workers)
        self._pool: _Pool | None = None
        self._split_since: dict[int, float] = {}  # job -> when its first windows were begun
        self.facts: list[WorkerFacts] = []
        self.deaths = 0

    def process(self) -> list[JobResult]:
        """Process every job; results are in the order of the jobs."""
        if self._widest.workers > len(self._jobs):
            sound = list(range(len(self._jobs)))
            for part in PARTS:
                sound = self._fill(part, self._plan(part, sound))
        results: dict[int, JobResult] = {}

        def ended(number: int, value: JobResult | StfDepthError) -> None:
            results[number] = self._whole(number, _fetched(self._jobs[number], value))
            self._board.ended(self._jobs[number].item.name, f"{len(results)} of {len(self._jobs)} videos")

        tasks = [_Task("process", job, attempts=self._executor.attempts) for job in self._todo]
        self._workers(self._share).run(tasks, ended)
        return [results[number] for number in range(len(self._jobs))]

    def _plan(self, part: Part, numbers: Sequence[int]) -> dict[int, list[Window]]:
        """Windows by the number of their job, without the jobs for which planning fails."""
        splitting = Splitting(part, self._widest.workers, self._executor.least_chunks)
        tasks = [_Task("plan", self._todo[number], (splitting,)) for number in numbers]
        plans = zip(numbers, self._workers(self._share).run(tasks), strict=True)
        planned = {number: windows for number, windows in plans if isinstance(windows, list)}
        for number in planned:
            # What was not to be resumed is gone by now; what is there was done since.
            delivery = replace(self._todo[number].delivery, resume=True)
            self._todo[number] = replace(self._todo[number], delivery=delivery)
        return planned

    def _fill(self, part: Part, planned: Mapping[int, list[Window]]) -> list[int]:
        """Fill the windows; returns the numbers of the jobs with which nothing is wrong so far.

        The others go on whole: whatever is wrong with them, they meet it there as they would in this process.
        """
        for number, windows in planned.items():
            if windows:
                self._split_since.setdefault(number, time.perf_counter())
                self._board.take([(self._jobs[number].item.name, "stage", (f"{part}, {len(windows)} windows", None))])
        owned = [(number, window) for number, windows in planned.items() for window in windows]
        attempts = self._executor.attempts
        tasks = [_Task("fill", self._todo[number], (window,), attempts) for number, window in owned]
        errors = self._workers(self._widest).run(tasks) if tasks else []
        failed = {number: str(error) for (number, _), error in zip(owned, errors, strict=True) if error is not None}
        for number, error in failed.items():
            self._board.message(self._jobs[number].item.name, f"{error}. It is tried again by one worker")
        return [number for number in planned if number not in failed]

    def _whole(self, number: int, result: JobResult) -> JobResult:
        """The result with the time that the windows took in its seconds."""
        if result.outcome is None or number not in self._split_since:
            return result
        seconds = time.perf_counter() - self._split_since[number]
        return replace(result, outcome=replace(result.outcome, seconds=seconds))

    def _workers(self, share: Share) -> _Pool:
        """Workers with this share of the cluster; those with another are ended."""
        if self._pool is None or self._pool.share != share:
            self.close()
            self._pool = _Pool(self._ray, share, self._config, self._board)
        return self._pool

    def close(self) -> None:
        """End the workers and keep what they did."""
        if self._pool is not None:
            self.facts += self._pool.facts
            self.deaths += self._pool.deaths
            self._pool.close()
            self._pool = None


def _fetched(job: Job, value: JobResult | StfDepthError) -> JobResult:
    """The result of a job, with its files on this machine."""
    if isinstance(value, StfDepthError):
        return JobResult(job, error=value)
    try:
        if value.outcome is not None:
            job.fetch_output()
    except StfDepthError as error:
        return JobResult(job, error=error)
    return JobResult(job, value.outcome, value.error)


class _Pool:
    """Workers of one size and the tasks that wait for them."""

    def __init__(self, ray: Any, share: Share, config: RunConfig, board: Board) -> None:
        self._ray, self.share, self._config, self._board = ray, share, config, board
        self._namespace = f"stf-depth-{uuid.uuid4().hex[:8]}"
        self._mailbox = ray.remote(num_cpus=0)(Mailbox).options(name="progress", namespace=self._namespace).remote()
        self._workers: list[Any] = []
        self._idle = [self._new_worker() for _ in range(share.workers)]
        self._running: dict[Any, tuple[int, Any, int]] = {}  # reference -> task, worker, attempt
        self._facts: dict[int, WorkerFacts] = {}
        self.deaths = 0

    @property
    def facts(self) -> list[WorkerFacts]:
        return list(self._facts.values())

    def run(self, tasks: Sequence[_Task], ended: Callable[[int, Any], None] | None = None) -> list[Any]:
        """What the tasks return, in their order; an error for one whose workers all died. ended: told of each."""
        waiting = deque((number, 1) for number in range(len(tasks)))
        results: dict[int, Any] = {}
        while len(results) < len(tasks):
            while self._idle and waiting:
                self._begin(tasks, *waiting.popleft())
            ready, _ = self._ray.wait(list(self._running), timeout=_POLL_SECONDS)
            self._board.take(self._ray.get(self._mailbox.collect.remote()))
            for reference in ready:
                number, worker, attempt = self._running.pop(reference)
                result = self._result(reference, tasks[number])
                if not isinstance(result, _WorkerLostError):
                    self._idle.append(worker)
                else:
                    self._idle.append(self._new_worker())
                    if attempt < tasks[number].attempts:
                        self._board.message(tasks[number].job.item.name, f"{result.got}; another worker continues")
                        waiting.appendleft((number, attempt + 1))
                        continue
                results[number] = result
                if ended is not None:
                    ended(number, result)
        return [results[number] for number in range(len(tasks))]

    def _begin(self, tasks: Sequence[_Task], number: int, attempt: int) -> None:
        task, worker = tasks[number], self._idle.pop()
        method = getattr(worker, task.method).options(name=task.label)
        self._running[method.remote(task.job, *task.arguments)] = number, worker, attempt

    def _result(self, reference: Any, task: _Task) -> Any:
        """What a worker returned, or a _WorkerLostError where it died."""
        errors = self._ray.exceptions
        try:
            result, facts = self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, StfDepthError):
                raise error.cause from None
            raise
        except errors.RayError as error:
            self.deaths += 1
            hint = "Look at the worker's log in the Ray dashboard; memory is the usual reason"
            return _WorkerLostError("its workers died", where=task.job.item.path, got=type(error).__name__, hint=hint)
        self._facts[facts.pid] = facts
        return result

    def _new_worker(self) -> Any:
        resources = {"num_cpus": self.share.cpus_each, "num_gpus": self.share.gpus_each}
        actor = self._ray.remote(**resources)(_Worker)
        named = actor.options(name=f"stf-depth worker {len(self._workers) + 1}", namespace=self._namespace)
        self._workers.append(named.remote(self._config, self._mailbox, self.share.cpus_each))
        return self._workers[-1]

    def close(self) -> None:
        """End the workers."""
        for actor in (*self._workers, self._mailbox):
            self._ray.kill(actor)


class _WorkerLostError(StfDepthError):
    """Every worker that was given this task died."""
