"""Runs whose folders lie on an S3 server: the same bytes as a local run, resumed by another machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stf_depth.api import configure, jobs_for, open_result, process, process_many
from stf_depth.cache.remote import Mirror
from stf_depth.cli.main import main
from stf_depth.errors import OutputError
from stf_depth.executors.base import Job
from stf_depth.executors.local import run_job
from stf_depth.executors.windows import fill_job_window, plan_job_windows
from stf_depth.perception.registry import create
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.process import Delivery
from stf_depth.pipeline.progress import SilentReporter
from stf_depth.pipeline.remote import mirrored
from stf_depth.pipeline.split import Splitting

BUCKET = "depth"
SETTINGS = ["--semantic", "none", "--panoptic", "none", "--no-visualize"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server on this machine."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket on it; s3fs finds the server by the environment, as users tell it of theirs."""
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    storage = s3fs.S3FileSystem()
    storage.mkdir(BUCKET)
    yield storage
    storage.rm(BUCKET, recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Choose the machine, each with a disk of its own."""
    return lambda name: monkeypatch.setenv("STF_DEPTH_STAGING", str(tmp_path / name))


@pytest.fixture
def maps(room_clip: Any, tmp_path: Path) -> str:
    """Precomputed depth of the room."""
    disparity = np.where(np.isfinite(room_clip.depth), 1 / room_clip.depth, 0).astype(np.float32)
    np.savez(tmp_path / "maps.npz", depth=disparity, representation="disparity", ambiguity="affine")
    return f"precomputed:{tmp_path / 'maps.npz'}"


def stored_depth(storage: Any, name: str) -> dict[str, bytes]:
    root = f"{BUCKET}/output/{name}/"
    found = {path[len(root) :]: storage.cat_file(path) for path in storage.find(root)}
    return {name: content for name, content in found.items() if name.startswith("depth.zarr")}


def test_the_command_writes_to_a_bucket_what_it_writes_to_a_disk(
    bucket: Any, machine: Callable[[str], None], maps: str, room_video: Path, tmp_path: Path, capsys: Any
) -> None:
    machine("first")
    folders = [f"--output-dir=s3://{BUCKET}/output", f"--working-dir=s3://{BUCKET}/working"]
    command = ["run", str(room_video), "--depth", maps, *SETTINGS]
    assert main([*command, *folders]) == 0
    assert main([*command, f"--output-dir={tmp_path / 'output'}", f"--working-dir={tmp_path / 'working'}"]) == 0
    local = tmp_path / "output" / "room"
    expected = {p.relative_to(local).as_posix(): p.read_bytes() for p in local.glob("depth.zarr/**/*") if p.is_file()}
    assert expected
    assert stored_depth(bucket, "room") == expected
    assert json.loads(bucket.cat_file(f"{BUCKET}/output/room/manifest.json"))["shots"]
    assert bucket.exists(f"{BUCKET}/output/room/report.html")

    machine("second")
    capsys.readouterr()
    assert main([*command, *folders, "--log-json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    results = [(one["status"], one["output"]) for one in events if one["event"] == "result"]
    assert results == [("reused", f"s3://{BUCKET}/output/room")]


class _Dying(SilentReporter):
    """Ends the process, as far as the run can tell, when a stage begins."""

    def __init__(self, stage: str = "fusion") -> None:
        self._stage = stage

    def stage(self, video: str, stage: str, total: int | None) -> None:  # noqa: ARG002
        if stage == self._stage:
            raise KeyboardInterrupt


def test_another_machine_goes_on_where_one_died(
    bucket: Any, machine: Callable[[str], None], maps: str, room_video: Path
) -> None:
    config = configure("fast", {"fusion.mode": "flow"}, depth=maps, semantic="none", panoptic="none")
    delivery = Delivery(visualize=False, standard=False)
    folders = f"s3://{BUCKET}/output", f"s3://{BUCKET}/working"
    machine("first")
    with pytest.raises(KeyboardInterrupt):
        process_many(jobs_for([room_video], *folders, delivery), config, reporter=_Dying())
    assert not bucket.exists(f"{BUCKET}/output/room/manifest.json")

    machine("second")
    done = process_many(jobs_for([room_video], *folders, delivery), config)[0]
    assert done.error is None
    assert done.outcome is not None
    assert "fusion" in done.outcome.stages_run
    assert not {"decoding", "inference"} & set(done.outcome.stages_run)
    assert len(done.outcome.result) == 12


def test_a_result_that_another_machine_made_is_fetched(
    bucket: Any, machine: Callable[[str], None], maps: str, room_video: Path
) -> None:
    config = configure("fast", {"fusion.mode": "flow"}, depth=maps, semantic="none", panoptic="none")
    machine("worker")
    folders = f"s3://{BUCKET}/output", f"s3://{BUCKET}/working"
    job = jobs_for([room_video], *folders, Delivery(visualize=False, standard=False))[0]
    assert process_many([job], config)[0].error is None
    shutil.rmtree(job.folders.output)
    job.fetch_output()
    assert len(open_result(job.folders.output)) == 12


def test_a_run_that_ends_in_a_defect_sends_what_it_has(bucket: Any, tmp_path: Path) -> None:
    mirror = Mirror(f"s3://{BUCKET}/output/room", tmp_path / "copy")
    with pytest.raises(ZeroDivisionError), mirrored([mirror], SilentReporter()):
        (mirror.local / "finished").write_text("chunk")
        raise ZeroDivisionError
    assert bucket.cat_file(f"{BUCKET}/output/room/finished") == b"chunk"


def test_a_bucket_that_is_not_there_is_one_error(
    bucket: Any, machine: Callable[[str], None], maps: str, room_video: Path
) -> None:
    machine("first")
    with pytest.raises(OutputError, match="shared storage cannot be used"):
        process(
            room_video,
            output_dir="s3://no-such-bucket/output",
            working_dir="s3://no-such-bucket/working",
            depth=maps,
            semantic="none",
            panoptic="none",
        )


def test_machines_fill_windows_of_one_video(
    bucket: Any, machine: Callable[[str], None], bench: Any, long_video: Path
) -> None:
    options = {"geometry.enabled": True, "fusion.mode": "full"}
    config = bench.config(**options)
    bench.semantic = None
    bench.run(long_video, "whole", **options)
    network, silent = type(bench.depth)(), SilentReporter()
    backends = Backends(network, None, None, create("flow", "dis"))

    def job(name: str) -> Job:
        machine(name)
        folders = f"s3://{BUCKET}/output", f"s3://{BUCKET}/working"
        return jobs_for([long_video], *folders, Delivery(visualize=False, standard=False))[0]

    for part, stage in (("inference", "depth"), ("structure", "structure")):
        windows = plan_job_windows(job("planner"), Splitting(part, 2, 1), config, backends, silent)
        assert [(window.start, window.stop) for window in windows] == [(0, 32), (32, None)]
        for number, window in enumerate(windows):
            # Two workers of one machine share a copy, and one of them was there before.
            for name in (f"machine {number}", "machine 0"):
                assert fill_job_window(job(name), window, config, backends, silent) is None
        root = f"{BUCKET}/working/{long_video.stem}/windows"
        markers = [path for path in bucket.find(root) if f"{stage}-" in path and "/done/" in path]
        assert len(markers) == 3
    assert network.frames == 40
    # Whoever brings them together may die before the windows are gone, but not before the chunks are in their place.
    with pytest.raises(KeyboardInterrupt):
        run_job(job("died"), config, backends, _Dying("gathering"))
    taken_over = bucket.find(f"{BUCKET}/working/{long_video.stem}/cache")
    assert len([path for path in taken_over if "structure-" in path and "/done/" in path]) == 3
    assert bucket.find(root)
    result = run_job(job("last"), config, backends, silent)
    assert result.error is None
    assert network.frames == 40
    assert not bucket.find(root)
    local = bench.root / "whole" / "output"
    expected = {p.relative_to(local).as_posix(): p.read_bytes() for p in local.glob("depth.zarr/**/*") if p.is_file()}
    assert stored_depth(bucket, long_video.stem) == expected


@pytest.mark.slow
def test_workers_of_a_cluster_share_a_bucket(
    bucket: Any, machine: Callable[[str], None], maps: str, room_video: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    from stf_depth.executors.ray import RayExecutor

    machine("cluster")
    config = configure("fast", {"fusion.mode": "flow"}, depth=maps, semantic="none", panoptic="none")
    delivery = Delivery(visualize=False, standard=False)
    jobs = jobs_for([room_video], f"s3://{BUCKET}/output", f"s3://{BUCKET}/working", delivery)
    done = process_many(jobs, config, executor=RayExecutor(workers=1))[0]
    assert done.error is None
    local = process(
        room_video,
        output_dir=tmp_path / "output",
        working_dir=tmp_path / "working",
        options={"fusion.mode": "flow"},
        depth=maps,
        semantic="none",
        panoptic="none",
    )
    copy = Mirror(f"s3://{BUCKET}/output/room", tmp_path / "copy")
    copy.pull()
    for path in (local.folder / "depth.zarr").rglob("*"):
        if path.is_file():
            assert (copy.local / path.relative_to(local.folder)).read_bytes() == path.read_bytes()
