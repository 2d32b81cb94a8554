"""Time and memory of DPT-Large on this CPU, from a full-size checkpoint with random weights.

    python benchmarks/dpt_large_cpu.py --frames 3 --size 640x360 --precision float32

Random weights cost what the published ones cost. The checkpoint is written by another process, so that the peak
memory printed here is that of loading and running alone. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MAKE = """
import sys, torch, transformers
transformers.utils.logging.disable_progress_bar()
torch.manual_seed(0)
config = transformers.DPTConfig(
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, image_size=384,
    patch_size=16, is_hybrid=False, backbone_out_indices=[5, 11, 17, 23],
    neck_hidden_sizes=[256, 512, 1024, 1024], fusion_hidden_size=256,
)
transformers.DPTForDepthEstimation(config).save_pretrained(sys.argv[1])
"""


def main() -> None:
    """Make the checkpoint, run it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--size", default="640x360", help="WxH of the frames")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    frames = np.random.default_rng(0).integers(0, 256, (arguments.frames, height, width, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", MAKE, folder], check=True)
        print(json.dumps(measure(Path(folder), frames, arguments.precision)))


def measure(folder: Path, frames: np.ndarray, precision: str) -> dict[str, object]:
    """Run ``hf:<folder>`` on frames (N, H, W, 3); the first frame, which loads the network, is timed apart."""
    import torch

    from stf_depth.perception.registry import create

    started = time.perf_counter()
    backend = create("depth", f"hf:{folder}", device="cpu", precision=precision)
    found = time.perf_counter()
    first = backend.infer(frames[:1])
    loaded = time.perf_counter()
    seconds = []
    for number in range(len(frames)):
        begin = time.perf_counter()
        backend.infer(frames[number : number + 1])
        seconds.append(time.perf_counter() - begin)
    return {
        "checkpoint_mb": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6),
        "frame_wh": [frames.shape[2], frames.shape[1]],
        "depth_wh": [first.depth.shape[2], first.depth.shape[1]],
        "precision": precision,
        "threads": torch.get_num_threads(),
        "find_and_digest_seconds": round(found - started, 2),
        "load_and_first_frame_seconds": round(loaded - found, 2),
        "median_frame_seconds": round(float(np.median(seconds)), 2),
        "frame_seconds": [round(value, 2) for value in seconds],
        # Linux counts kilobytes.
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


if __name__ == "__main__":
    main()
