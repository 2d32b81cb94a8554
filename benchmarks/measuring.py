"""What the benchmarks share: clips of any length, clocks, peak memory, where figures come from, results."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

import tables
from stf_depth.synthetic import SyntheticClip, degrade, render_clip, scene
from stf_depth.video.writer import VideoWriter

RESULTS = Path(os.environ.get("STF_DEPTH_RESULTS", Path(__file__).resolve().parent / "results"))
PACKAGES = (
    "stf-depth",
    "av",
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "pycolmap",
    "ray",
    "scipy",
    "torch",
    "zarr",
)
UNIQUE_FRAMES = 40


class StageTimes:
    """A reporter that keeps wall and processor seconds of every stage, and when the first one began."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self.began = time.perf_counter()
        self.first_stage: float | None = None
        self.frames = 0
        self._open: tuple[str, float, float] | None = None

    def stage(self, video: str, stage: str, total: int | None) -> None:
        del video, total
        self.close()
        self._open = stage, time.perf_counter(), time.process_time()
        if self.first_stage is None:
            self.first_stage = time.perf_counter()

    def advance(self, frames: int) -> None:
        self.frames += frames

    def message(self, video: str, text: str) -> None:
        del video, text

    def close(self) -> None:
        """End the stage that is running."""
        if self._open is not None:
            stage, wall, cpu = self._open
            entry = self.stages.setdefault(stage, {"wall_seconds": 0.0, "cpu_seconds": 0.0})
            entry["wall_seconds"] += time.perf_counter() - wall
            entry["cpu_seconds"] += time.process_time() - cpu
            self._open = None

    def per_frame(self, frames: int) -> dict[str, dict[str, float]]:
        """Milliseconds a frame of every stage."""
        return {
            stage: {name.replace("seconds", "ms"): round(1000 * value / frames, 2) for name, value in entry.items()}
            for stage, entry in self.stages.items()
        }


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile of per-frame seconds, in milliseconds."""
    values = 1000 * np.asarray(seconds)
    return {"median_ms": round(float(np.median(values)), 2), "p95_ms": round(float(np.percentile(values, 95)), 2)}


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux; ru_maxrss begins there with the peak of the process that started this one.
        lines = status.read_text(encoding="utf-8").splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def peak_device_memory_mb() -> float | None:
    """Most memory that tensors held on the GPU since the start of this process, in MiB; None without a GPU."""
    import torch

    return round(torch.cuda.max_memory_allocated() / (1 << 20), 1) if torch.cuda.is_available() else None


def environment() -> dict[str, Any]:
    """Where, when and of which commit figures are taken; the load says how many others wanted the processor.

    Called before anything is measured: what has been changed by the end is not what was measured.
    """
    import torch

    model = next((line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")), "")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu": model or platform.processor(),
        "cpu_count": os.cpu_count(),
        "gpu": gpu,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "threads": {"torch": torch.get_num_threads(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")},
        "packages": {name: _version(name) for name in PACKAGES},
    }


def commit() -> str:
    """The commit of the sources, ending in ``-dirty`` where they have been changed since; unknown outside of git."""
    changed = _git("status", "--porcelain", "--", "src", "benchmarks/*.py", "pyproject.toml")
    found = _git("rev-parse", "--short", "HEAD")
    return found + ("-dirty" if changed else "") if found else "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(tables.REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


class Clip(NamedTuple):
    """A video, and the specs of its unsteady precomputed disparity and of its exact segments."""

    video: Path
    depth: str
    panoptic: str


def make_clip(folder: Path, frames: int, wh: tuple[int, int], *, name: str = "clip", scene_name: str = "room") -> Clip:
    """A rendered scene, forth and back, of any length: the maps are links to a few files, and take little disk."""
    unique = min(frames, UNIQUE_FRAMES)
    clip = render_clip(scene(scene_name), unique, wh)
    maps = degrade(clip.depth[:, ::4, ::4], 0)
    order = [*range(unique), *range(unique - 2, 0, -1)] or [0]
    originals, links, masks = (folder / f"{name}_{kind}" for kind in ("maps_once", "maps", "masks"))
    write_segments(clip, originals)
    for index, disparity in enumerate(maps.depth):
        np.save(originals / f"{index:06d}.npy", disparity)
    for target in (links, masks):
        target.mkdir()
    os.link(originals / "roles.json", masks / "roles.json")
    path = folder / f"{name}.mp4"
    with VideoWriter(path, wh=wh, frame_rate=Fraction(30)) as writer:
        for index in range(frames):
            shown = order[index % len(order)]
            writer.write(clip.rgb[shown : shown + 1], np.array([index / 30]))
            os.link(originals / f"{shown:06d}.npy", links / f"{index:06d}.npy")
            os.link(originals / f"{shown:06d}.png", masks / f"{index:06d}.png")
    return Clip(path, f"precomputed:{links}?representation=disparity&ambiguity=affine", f"precomputed:{masks}")


def write_segments(clip: SyntheticClip, target: Path) -> str:
    """Segments and roles as they are, one PNG a frame in a folder that is made; returns the spec."""
    target.mkdir(parents=True, exist_ok=True)
    for frame, labels in enumerate(clip.labels):
        cv2.imwrite(str(target / f"{frame:06d}.png"), labels.astype(np.uint8))
    roles = {number: {"name": info.name, "role": info.role.name.lower()} for number, info in clip.segments.items()}
    (target / "roles.json").write_text(json.dumps(roles), encoding="utf-8")
    return f"precomputed:{target}"


def parse_wh(text: str) -> tuple[int, int]:
    """``"640x360"`` as numbers."""
    width, height = (int(side) for side in text.split("x"))
    return width, height


def save_with_table(name: str, own: str, results: dict[str, Any], document: str, content: str) -> None:
    """``save``, and the table ``own`` of a document in docs/ rewritten, unless the results are a trial's."""
    save(name, results)
    if name == own:
        path = tables.REPOSITORY / "docs" / document
        path.write_text(tables.with_table(path.read_text(encoding="utf-8"), own, content, document), encoding="utf-8")


def save(name: str, results: dict[str, Any]) -> None:
    """Print the results and write them beside the others."""
    sys.stdout.write(write(name, results))


def write(name: str, results: dict[str, Any]) -> str:
    """Write the results beside the others; returns the text of the file."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")
    return text
