"""Put the measured figures between the markers of the documents; ``--check`` only says whether they are there.

    python benchmarks/tables.py

| results | document |
|---|---|
| benchmarks/results/quality.json | README.md |
| benchmarks/results/ablations.json | docs/evaluation.md |
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
DOCUMENTS = {"quality": REPOSITORY / "README.md", "ablations": REPOSITORY / "docs" / "evaluation.md"}
GROUP = "affine"
# Metric, heading, digits.
COLUMNS = (
    ("abs_rel", "AbsRel ↓", 3),
    ("delta1", "delta1 ↑", 3),
    ("tae", "TAE % ↓", 2),
    ("boundary_f1", "Boundary F1 ↑", 3),
    ("scale_drift", "Scale drift ↓", 3),
)
DEPTHS = {
    "sensor": "the sensor itself",
    "meter": "METER-XXS",
    "fastdepth": "FastDepth",
    "motion": "no network (`motion`)",
    "degraded": "true depth, degraded",
}


def table(content: dict[str, Any]) -> str:
    """Markdown of one results file."""
    heads = ["Clip", "Depth", "", *(heading for _, heading, _ in COLUMNS), "Flicker % ↓"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|" + "---:|" * (len(heads) - 3)]
    for row in content["rows"]:
        if "skipped" in row:
            lines.append(f"| {row['clip']} | {row['skipped']} |" + " |" * (len(heads) - 2))
            continue
        measures = row["scores"]["groups"][GROUP]
        cells = [number(measures.get(name, {}).get("value"), digits) for name, _, digits in COLUMNS]
        first = [row["clip"], DEPTHS[row["depth"]], "" if row["variant"] == "sensor" else row["variant"]]
        lines.append("| " + " | ".join([*first, *cells, number(row.get("flicker_percent"), 1)]) + " |")
    return "\n".join([*lines, "", source(content)])


def source(content: dict[str, Any]) -> str:
    """How the figures came about."""
    machine = content["environment"]
    return (
        f"One scale and shift for each clip ({GROUP}). Measured by `{content['command']}` ({machine['system']}, "
        f"{machine['cpu_count']} CPU cores, Python {machine['python']})."
    )


def number(value: float | None, digits: int) -> str:
    """A dash where a metric has no value."""
    return "-" if value is None else f"{value:.{digits}f}"


def with_table(text: str, name: str, content: str) -> str:
    """``text`` with everything between the markers of ``name`` replaced; exits when they are not there."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in text or end not in text:
        sys.exit(f"error: no markers {begin} and {end} in {DOCUMENTS[name].name}")
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end, 1)[1]}"


def main() -> None:
    """Rewrite or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a document is out of date")
    check = parser.parse_args().check
    stale = False
    for name, document in DOCUMENTS.items():
        results = RESULTS / f"{name}.json"
        if not results.is_file():
            continue
        old = document.read_text(encoding="utf-8")
        new = with_table(old, name, table(json.loads(results.read_text(encoding="utf-8"))))
        stale = stale or new != old
        if not check:
            document.write_text(new, encoding="utf-8")
    sys.exit(int(check and stale))


if __name__ == "__main__":
    main()
