"""Damaged containers, each read in a process of its own: an error of this package, or frames, and never anything else.

    python benchmarks/fuzz_containers.py --count 1000 --seed 1

Small clips of several containers and codecs are cut, overwritten, shuffled, lengthened and joined at random. A reader
that dies by a signal, hangs, raises what is no error of this package, or gives no frames of RGB bytes is
a finding: the input is kept beside the temporary files and named in the report.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np

from stf_depth.errors import StfDepthError
from stf_depth.video.reader import open_video

KINDS = [
    (".mp4", "libx264", "yuv420p"),
    (".mkv", "ffv1", "yuv420p"),
    (".avi", "mpeg4", "yuv420p"),
    (".mov", "png", "rgb24"),
    (".webm", "libvpx", "yuv420p"),
    (".ts", "mpeg2video", "yuv420p"),
    (".gif", "gif", "rgb8"),
]
FRAMES, WH = 8, (64, 48)
SECONDS = 60  # a reader that takes longer over some kilobytes hangs
CODES = {0: "read", 1: "refused", 2: "another error", 3: "no frames"}


def make_seeds(folder: Path) -> list[Path]:
    """One small clip of every kind."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (FRAMES, WH[1], WH[0], 3)).astype(np.uint8)
    paths = [folder / f"seed{suffix}" for suffix, _, _ in KINDS]
    for path, (_, codec, pixels) in zip(paths, KINDS, strict=True):
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = *WH, pixels
            for image in images:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return paths


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to eight changes: bytes, lengths, cuts, repetitions, and pieces of other containers."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        # Headers are where parsers are, so half of the changes are near an end.
        near = rng.choice([64, 1024, len(content)])
        place = rng.randrange(max(1, min(near, len(content))))
        place = place if rng.random() < 0.6 else max(0, len(content) - 1 - place)
        length = rng.choice([1, 1, 2, 4, 8, 64, 500])
        change = rng.randrange(6)
        if change == 0:
            content[place : place + length] = rng.randbytes(length)
        elif change == 1:
            content[place : place + 4] = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1]).to_bytes(4, "big")
        elif change == 2:
            del content[place : place + length]
        elif change == 3:
            content[place:place] = content[place : place + length] * rng.randint(1, 4)
        elif change == 4:
            piece = rng.choice(others)
            start = rng.randrange(len(piece))
            content[place:place] = piece[start : start + length]
        else:
            del content[max(1, place) :]
    return bytes(content)


def read_all(path: Path) -> int:
    """Read a file to its end; a key of CODES."""
    try:
        with open_video(path, max_frames=200) as reader:
            for batch in reader.batches(4):
                if batch.rgb.dtype != np.uint8 or batch.rgb.ndim != 4 or batch.rgb.shape[3] != 3:
                    return 3
    except StfDepthError:
        return 1
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    return 0


def apart(path: Path) -> str:
    """Read a file in a child; what became of it."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        code = 2
        try:
            code = read_all(path)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code >= 0:
        return CODES.get(code, "another error")
    return "hung" if code == -signal.SIGALRM else f"died by {signal.Signals(-code).name}"


def fuzz(folder: Path, count: int, seconds: float, rng: random.Random) -> tuple[Counter[str], list[str]]:
    """Outcomes of the inputs, and the paths of those that are findings."""
    seeds = [(path.suffix, path.read_bytes()) for path in make_seeds(folder)]
    others = [data for _, data in seeds]
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    began = time.monotonic()
    while outcomes.total() < count and time.monotonic() - began < seconds:
        suffix, data = rng.choice(seeds)
        path = folder / f"input{suffix}"
        path.write_bytes(mutated(data, others, rng))
        outcome = apart(path)
        outcomes[outcome] += 1
        if outcome not in ("read", "refused"):
            findings.append(f"{outcome}: {path.rename(kept(suffix, len(findings)))}")
    return outcomes, findings


def kept(suffix: str, number: int) -> Path:
    """Where the input of a finding is kept."""
    return Path(tempfile.mkdtemp(prefix="stf-depth-finding-")) / f"{number}{suffix}"


def main() -> int:
    """Run and print the report as JSON; exit code 0 without findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0, help="stop after this time, with fewer inputs")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stf-depth-containers-") as folder:
        outcomes, findings = fuzz(Path(folder), options.count, options.seconds, random.Random(options.seed))
    print(json.dumps({"inputs": outcomes.total(), "outcomes": outcomes, "findings": findings}, indent=1))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
