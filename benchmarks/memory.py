"""Peak memory and time a frame as a video grows longer, each length in a process of its own.

    python benchmarks/memory.py                                  600 and 3000 frames of 640x360
    python benchmarks/memory.py --lengths 100,500 --size 320x180 --mode full

One clip, looped, with precomputed maps; results, pictures and videos are written as in every run. The libraries are
imported before the clock starts, and what they take is told apart. Results go to benchmarks/results/<name>.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import environment, make_clip, parse_wh, peak_memory_mb, save
from stf_depth.api import configure, jobs_for, process_many
from stf_depth.pipeline.process import Delivery


def main() -> None:
    """Measure every length, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="600,3000")
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--mode", default="flow", choices=("flow", "full", "none"))
    parser.add_argument("--no-pictures", action="store_true", help="leave pictures and videos out")
    parser.add_argument("--results", default="memory")
    parser.add_argument("--one", nargs=2, metavar=("VIDEO", "SPEC"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        sys.stdout.write(json.dumps(run_one(Path(arguments.one[0]), arguments.one[1], arguments)) + "\n")
        return
    before = environment()
    rows = [measure(int(length), arguments) for length in arguments.lengths.split(",")]
    ratios = {
        "peak_memory": round(rows[-1]["peak_memory_mb"] / rows[0]["peak_memory_mb"], 3),
        "time_per_frame": round(rows[-1]["ms_per_frame"] / rows[0]["ms_per_frame"], 3),
        "cpu_per_frame": round(rows[-1]["cpu_ms_per_frame"] / rows[0]["cpu_ms_per_frame"], 3),
    }
    common = {"size": arguments.size, "mode": arguments.mode, "longest_to_shortest": ratios}
    save(arguments.results, {"environment": before, "environment_after": environment(), **common, "rows": rows})


def measure(frames: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one length in a new process."""
    with tempfile.TemporaryDirectory() as scratch:
        clip = make_clip(Path(scratch), frames, parse_wh(arguments.size))
        command = [sys.executable, __file__, "--one", str(clip.video), clip.depth, "--mode", arguments.mode]
        command += ["--no-pictures"] if arguments.no_pictures else []
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {frames} frames failed: {done.stderr[-2000:]}")
    return {"frames": frames, **json.loads(done.stdout.splitlines()[-1])}


def run_one(video: Path, spec: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Process a video beside its own folder; peak memory is that of this process, with the libraries and of them."""
    # The pipeline imports it when it first needs it; it is most of what the libraries take.
    import torch  # noqa: F401

    shown = not arguments.no_pictures
    options = {"fusion.mode": arguments.mode}
    config = configure("fast", options, depth=spec, semantic="none", panoptic="none", device="cpu")
    root = video.parent
    jobs = jobs_for([video], root / "output", root / "working", Delivery(visualize=shown, standard=shown))
    before_mb = peak_memory_mb()
    began, began_cpu = time.perf_counter(), time.process_time()
    done = process_many(jobs, config)[0]
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    if done.error is not None or done.outcome is None:
        raise SystemExit(f"error: {done.error}")
    frames = done.outcome.frames
    return {
        "peak_memory_mb": peak_memory_mb(),
        "after_imports_mb": before_mb,
        "ms_per_frame": round(1000 * seconds / frames, 2),
        "cpu_ms_per_frame": round(1000 * cpu / frames, 2),
    }


if __name__ == "__main__":
    main()
