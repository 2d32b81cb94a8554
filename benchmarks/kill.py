"""Kill -9 at random moments of a run, then resume: nothing finished is lost, and the result is the same bytes.

    python benchmarks/kill.py --kills 100 --seed 1

Every round starts ``stf-depth run`` on a small clip in an empty folder and kills it one to three times, each at a
moment drawn uniformly over the time that an undisturbed run takes. Checked after each kill: a manifest that is there
belongs to a whole result. After the last, a run to the end must keep every chunk that was finished (its files are not
written again), leave no unfinished file, and end with the same bytes as an undisturbed run in every file but the two
that hold times (manifest.json, report.html).

Children are forked before anything heavy has started a thread, so that a kill costs no import.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

FRAMES, WH = 40, (160, 96)
TIMED = ("manifest.json", "report.html")
UNFINISHED = re.compile(r"\.partial|\.old-\d+$")


@dataclass
class Report:
    """What was seen over all rounds; every list is empty when all is well."""

    kills: int = 0
    rounds: int = 0
    too_late: int = 0
    chunks_kept: int = 0
    lost_chunks: list[str] = field(default_factory=list)
    corrupt_outputs: list[str] = field(default_factory=list)
    different_results: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    failed_resumes: list[str] = field(default_factory=list)
    kills_by_stage: dict[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether nothing went wrong."""
        wrong = (self.lost_chunks, self.corrupt_outputs, self.different_results, self.leftovers, self.failed_resumes)
        return self.kills > 0 and not any(wrong)


def make_input(folder: Path) -> None:
    """A clip of two shots and noisy depth for it."""
    import numpy as np

    from stf_depth.synthetic import render_clip, scene, write_video

    clip = render_clip(scene("two_shots"), frames=FRAMES, wh=WH)
    write_video(clip, folder / "clip.mp4")
    rng = np.random.default_rng(7)
    shape = (FRAMES, WH[1] // 2, WH[0] // 2)
    depth = (1 / clip.depth[:, ::2, ::2] * rng.uniform(0.9, 1.1, (FRAMES, 1, 1)) + rng.random(shape) * 0.01).astype(
        "f4"
    )
    np.savez(folder / "network.npz", depth=depth, representation="disparity", ambiguity="affine")


def arguments_of(folder: Path) -> list[str]:
    """The arguments of the run, without its folders."""
    video = folder / "clip.mp4"
    arguments = ["run", str(video), "--preset", "offline", "--depth", f"precomputed:{folder / 'network.npz'}"]
    return [*arguments, "--set", f"video.working_long_side_px={WH[0]}", "--inference-pickle", "--quiet"]


def fork(work: Callable[[], int | None]) -> int:
    """Do work in a child; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        code = work() or 0
    finally:
        os._exit(code)


def start(arguments: list[str], out: Path) -> int:
    """Fork a run into ``out``; returns its process id."""

    def run() -> int:
        from stf_depth.cli.main import main

        with (out / "child.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            return main([*arguments, "--output-dir", str(out / "o"), "--working-dir", str(out / "w")])

    return fork(run)


def finish(child: int) -> int:
    """Wait for a run; its exit code, negative when a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(out: Path) -> dict[str, str]:
    """Digest of every result file that holds no times, by relative path."""
    files = [path for top in ("o", "w") for path in (out / top).rglob("*") if path.is_file()]
    kept = [path for path in files if path.name not in (*TIMED, ".lock")]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def finished_chunks(out: Path) -> dict[str, int]:
    """Marker of every finished chunk -> time at which it was written."""
    markers = [path for path in out.rglob("done/*.json") if path.stem.isdecimal()]
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in markers}


def stage_of(out: Path) -> str:
    """How far a killed run had come."""
    working = out / "w" / "clip"
    record = working / "images.json"
    if record.is_file() and json.loads(record.read_text()):  # it is empty while the images are written
        return "exports"
    if (out / "o" / "clip" / "manifest.json").is_file():
        return "images"
    if list((out / "o").rglob("done/*.json")):
        return "fusion"
    for stage, sign in (("structure", "structure-*/done/*.json"), ("camera", "camera-*/*.npz")):
        if list((working / "cache").glob(sign)):
            return stage
    return "inference" if list(working.rglob("done/*.json")) else "start"


def check_manifest(out: Path, whole: dict[str, str], report: Report, label: str) -> None:
    """A manifest says that the depth is whole: then it must be."""
    if not (out / "o" / "clip" / "manifest.json").is_file():
        return
    store = {name: digest for name, digest in whole.items() if "depth.zarr" in name}
    found = {name: digest for name, digest in contents(out).items() if name in store}
    if found != store:
        report.corrupt_outputs.append(label)


def one_round(arguments: list[str], out: Path, whole: dict[str, str], seconds: float, rng: random.Random) -> Report:
    """Kill one to three times, resume, and compare."""
    report = Report(rounds=1)
    out.mkdir()
    for attempt in range(rng.randint(1, 3)):
        child = start(arguments, out)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        if finish(child) != -signal.SIGKILL:
            report.too_late += 1
            continue
        report.kills += 1
        stage = stage_of(out)
        report.kills_by_stage[stage] = report.kills_by_stage.get(stage, 0) + 1
        check_manifest(out, whole, report, f"{out.name} kill {attempt} in {stage}")
    before = finished_chunks(out)
    code = finish(start(arguments, out))
    if code != 0:
        report.failed_resumes.append(f"{out.name}: exit {code}: {(out / 'child.log').read_text()[-500:]}")
        return report
    after = finished_chunks(out)
    report.chunks_kept += len(before)
    report.lost_chunks += [f"{out.name}: {name}" for name, when in before.items() if after.get(name) != when]
    found = contents(out)
    names = sorted(name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name))
    report.different_results += [f"{out.name}: {name}" for name in names]
    report.leftovers += [str(path) for path in out.rglob("*") if UNFINISHED.search(path.name)]
    return report


def add(total: Report, one: Report) -> None:
    """Add the counts and findings of a round to the total."""
    for name, value in asdict(one).items():
        if isinstance(value, dict):
            stages = getattr(total, name)
            for stage, count in value.items():
                stages[stage] = stages.get(stage, 0) + count
        else:
            setattr(total, name, getattr(total, name) + value)


def measure(kills: int, seed: int, folder: Path, *, seconds_at_most: float) -> Report:
    """Rounds until ``kills`` runs have been killed or the time is up."""
    import stf_depth.api
    import stf_depth.cli.main
    import stf_depth.fusion.shot
    import stf_depth.report  # noqa: F401

    gc.freeze()
    # The input too is made by a child: libraries that have started threads do not survive a fork.
    finish(fork(lambda: make_input(folder)))
    arguments = arguments_of(folder)
    rng = random.Random(seed)
    (folder / "whole").mkdir()
    finish(start(arguments, folder / "whole"))
    (folder / "whole2").mkdir()
    began = time.monotonic()
    finish(start(arguments, folder / "whole2"))
    seconds = time.monotonic() - began
    whole, again = contents(folder / "whole"), contents(folder / "whole2")
    if whole != again or not whole:
        names = sorted(name for name in whole.keys() | again.keys() if whole.get(name) != again.get(name))
        raise SystemExit(
            f"two undisturbed runs differ in {names[:5]}: {(folder / 'whole/child.log').read_text()[-500:]}"
        )
    total = Report()
    while total.kills < kills and time.monotonic() - began < seconds_at_most:
        add(total, one_round(arguments, folder / f"round{total.rounds:03d}", whole, seconds, rng))
    return total


def main() -> int:
    """Run and print the report as JSON; exit code 0 when all holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1800.0, help="stop after this time, with fewer kills")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stf-depth-kill-") as folder:
        report = measure(options.kills, options.seed, Path(folder), seconds_at_most=options.seconds)
    print(json.dumps({**asdict(report), "holds": report.holds}, indent=1))
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
