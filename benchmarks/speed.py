"""Time a frame of the pipeline, stage by stage, against the bare loop that a user would write.

    python benchmarks/speed.py                                  precomputed depth at three sizes
    python benchmarks/speed.py --scene street --segments exact  with segments, sky and movers
    python benchmarks/speed.py --depth onnx:net.onnx --sizes 640x360
    python benchmarks/speed.py --depth dpt-large --frames 40 --device cuda --precision bfloat16

The bare loop decodes a frame, runs the network on it (or reads its precomputed map) and writes the depth; it is timed
frame by frame after a warm-up, in the process and on the clip of the pipeline. Network outputs are arrays of the host,
so that every time ends with the device's work done. Results go to benchmarks/results/<name>.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from measuring import (
    StageTimes,
    environment,
    make_clip,
    parse_wh,
    peak_device_memory_mb,
    peak_memory_mb,
    save,
    summary,
)
from stf_depth.api import configure, jobs_for, process_many
from stf_depth.config import RunConfig
from stf_depth.perception.base import IndexedDepth
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.process import Delivery
from stf_depth.video.reader import open_video

WARM_UP_FRAMES = 3
MODES = {"without camera": {"fusion.mode": "flow"}, "with camera": {"fusion.mode": "full"}}


def main() -> None:
    """Measure every size and mode, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", help="depth SPEC; precomputed maps without it")
    parser.add_argument("--sizes", default="320x180,640x360,1280x720")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--scene", default="room", help="a synthetic scene")
    parser.add_argument("--segments", default="none", choices=("none", "exact", "regions"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--results", default="speed")
    arguments = parser.parse_args()
    before = environment()
    sizes, modes = arguments.sizes.split(","), arguments.modes.split(",")
    rows = [measure(parse_wh(size), mode, arguments) for size in sizes for mode in modes]
    save(arguments.results, {"environment": before, "environment_after": environment(), "rows": rows})


def measure(wh: tuple[int, int], mode: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One clip through the bare loop and through the pipeline."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        clip = make_clip(root, arguments.frames, wh, scene_name=arguments.scene)
        segments = {"none": "none", "exact": clip.panoptic, "regions": "regions"}[arguments.segments]
        networks = {"depth": arguments.depth or clip.depth, "semantic": "none", "panoptic": segments}
        device = {"device": arguments.device, "precision": arguments.precision}
        config = configure("fast", MODES[mode], **networks, **device)
        bare = bare_loop(clip.video, config, root / "bare")
        whole = pipeline(clip.video, config, root)
    row = {
        "size": f"{wh[0]}x{wh[1]}",
        "frames": arguments.frames,
        "mode": mode,
        "depth": arguments.depth or "precomputed",
        "scene": arguments.scene,
        "segments": arguments.segments,
        **device,
        "bare_loop": {**summary(bare), "mean_ms": round(1000 * statistics.fmean(bare), 2)},
        **whole,
        "peak_memory_mb_so_far": peak_memory_mb(),
        "peak_device_memory_mb_so_far": peak_device_memory_mb(),
    }
    row["pipeline_to_bare_loop"] = round(whole["result_ms_per_frame"] / (1000 * statistics.fmean(bare)), 3)
    return row


def bare_loop(video: Path, config: RunConfig, target: Path) -> list[float]:
    """Seconds of each frame: decode, network, one 16-bit PNG."""
    target.mkdir()
    network = Backends.of(config).depth
    seconds = []
    with open_video(video) as reader:
        batches = iter(reader.batches(1))
        for index in range(10**9):
            began = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            maps = network.read([index]) if isinstance(network, IndexedDepth) else network.infer(batch.rgb)
            write_png(target / f"{index:06d}.png", maps.depth[0], batch.rgb.shape[1:3])
            seconds.append(time.perf_counter() - began)
    return seconds[WARM_UP_FRAMES:]


def write_png(path: Path, depth: np.ndarray, size: tuple[int, int]) -> None:
    """Depth at the size of the frame as sixteen bits between its extremes."""
    large = cv2.resize(depth, size[::-1], interpolation=cv2.INTER_LINEAR)
    low, high = float(large.min()), float(large.max())
    cv2.imwrite(str(path), ((large - low) / max(high - low, 1e-12) * 65535).astype(np.uint16))


def pipeline(video: Path, config: RunConfig, root: Path) -> dict[str, Any]:
    """Milliseconds a frame of every stage, of the result, and of what is made from it for people."""
    times = StageTimes()
    jobs = jobs_for([video], root / "output", root / "working", Delivery())
    began, began_cpu = time.perf_counter(), time.process_time()
    done = process_many(jobs, config, reporter=times)[0]
    times.close()
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    if done.error is not None or done.outcome is None:
        raise SystemExit(f"error: {done.error}")
    frames = done.outcome.frames
    shown = sum(
        times.stages.get(stage, {}).get("wall_seconds", 0) for stage in ("images", "mp4", "comparison", "report")
    )
    return {
        "result_ms_per_frame": round(1000 * (seconds - shown) / frames, 2),
        "result_frames_per_second": round(frames / (seconds - shown), 2),
        "pictures_and_videos_ms_per_frame": round(1000 * shown / frames, 2),
        "cpu_ms_per_frame": round(1000 * cpu / frames, 2),
        "stages_ms_per_frame": times.per_frame(frames),
    }


if __name__ == "__main__":
    main()
