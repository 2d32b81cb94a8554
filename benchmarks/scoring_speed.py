"""Time and memory of scoring one long clip: 1,000 frames of 640x480, streamed from disk.

    python benchmarks/scoring_speed.py

Makes a static clip of random smooth depth in a temporary folder, scores it under one alignment group with every
default metric, and writes benchmarks/results/scoring_speed.json.
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


def make(folder: Path, frames: int) -> tuple[Path, Path]:
    """A sequence folder and a prediction in a Zarr store; files repeat after a few frames."""
    rng = np.random.default_rng(0)
    sequence, store = folder / "sequence", folder / "depth.zarr"
    for name in ("color", "depth"):
        (sequence / name).mkdir(parents=True)
    cv2.imwrite(str(sequence / "color" / "000000.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    group = zarr.open_group(store, mode="w")
    depth = group.create_array("depth", shape=(frames, HEIGHT, WIDTH), chunks=(8, HEIGHT, WIDTH), dtype="f4")
    group.attrs.update({"representation": "disparity", "ambiguity": "affine"})
    for k in range(frames):
        color, truth = sequence / "color" / f"{k:06d}.jpg", sequence / "depth" / f"{k:06d}.png"
        if k:
            os.link(sequence / "color" / "000000.jpg", color)
        if k < DISTINCT:
            metres = cv2.resize(rng.uniform(1, 5, (6, 8)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(truth), np.clip(metres * 1000, 300, 9000).astype(np.uint16))
            noisy = 1 / np.maximum(metres, 0.3) + 0.02 * rng.standard_normal(metres.shape)
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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stf-depth-scoring-") as temporary:
        store, sequence = make(Path(temporary), arguments.frames)
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        scores = score_prediction(
            open_prediction(store), read_sequence(sequence), options=ScoreOptions(workers=arguments.workers)
        )
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    content = {
        "frames": arguments.frames,
        "size": [WIDTH, HEIGHT],
        "workers": arguments.workers,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "peak_memory_mib": round(after.ru_maxrss / 1024),
        "abs_rel": round(scores.value("abs_rel", "affine"), 6),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(content))


if __name__ == "__main__":
    main()
