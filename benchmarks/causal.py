"""What frame-by-frame fusion gains, on the clips and the degraded depth of quality.py.

    python benchmarks/causal.py
    python benchmarks/causal.py --clips forward --frames 8 --results trial      quick; no document changes

Each clip goes through ``run_live`` as a stream would, with no frame of lookahead and with three.

Results go to benchmarks/results/causal.json, and as a table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tables
from measuring import environment, save_with_table
from quality import CLIPS, Scene, rounded
from stf_depth.api import configure
from stf_depth.evaluation.evaluate import score_prediction
from stf_depth.evaluation.predictions import open_prediction
from stf_depth.live import run_live

LOOKAHEADS = (0, 3)
GROUP = "affine"
METRICS = (("abs_rel", 4), ("delta1", 3), ("tae", 2))


def rows_of(clip: Scene, folder: Path) -> Iterator[dict[str, Any]]:
    """The input, and fused with each lookahead."""
    spec = f"precomputed:{clip.degraded}"
    yield {"clip": clip.name, "kind": "per frame", **scores(clip.degraded, clip)}
    for lookahead in LOOKAHEADS:
        options = {"causal.lookahead_frames": lookahead, "video.max_frames": len(clip.truth)}
        config = configure("fast", options, depth=spec)
        result = run_live(str(clip.video), config, folder / f"lookahead-{lookahead}", drop_frames=False)
        yield {"clip": clip.name, "kind": f"causal, lookahead {lookahead}", **scores(result.folder, clip)}


def scores(prediction: Path, clip: Scene) -> dict[str, Any]:
    """Metrics after one scale and shift for the clip; None where one does not apply."""
    groups = score_prediction(open_prediction(prediction), clip.truth).groups
    found = next(metrics for group, metrics in groups.items() if group == GROUP)
    values = {name: found[name].value for name, _ in METRICS if name in found}
    return {name: rounded(values[name]) if math.isfinite(values.get(name, math.nan)) else None for name, _ in METRICS}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table and where it comes from."""
    lines = ["| Clip | | AbsRel ↓ | delta1 ↑ | TAE % ↓ |", "|---|---|" + "---:|" * len(METRICS)]
    for row in rows:
        cells = [tables.number(row[name], digits) for name, digits in METRICS]
        lines.append("| " + " | ".join([row["clip"], row["kind"], *cells]) + " |")
    return "\n".join([*lines, "", "True depth, degraded; measured by `python benchmarks/causal.py`."])


def main() -> None:
    """Measure, save, and put the table where it belongs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", choices=list(CLIPS), default=list(CLIPS))
    parser.add_argument("--frames", type=int, default=None)
    parser.add_argument("--results", default="causal")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.clips:
        with tempfile.TemporaryDirectory() as scratch:
            for row in rows_of(CLIPS[name](name, Path(scratch), arguments.frames), Path(scratch)):
                print(row, flush=True)
                rows.append(row)
    save_with_table(
        arguments.results, "causal", {"environment": environment(), "rows": rows}, "performance.md", markdown(rows)
    )


if __name__ == "__main__":
    main()
