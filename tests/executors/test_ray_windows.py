"""One long video on two workers of a cluster gives what this process gives, bit for bit, also when a worker dies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stf_depth.api import jobs_for
from stf_depth.config import RunConfig, preset
from stf_depth.errors import ModelError
from stf_depth.executors.base import Executor, JobResult
from stf_depth.executors.local import run_job
from stf_depth.perception.base import BackendInfo, Licence
from stf_depth.perception.registry import create
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.process import Delivery
from stf_depth.pipeline.progress import SilentReporter
from stf_depth.synthetic import render_clip, scene, write_video
from stf_depth.types import Ambiguity, DepthMaps, Representation, Uint8Array

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ray = pytest.importorskip("ray")
from stf_depth.executors import ray as executor_module  # noqa: E402
from stf_depth.executors.ray import RayExecutor  # noqa: E402

FRAMES = 70
CHUNKS = 5
FATAL_FRAME = 20


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clip = render_clip(scene("street"), frames=FRAMES, wh=(96, 64))
    return write_video(clip, tmp_path_factory.mktemp("film") / "film.mp4")


@dataclass(frozen=True)
class Network:
    """Disparity = brightness; writes down what it sees, and has an accident at one frame.

    log: a line for each frame: process, and a number that tells the frame from all others. accident: ``death`` of the
    process the first time, ``error`` each time.
    """

    log: Path
    accident: str = ""
    fatal: int = 0

    @property
    def info(self) -> BackendInfo:
        licence = Licence("none", True)
        return BackendInfo("brightness", "depth", licence, "", "1", 0, Representation.DISPARITY, Ambiguity.AFFINE)

    def infer(self, rgb: Uint8Array) -> DepthMaps:
        names = [int(image.astype(np.int64).sum()) for image in rgb]
        if self.accident and self.fatal in names:
            self._accident()
        with self.log.open("a", encoding="utf-8") as file:
            file.writelines(f"{os.getpid()} {name}\n" for name in names)
        return DepthMaps.of(rgb[:, ::2, ::2].mean(axis=-1) / 255 + 0.1, "disparity", "affine")

    def _accident(self) -> None:
        stone = self.log.with_suffix(".dead")
        if self.accident == "error":
            raise ModelError("the network gives up", where="frame")
        if not stone.exists():
            stone.touch()
            os._exit(1)

    def seen(self) -> list[tuple[int, int]]:
        """(process, frame) in the order in which they were written down."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [(int(pid), int(name)) for pid, name in (line.split() for line in lines)]


def _backends(network: Network) -> Backends:
    return Backends(network, None, None, create("flow", "dis"))


@pytest.fixture(scope="module")
def config() -> RunConfig:
    options = {"video.working_long_side_px": 96, "geometry.structure_long_side_px": 96}
    return preset("fast", semantic="none", panoptic="none", device="cpu").with_values(options)


def _run(executor: Executor, video: Path, config: RunConfig, root: Path, *, resume: bool = True) -> JobResult:
    delivery = Delivery(visualize=False, standard=False, resume=resume)
    return executor.run(jobs_for([video], root / "output", root / "working", delivery), config, SilentReporter())[0]


class ThisProcess:
    """As the local executor, with the network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def run(self, jobs, config, reporter):
        return [run_job(job, config, _backends(self._network), reporter) for job in jobs]


@pytest.fixture
def on_cluster(cluster, monkeypatch: pytest.MonkeyPatch):
    """An executor whose workers make the network."""

    def make(network: Network) -> RayExecutor:
        class Worker(executor_module._Worker):
            def _make(self) -> Backends:
                return _backends(network)

        monkeypatch.setattr(executor_module, "_Worker", Worker)
        return RayExecutor(least_chunks=1)

    return make


def _files(result: JobResult) -> dict[str, bytes]:
    assert result.error is None
    assert result.outcome is not None
    store = result.outcome.result.folder / "depth.zarr"
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def local(video: Path, config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Network]:
    root = tmp_path_factory.mktemp("local")
    network = Network(root / "log")
    return _files(_run(ThisProcess(network), video, config, root)), network


def _windows(executor: RayExecutor) -> dict[int, list[int]]:
    """Process -> first frames of the windows that it filled."""
    return {facts.pid: [start for _, start in facts.windows] for facts in executor.facts if facts.windows}


def test_two_workers_do_one_video_and_the_result_is_that_of_this_process(
    on_cluster, video, config, local, tmp_path
) -> None:
    expected, alone = local
    network = Network(tmp_path / "log")
    executor = on_cluster(network)
    assert _files(_run(executor, video, config, tmp_path)) == expected

    frames = [frame for _, frame in network.seen()]
    assert sorted(frames) == sorted(frame for _, frame in alone.seen())
    assert len(set(frames)) == FRAMES
    inferring = {pid for pid, _ in network.seen()}
    windows = _windows(executor)
    assert len(inferring) == 2
    assert inferring <= windows.keys()
    # Two windows of the networks, then two of the structure.
    assert sorted(start for starts in windows.values() for start in starts) == [0, 0, 48, 48]
    assert {facts.networks_made for facts in executor.facts} == {1}
    assert [facts.videos for facts in executor.facts if facts.videos] == [("film",)]
    assert executor.deaths == 0

    again = on_cluster(network)
    result = _run(again, video, config, tmp_path)
    assert result.outcome is not None
    assert result.outcome.reused
    assert not _windows(again)
    assert len(network.seen()) == FRAMES


def test_a_video_that_is_not_resumed_is_done_once_again(on_cluster, video, config, local, tmp_path) -> None:
    root, network = tmp_path / "run", Network(tmp_path / "log")
    _run(ThisProcess(Network(tmp_path / "before")), video, config, root)
    executor = on_cluster(network)
    assert _files(_run(executor, video, config, root, resume=False)) == local[0]
    assert sorted(start for starts in _windows(executor).values() for start in starts) == [0, 0, 48, 48]
    assert len(network.seen()) == FRAMES


def test_a_worker_that_dies_in_a_window_loses_nothing_that_was_stored(
    on_cluster, video, config, local, tmp_path
) -> None:
    expected, alone = local
    order = [frame for _, frame in alone.seen()]
    network = Network(tmp_path / "log", accident="death", fatal=order[FATAL_FRAME])
    executor = on_cluster(network)
    assert _files(_run(executor, video, config, tmp_path)) == expected
    assert executor.deaths == 1
    frames = [frame for _, frame in network.seen()]
    assert set(frames) == set(order)
    repeated = {order.index(frame) for frame in frames if frames.count(frame) > 1}
    assert repeated <= set(range(FATAL_FRAME))
    assert len(frames) == FRAMES + len(repeated)
    assert sorted(start for starts in _windows(executor).values() for start in starts)[:2] == [0, 0]


def test_a_network_that_fails_gives_the_error_of_this_process(on_cluster, video, config, local, tmp_path) -> None:
    fatal = [frame for _, frame in local[1].seen()][FATAL_FRAME]
    errors = []
    for name in ("here", "there"):
        network = Network(tmp_path / name, accident="error", fatal=fatal)
        executor = ThisProcess(network) if name == "here" else on_cluster(network)
        errors.append(_run(executor, video, config, tmp_path / f"{name} run").error)
    assert type(errors[0]) is type(errors[1]) is ModelError
    assert str(errors[0]) == str(errors[1])
    # What the windows could do is kept: a second run needs the chunk with the accident only.
    cured = Network(tmp_path / "cured")
    assert _files(_run(on_cluster(cured), video, config, tmp_path / "there run")) == local[0]
    assert len(cured.seen()) <= 3 * 16


def test_a_video_that_is_short_stays_whole(on_cluster, video, config, local, tmp_path) -> None:
    executor = on_cluster(Network(tmp_path / "log"))
    executor.least_chunks = CHUNKS
    assert _files(_run(executor, video, config, tmp_path)) == local[0]
    assert not _windows(executor)
    assert len(executor.facts) == 1
