"""Time and memory of scoring one long clip: 1,000 frames of 640x480, streamed from disk.

    python benchmarks/scoring_speed.py
    python benchmarks/scoring_speed.py --ambiguity metric          three alignment groups instead of one

Makes a clip of smooth walls with boxes before them and holes as a depth camera leaves them, in a temporary folder,
scores a noisy prediction of it with every default metric, and writes benchmarks/results/scoring_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import zarr

from stf_depth.evaluation.evaluate import ScoreOptions, score_prediction
from stf_depth.evaluation.predictions import open_prediction
from stf_depth.evaluation.sequences import read_sequence

RESULTS = Path(__file__).resolve().parent / "results" / "scoring_speed.json"
HEIGHT, WIDTH = 480, 640
DISTINCT = 16


def surface(rng: np.random.Generator) -> np.ndarray:
    """Depth (H, W) in metres: a bent wall and a few boxes."""
    metres = cv2.resize(rng.uniform(2, 5, (6, 8)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for left, top in rng.integers(0, (WIDTH - 160, HEIGHT - 160), (5, 2)):
        metres[top : top + 160, left : left + 160] *= rng.uniform(0.5, 0.9)
    return np.clip(metres, 0.4, 9.0)


def make(folder: Path, frames: int, ambiguity: str = "affine") -> tuple[Path, Path]:
    """A sequence folder and a prediction in a Zarr store; files repeat after a few frames."""
    rng = np.random.default_rng(0)
    sequence, store = folder / "sequence", folder / "depth.zarr"
    for name in ("color", "depth"):
        (sequence / name).mkdir(parents=True)
    cv2.imwrite(str(sequence / "color" / "000000.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    group = zarr.open_group(store, mode="w")
    depth = group.create_array("depth", shape=(frames, HEIGHT, WIDTH), chunks=(8, HEIGHT, WIDTH), dtype="f4")
    group.attrs.update({"representation": "disparity", "ambiguity": ambiguity})
    for k in range(frames):
        color, truth = sequence / "color" / f"{k:06d}.jpg", sequence / "depth" / f"{k:06d}.png"
        if k:
            os.link(sequence / "color" / "000000.jpg", color)
        if k < DISTINCT:
            metres = surface(rng)
            known = cv2.resize(rng.random((24, 32)), (WIDTH, HEIGHT)) > 0.25
            cv2.imwrite(str(truth), np.where(known, metres * 1000, 0).astype(np.uint16))
            noisy = (1 + 0.02 * rng.standard_normal(metres.shape)) / metres
            depth[k] = noisy.astype(np.float32)
        else:
            os.link(sequence / "depth" / f"{k % DISTINCT:06d}.png", truth)
            depth[k] = depth[k % DISTINCT]
    poses = np.stack([np.eye(4)] * frames)
    poses[:, 0, 3] = 0.001 * np.arange(frames)
    np.savetxt(sequence / "poses.txt", poses.reshape(frames, 16))
    np.savetxt(sequence / "intrinsics.txt", [[528, 0, 320], [0, 528, 240], [0, 0, 1]])
    return store, sequence


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ambiguity", choices=["affine", "scale", "metric"], default="affine")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stf-depth-scoring-") as temporary:
        store, sequence = make(Path(temporary), arguments.frames, arguments.ambiguity)
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        scores = score_prediction(
            open_prediction(store), read_sequence(sequence), options=ScoreOptions(workers=arguments.workers)
        )
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    content = {
        "frames": arguments.frames,
        "size": [WIDTH, HEIGHT],
        "workers": arguments.workers,
        "groups": [group.value for group in scores.groups],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "peak_memory_mib": round(after.ru_maxrss / 1024),
        **{name: round(scores.value(name, "affine"), 6) for name in ("abs_rel", "tae", "boundary_f1")},
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(content))


if __name__ == "__main__":
    main()
