"""A Ray cluster gives what this process gives, bit for bit, also when workers die."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from stf_depth.api import jobs_for
from stf_depth.config import RunConfig, preset
from stf_depth.errors import SpecError, UnreadableVideoError
from stf_depth.executors.base import Executor, JobResult
from stf_depth.executors.local import LocalExecutor
from stf_depth.pipeline.plan import VideoFolders
from stf_depth.pipeline.process import Delivery
from stf_depth.pipeline.progress import SilentReporter
from stf_depth.synthetic import SyntheticClip, render_clip, scene, write_video

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ray = pytest.importorskip("ray")
from stf_depth.executors.ray import RayExecutor  # noqa: E402


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(_clip(name), folder / f"{name}.mp4") for name in ("room", "forward", "street")]


def _clip(name: str) -> SyntheticClip:
    return render_clip(scene(name), frames=10, wh=(96, 64))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    path = tmp_path_factory.mktemp("maps") / "depth.npz"
    disparity = np.random.default_rng(3).uniform(0.2, 1.0, (10, 32, 48)).astype(np.float32)
    np.savez(path, depth=disparity, representation="disparity", ambiguity="affine")
    return preset("fast", depth=f"precomputed:{path}", semantic="none", panoptic="regions", device="cpu")


def _run(
    executor: Executor, videos: list[Path], config: RunConfig, root: Path, folders: type[VideoFolders] = VideoFolders
) -> list[JobResult]:
    delivery = Delivery(visualize=False, standard=False)
    jobs = jobs_for(videos, root / "output", root / "working", delivery)
    jobs = [replace(job, folders=folders(job.folders.working, job.folders.output)) for job in jobs]
    return executor.run(jobs, config, SilentReporter())


def _arrays(results: list[JobResult]) -> list[dict[str, bytes]]:
    stores = [one.outcome.result for one in results if one.outcome is not None]
    assert len(stores) == len(results)
    return [
        {name: np.asarray(getattr(store, name)[:]).tobytes() for name in ("depth", "valid", "confidence")}
        for store in stores
    ]


@pytest.fixture(scope="module")
def local(videos: list[Path], config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    return _arrays(_run(LocalExecutor(), videos, config, tmp_path_factory.mktemp("local")))


def test_the_cluster_equals_this_process(cluster, videos, config, local, tmp_path: Path) -> None:
    executor = RayExecutor()
    results = _run(executor, videos, config, tmp_path)
    assert [one.job.item.path for one in results] == videos
    assert _arrays(results) == local
    done = [video for facts in executor.facts for video in facts.videos]
    assert sorted(done) == ["forward", "room", "street"]
    assert [facts.networks_made for facts in executor.facts] == [1] * len(executor.facts)
    assert len(executor.facts) <= 2
    assert executor.deaths == 0


@dataclass(frozen=True)
class DeadlyFolders(VideoFolders):
    """Ends its process the first time that fusion asks for its store, with everything before it done."""

    @property
    def depth_store(self) -> Path:
        stone = self.working / "died"
        if not stone.exists() and self.working.name == "forward":
            stone.write_text(str(os.getpid()))
            os._exit(1)
        return super().depth_store


def test_a_worker_that_dies_loses_nothing(cluster, videos, config, local, tmp_path: Path) -> None:
    executor = RayExecutor()
    results = _run(executor, videos, config, tmp_path, DeadlyFolders)
    assert _arrays(results) == local
    assert executor.deaths == 1
    done = [video for facts in executor.facts for video in facts.videos]
    assert sorted(done) == ["forward", "room", "street"]
    revived = next(one.outcome for one in results if one.job.item.name == "forward")
    assert "inference" not in revived.stages_run
    assert "fusion" in revived.stages_run


@dataclass(frozen=True)
class FatalFolders(VideoFolders):
    """Ends its process whenever fusion asks for its store."""

    @property
    def depth_store(self) -> Path:
        if self.working.name == "forward":
            os._exit(1)
        return super().depth_store


def test_a_video_that_kills_every_worker_fails_alone(cluster, videos, config, tmp_path: Path) -> None:
    executor = RayExecutor(attempts=2)
    results = _run(executor, videos[:2], config, tmp_path, FatalFolders)
    failed = {one.job.item.name: one.error for one in results if one.error is not None}
    assert list(failed) == ["forward"]
    assert "its workers died" in str(failed["forward"])
    assert executor.deaths == 2


def test_a_bad_video_fails_alone_and_a_bad_setting_at_once(cluster, videos, config, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    results = _run(RayExecutor(), [videos[0], broken], config, tmp_path)
    assert results[0].outcome is not None
    assert isinstance(results[1].error, UnreadableVideoError)
    with pytest.raises(SpecError):
        _run(RayExecutor(), videos, config.with_values({"depth": "no-such-network"}), tmp_path)
