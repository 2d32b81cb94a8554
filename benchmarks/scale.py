"""Many short clips on 1, 2, 4... workers of a Ray cluster on this machine, and in this process.

    python benchmarks/scale.py
    python benchmarks/scale.py --clips 12 --workers 1,2,4 --depth onnx:net.onnx
    python benchmarks/scale.py --clips 1 --frames 640 --processors 2 --depth onnx:net.onnx  # one long clip in windows

Each worker has one processor, or with ``--processors`` its share of as many, whatever the number of workers.
The clock starts when the first video reports its first stage, so that the start of the cluster and the imports of its
workers, which do not grow with the number of videos, are shown apart. Results go to benchmarks/results/<name>.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import StageTimes, environment, make_clip, parse_wh, save
from stf_depth.api import configure, jobs_for
from stf_depth.config import RunConfig
from stf_depth.executors.base import Executor
from stf_depth.executors.local import LocalExecutor
from stf_depth.executors.ray import RayExecutor
from stf_depth.pipeline.process import Delivery


def main() -> None:
    """Measure every number of workers, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--processors", type=int, help="of every cluster; as many as workers without it")
    parser.add_argument("--mode", default="flow", choices=("flow", "full"))
    parser.add_argument("--depth", help="depth SPEC; precomputed maps without it")
    parser.add_argument("--results", default="scale")
    arguments = parser.parse_args()
    before = environment()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        videos, config = prepare(root, arguments)
        rows = [measure("this process", LocalExecutor(), videos, config, root)]
        for workers in (int(count) for count in arguments.workers.split(",")):
            processors = arguments.processors or workers
            name = f"ray, {workers} worker(s), {processors} processor(s)"
            rows.append({"workers": workers, **measure(name, cluster(workers, processors), videos, config, root)})
    one = next((row["seconds"] for row in rows if row.get("workers") == 1), None)
    for row in rows:
        row["speed_against_one_worker"] = None if one is None else round(one / row["seconds"], 3)
    facts = {name: getattr(arguments, name) for name in ("clips", "frames", "size", "mode", "depth")}
    save(arguments.results, {"environment": before, "environment_after": environment(), **facts, "rows": rows})


def prepare(root: Path, arguments: argparse.Namespace) -> tuple[list[Path], RunConfig]:
    """Copies of one short clip, and the configuration."""
    clip = make_clip(root, arguments.frames, parse_wh(arguments.size))
    folder = root / "videos"
    folder.mkdir()
    videos = [Path(shutil.copy(clip.video, folder / f"clip_{number:03d}.mp4")) for number in range(arguments.clips)]
    spec = arguments.depth or clip.depth
    options = {"fusion.mode": arguments.mode}
    return videos, configure("fast", options, depth=spec, semantic="none", panoptic="none", device="cpu")


class _OfItsOwn(RayExecutor):
    """Workers of a cluster that is made for them."""

    def __init__(self, workers: int, processors: int) -> None:
        super().__init__(workers=workers)
        self._count = processors

    def run(self, jobs: Any, config: RunConfig, reporter: Any) -> Any:
        import ray

        # Ray's workers give way to every other process by default; this process does not, and they are compared.
        equal = {"worker_niceness": 0}
        ray.init(
            num_cpus=self._count,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _system_config=equal,
        )
        try:
            return super().run(jobs, config, reporter)
        finally:
            ray.shutdown()


def cluster(workers: int, processors: int) -> Executor:
    """A cluster on this machine for one run."""
    return _OfItsOwn(workers, processors)


def measure(name: str, executor: Executor, videos: list[Path], config: RunConfig, root: Path) -> dict[str, Any]:
    """Process all videos into new folders."""
    target = root / f"run_{time.monotonic_ns()}"
    jobs = jobs_for(videos, target / "output", target / "working", Delivery(visualize=False, standard=False))
    times = StageTimes()
    began = time.perf_counter()
    results = executor.run(jobs, config, times)
    ended = time.perf_counter()
    times.close()
    first = times.first_stage or began
    failed = [str(result.error) for result in results if result.error is not None]
    if failed:
        raise SystemExit(f"error: {failed[0]}")
    facts = getattr(executor, "facts", [])
    return {
        "where": name,
        "seconds": round(ended - first, 2),
        "start_seconds": round(first - began, 2),
        "videos_per_worker": [len(one.videos) for one in facts],
        "windows_per_worker": [len(one.windows) for one in facts],
        "stages": {stage: round(seconds["wall_seconds"], 2) for stage, seconds in times.stages.items()},
        "networks_made": [one.networks_made for one in facts],
        "load_average": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    main()
