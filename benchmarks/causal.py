"""What frame-by-frame fusion gains, on the clips of quality.py and their degraded and mildly degraded depth.

    python benchmarks/causal.py
    python benchmarks/causal.py --clips forward --frames 8 --results trial      quick; no document changes

Each clip goes through ``run_live`` as a stream would, with no frame of lookahead and with three.

Results go to benchmarks/results/causal.json after every row, and as a table into docs/performance.md at the end. A
clip's rows replace those that the file has of it; a clip that is not there is left out, and the file says so.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tables
from measuring import RESULTS, environment, save_with_table, write
from quality import ABSENT, CLIPS, Scene, is_there, rounded
from stf_depth.api import configure
from stf_depth.evaluation.evaluate import score_prediction
from stf_depth.evaluation.predictions import open_prediction
from stf_depth.live import run_live

LOOKAHEADS = (0, 3)
GROUP = "affine"
METRICS = (("abs_rel", 4), ("delta1", 3), ("tae", 2), ("boundary_f1", 3))

Rows = list[dict[str, Any]]


def rows_of(clip: Scene, folder: Path) -> Iterator[dict[str, Any]]:
    """Each depth as it is, and fused with each lookahead."""
    for depth, maps in (("degraded", clip.degraded), ("mild", clip.mild)):
        what = {"clip": clip.name, "depth": depth}
        yield {**what, "kind": "per frame", **scores(maps, clip)}
        for lookahead in LOOKAHEADS:
            options = {"causal.lookahead_frames": lookahead, "video.max_frames": len(clip.truth)}
            config = configure("fast", options, depth=f"precomputed:{maps}")
            result = run_live(str(clip.video), config, folder / f"{depth}-{lookahead}", drop_frames=False)
            yield {**what, "kind": f"causal, lookahead {lookahead}", **scores(result.folder, clip)}


def scores(prediction: Path, clip: Scene) -> dict[str, Any]:
    """Metrics after one scale and shift for the clip; None where one does not apply."""
    groups = score_prediction(open_prediction(prediction), clip.truth).groups
    found = next(metrics for group, metrics in groups.items() if group == GROUP)
    values = {name: found[name].value for name, _ in METRICS if name in found}
    return {name: rounded(values[name]) if math.isfinite(values.get(name, math.nan)) else None for name, _ in METRICS}


def read_rows(path: Path) -> Rows:
    """The rows of a results file with their commits; none where there is no file."""
    if not path.is_file():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    commit = content["environment"].get("commit", "unknown")
    return [{"commit": commit, **row} for row in content["rows"] if "depth" in row]


def measured(name: str, frames: int | None) -> Iterator[dict[str, Any]]:
    """The rows of one clip, or one that says that it is not there."""
    if not is_there(name):
        yield {"clip": name, "kind": "", "skipped": ABSENT}
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield from rows_of(CLIPS[name](name, Path(scratch), frames), Path(scratch))


def updated(rows: Rows, own: Rows) -> Rows:
    """``rows`` with ``own``, all of one clip, instead of what they have of it; a clip that was skipped keeps its rows.

    So no clip has rows of two commits.
    """
    skipped, clip = "skipped" in own[0], own[0]["clip"]
    kept = [row for row in rows if skipped or row["clip"] != clip]
    return sorted([*kept, *own], key=lambda row: list(CLIPS).index(row["clip"]))


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table and where it comes from."""
    rows = [row for row in rows if "skipped" not in row]
    lines = [
        "| Clip | Depth | | AbsRel ↓ | delta1 ↑ | TAE % ↓ | Boundary F1 ↑ |",
        "|---|---|---|" + "---:|" * len(METRICS),
    ]
    for row in rows:
        cells = [tables.number(row[name], digits) for name, digits in METRICS]
        lines.append("| " + " | ".join([row["clip"], row["depth"], row["kind"], *cells]) + " |")
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    source = f"True depth, degraded and mildly degraded; measured by `python benchmarks/causal.py` at commit {commits}."
    return "\n".join([*lines, "", source])


def main() -> None:
    """Measure, save, and put the table where it belongs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", choices=list(CLIPS), default=list(CLIPS))
    parser.add_argument("--frames", type=int, default=None)
    parser.add_argument("--results", default="causal")
    arguments = parser.parse_args()
    where = environment()
    rows = read_rows(RESULTS / f"{arguments.results}.json")
    for name in arguments.clips:
        own: Rows = []
        for row in measured(name, arguments.frames):
            print(row, flush=True)
            own.append({**row, "commit": where["commit"], "asked_frames": arguments.frames})
            rows = updated(rows, own)
            write(arguments.results, {"environment": where, "rows": rows})
    save_with_table(arguments.results, "causal", {"environment": where, "rows": rows}, "performance.md", markdown(rows))


if __name__ == "__main__":
    main()
