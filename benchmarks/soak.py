"""Two hundred mixed clips in one run, a tenth of them broken: memory and open files stay flat, all good ones are right.

    python benchmarks/soak.py --clips 200 --seed 1

Clips are made on the spot from the synthetic scenes and, where it is there, from the measuring data: codecs,
containers, sizes, rates and lengths are drawn at random. Depth is the brightness of the pixels, so that every frame of
every good clip has a known result; one clip in five is fused as well. Broken clips are empty, text, cut, without an
index, or overwritten in the middle, and must end in an error or in fewer frames, never in anything else.

The process reports its resident size and its open files after every clip. Flat means: over the second half of the run,
the straight line through the resident sizes grows by less than --growth-mb in all, and the open files do not grow.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from stf_depth.config import RunConfig, preset
from stf_depth.errors import StfDepthError
from stf_depth.executors.base import Job
from stf_depth.executors.local import run_job
from stf_depth.perception.base import BackendInfo, Licence
from stf_depth.perception.registry import create
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.plan import VideoFolders
from stf_depth.pipeline.process import Delivery
from stf_depth.pipeline.progress import SilentReporter
from stf_depth.result import DepthResult
from stf_depth.types import Ambiguity, DepthMaps, Representation, Uint8Array
from stf_depth.video.discover import discover
from stf_depth.video.reader import open_video

CODECS = [
    (".mp4", "libx264", "yuv420p"),
    (".mkv", "ffv1", "yuv420p"),
    (".avi", "mpeg4", "yuv420p"),
    (".mov", "png", "rgb24"),
    (".webm", "libvpx", "yuv420p"),
    (".ts", "libx264", "yuv420p"),
    (".gif", "gif", "rgb8"),
]
SIZES = [(96, 64), (64, 96), (128, 72), (50, 34), (160, 90)]
BREAKS = ["empty", "text", "cut", "head", "middle"]


class Brightness:
    """Disparity = brightness + 0.1: a network whose answer anybody can check."""

    info = BackendInfo(
        "brightness", "depth", Licence("none", True), "", "1", 0, Representation.DISPARITY, Ambiguity.AFFINE
    )

    def infer(self, rgb: Uint8Array) -> DepthMaps:
        """(N, H, W, 3) uint8 -> disparity at the same size."""
        return DepthMaps.of(rgb.mean(axis=-1) / 255 + 0.1, "disparity", "affine")


@dataclass
class Report:
    """What was seen. samples: (clip, resident MiB, open files)."""

    clips: int = 0
    broken: int = 0
    failed: int = 0
    partly_read: int = 0
    wrong: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    samples: list[tuple[int, float, int]] = field(default_factory=list)
    seconds: float = 0.0

    def growth_mb(self) -> float:
        """Growth of the resident size over the second half, by a straight line."""
        half = np.array(self.samples[len(self.samples) // 2 :])
        return float(np.polyfit(half[:, 0], half[:, 1], 1)[0] * (half[-1, 0] - half[0, 0])) if len(half) > 2 else 0.0

    def file_growth(self) -> int:
        """Growth of the number of open files over the second half."""
        half = [files for _, _, files in self.samples[len(self.samples) // 2 :]]
        return max(half[len(half) // 2 :]) - max(half[: len(half) // 2]) if len(half) > 3 else 0


def pictures(rng: random.Random, shared: Path | None) -> list[np.ndarray]:
    """Frames to make clips of: a few of every synthetic scene and of every shared video."""
    from stf_depth.synthetic import render_clip, scene

    stacks = [render_clip(scene(name), frames=24, wh=(160, 90)).rgb for name in ("room", "two_shots")]
    for path in sorted((shared / "data" / "videos").glob("*.mp4")) if shared else []:
        with open_video(path, max_frames=24) as reader:
            stacks.append(
                np.stack([cv2.resize(image, (160, 90)) for batch in reader.batches(4) for image in batch.rgb])
            )
    rng.shuffle(stacks)
    return stacks


def write_clip(path: Path, frames: np.ndarray, codec: str, pixel_format: str, rate: int) -> None:
    """Encode frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel_format
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode(None))


def break_file(path: Path, how: str, rng: random.Random) -> None:
    """Damage a clip."""
    data = bytearray(path.read_bytes())
    if how == "empty":
        data = bytearray()
    elif how == "text":
        data = bytearray(b"this is not a video\n" * 40)
    elif how == "cut":
        data = data[: int(len(data) * rng.uniform(0.1, 0.7))]
    elif how == "head":
        data[: min(200, len(data) // 2)] = bytes(min(200, len(data) // 2))
    else:
        start = len(data) // 3
        data[start : start + len(data) // 3] = rng.randbytes(len(data) // 3)
    path.write_bytes(bytes(data))


def make_clips(folder: Path, count: int, rng: random.Random, stacks: list[np.ndarray]) -> dict[str, str]:
    """Write the clips; returns file name -> how it is broken, empty for a good one."""
    broken = set(rng.sample(range(count), max(1, count // 10)))
    kinds = {}
    for number in range(count):
        suffix, codec, pixels = rng.choice(CODECS)
        stack, size = rng.choice(stacks), rng.choice(SIZES)
        first, length = rng.randrange(len(stack)), rng.choice([1, 2, 5, 9, 17, 24])
        frames = np.stack([cv2.resize(stack[(first + i) % len(stack)], size) for i in range(length)])
        path = folder / f"clip{number:03d}{suffix}"
        write_clip(path, frames, codec, pixels, rng.choice([24, 25, 30]))
        kinds[path.name] = rng.choice(BREAKS) if number in broken else ""
        if kinds[path.name]:
            break_file(path, kinds[path.name], rng)
    return kinds


def what_is_wrong(path: Path, result: DepthResult, *, fused: bool) -> str:
    """Compare a result with the decoded frames; empty when it is right."""
    with open_video(path) as reader:
        rgb = np.concatenate([batch.rgb for batch in reader.batches(8)])
    depth, valid = np.asarray(result.depth[:]), np.asarray(result.valid[:])
    if depth.shape != rgb.shape[:3]:
        return f"shape {depth.shape} instead of {rgb.shape[:3]}"
    if not np.isfinite(depth).all() or not valid.all():
        return "values that are not finite or not valid"
    expected = rgb.mean(axis=-1) / 255 + 0.1
    if not fused and not np.allclose(depth, expected, atol=1e-5):
        return f"off by {np.abs(depth - expected).max():.3g}"
    if fused and np.corrcoef(depth.ravel(), expected.ravel())[0, 1] < 0.9 and expected.std() > 0.02:
        return "fused depth does not follow the network's"
    return ""


def usage() -> tuple[float, int]:
    """Resident MiB and open files of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), len(list(Path("/proc/self/fd").iterdir()))


def settings(mode: str) -> RunConfig:
    """No camera solve, no network; fusion as asked."""
    quick: dict[str, Any] = {"geometry.enabled": False, "video.working_long_side_px": 160, "fusion.mode": mode}
    return preset("offline").with_values(quick)


def soak(folder: Path, kinds: dict[str, str], seconds_at_most: float) -> Report:
    """Process every clip in this process, as a run over a folder does."""
    flow = create("flow", "dis")
    if flow is None:
        raise StfDepthError("no flow backend")
    backends = Backends(Brightness(), None, None, flow)
    report, began = Report(), time.monotonic()
    for number, item in enumerate(discover([folder / "in"])):
        fused = number % 5 == 0
        folders = VideoFolders(folder / "w" / item.name, folder / "o" / item.name)
        delivery = Delivery(visualize=number % 4 == 0, standard=number % 4 == 0, inference_pickle=number % 7 == 0)
        done = run_job(Job(item, folders, delivery), settings("flow" if fused else "none"), backends, SilentReporter())
        report.clips, report.broken = report.clips + 1, report.broken + bool(kinds[item.path.name])
        judge(report, item.path, kinds[item.path.name], done, fused=fused)
        del done
        shutil.rmtree(folders.output, ignore_errors=True)
        shutil.rmtree(folders.working, ignore_errors=True)
        gc.collect()
        report.samples.append((number, *usage()))
        if time.monotonic() - began > seconds_at_most:
            break
    report.seconds = round(time.monotonic() - began, 1)
    return report


def judge(report: Report, path: Path, broken: str, done: Any, *, fused: bool) -> None:
    """Add one clip's end to the report."""
    if done.error is not None:
        report.failed += 1
        if not broken or "unexpected" in str(done.error):
            report.unexpected.append(f"{path.name} ({broken or 'good'}): {done.error}")
        return
    report.partly_read += bool(broken)
    wrong = what_is_wrong(path, done.outcome.result, fused=fused)
    if wrong:
        report.wrong.append(f"{path.name} ({broken or 'good'}): {wrong}")


def main() -> int:
    """Run and print the report as JSON; exit code 0 when all holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop after this time, with fewer clips")
    parser.add_argument("--growth-mb", type=float, default=30.0)
    default = Path(__file__).resolve().parents[2] / "shared"
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("STF_DEPTH_SHARED", default)))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="stf-depth-soak-") as name:
        folder = Path(name)
        (folder / "in").mkdir()
        shared = options.shared if (options.shared / "data").is_dir() else None
        kinds = make_clips(folder / "in", options.clips, rng, pictures(rng, shared))
        report = soak(folder, kinds, options.seconds)
    growth, files = report.growth_mb(), report.file_growth()
    holds = not report.wrong and not report.unexpected and growth < options.growth_mb and files <= 0
    shown = {**asdict(report), "samples": report.samples[:: max(1, len(report.samples) // 20)]}
    print(json.dumps({**shown, "growth_mb": round(growth, 1), "file_growth": files, "holds": holds}, indent=1))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
