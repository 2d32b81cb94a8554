"""Put the measured figures between the markers of the documents; ``--check`` only says whether they are there.

    python benchmarks/tables.py

All tables are made from benchmarks/results/quality.json:

| markers | document | rows |
|---|---|---|
| quality | README.md, README.ko.md | recorded clips, per frame and fused |
| scenes | docs/fusion.md | every clip: per frame, fused, and fused without segments |
| ablations | docs/fusion.md | every variant of what has been measured with a stage switched off |

A row that was measured at another commit than the fused row of its clip and depth names that commit in the table, and
is told on the terminal: such rows do not compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results" / "quality.json"
GROUP = "affine"
# Metric, heading, digits.
COLUMNS = (
    ("abs_rel", "AbsRel ↓", 3),
    ("delta1", "delta1 ↑", 3),
    ("tae", "TAE % ↓", 2),
    ("boundary_f1", "Boundary F1 ↑", 3),
    ("scale_drift", "Scale drift ↓", 3),
    ("ause", "AUSE ↓", 2),
)
RECORDED = ("redkitchen", "holowalk")
STANDARD = ("sensor", "per frame", "fused", "without segments")
WORDS = {
    "sensor": "the sensor itself",
    "meter": "METER-XXS",
    "fastdepth": "FastDepth",
    "motion": "no network (`motion`)",
    "degraded": "true depth, degraded",
    "mild": "true depth, mildly degraded",
}
KOREAN = {
    "Clip": "영상",
    "Depth": "깊이",
    "Flicker % ↓": "깜빡임 % ↓",
    "Boundary F1 ↑": "경계 F1 ↑",
    "Scale drift ↓": "스케일 드리프트 ↓",
    "sensor": "센서 자체",
    "motion": "신경망 없음 (`motion`)",
    "degraded": "실제 깊이를 열화한 것",
    "mild": "실제 깊이를 조금만 열화한 것",
    "per frame": "프레임별",
    "fused": "융합",
    "commit": "커밋",
}

Row = Mapping[str, Any]
Block = tuple[str, str]


@dataclass(frozen=True)
class Table:
    """A place in a document and the rows that belong there."""

    name: str
    document: Path
    keep: Callable[[Row, Sequence[Row]], bool]
    words: Mapping[str, str] = field(default_factory=dict)
    source: str = (
        "One scale and shift for each clip ({group}). Measured by `{command}` at commit {commits} ({system}, {cores} "
        "CPU cores, Python {python})."
    )
    warning: str = (
        "Rows that name a commit were measured at that one and do not compare exactly with the others of their clip "
        "and depth."
    )

    def markdown(self, content: Mapping[str, Any]) -> str:
        """The table and where it comes from; empty where no row belongs here."""
        rows = [row for row in content["rows"] if "scores" in row and self.keep(row, content["rows"])]
        if not rows:
            return ""
        heads = ["Clip", "Depth", "", *(heading for _, heading, _ in COLUMNS), "Flicker % ↓"]
        lines = ["| " + " | ".join(self.words.get(head, head) for head in heads) + " |"]
        lines.append("|---|---|---|" + "---:|" * (len(heads) - 3))
        apart = incomparable(content)
        lines += [self._line(row, commit_of(row, content) if row in apart else "") for row in rows]
        return "\n".join([*lines, "", self._source(content, rows, apart)])

    def _line(self, row: Row, commit: str) -> str:
        measures = row["scores"]["groups"][GROUP]
        cells = [number(measures.get(name, {}).get("value"), digits) for name, _, digits in COLUMNS]
        variant = "" if row["variant"] == "sensor" else self.words.get(row["variant"], row["variant"])
        variant += f" ({self.words.get('commit', 'commit')} {commit})" if commit else ""
        depth = self.words.get(row["depth"], WORDS[row["depth"]])
        return "| " + " | ".join([row["clip"], depth, variant, *cells, number(row.get("flicker_percent"), 1)]) + " |"

    def _source(self, content: Mapping[str, Any], rows: Sequence[Row], apart: Sequence[Row]) -> str:
        machine = content["environment"]
        source = self.source.format(
            group=GROUP,
            command=content["command"],
            commits=", ".join(dict.fromkeys(commit_of(row, content) for row in rows if row not in apart)),
            system=machine["system"],
            cores=machine["cpu_count"],
            python=machine["python"],
        )
        return f"{source} {self.warning}" if any(row in apart for row in rows) else source


def commit_of(row: Row, content: Mapping[str, Any]) -> str:
    """The commit that a row was measured at."""
    return str(row.get("commit", content["environment"]["commit"]))


def block_of(row: Row) -> Block:
    """The rows of one clip and depth are read against each other."""
    return row["clip"], row["depth"]


def incomparable(content: Mapping[str, Any]) -> list[Row]:
    """Rows measured at another commit than what they are read against: the fused row of their clip and depth."""
    rows = [row for row in content["rows"] if "scores" in row]
    commits = {block_of(row): commit_of(row, content) for row in reversed(rows)}
    commits |= {block_of(row): commit_of(row, content) for row in rows if row["variant"] == "fused"}
    return [row for row in rows if commit_of(row, content) != commits[block_of(row)]]


def warnings(content: Mapping[str, Any]) -> list[str]:
    """A line for each clip, depth and commit of the rows that do not compare."""
    counts = Counter((*block_of(row), commit_of(row, content)) for row in incomparable(content))
    return [
        f"warning: {clip} / {depth}: {count} row(s) of commit {commit} do not compare with the fused one, of another"
        for (clip, depth, commit), count in counts.items()
    ]


def is_recorded(row: Row, _rows: Sequence[Row]) -> bool:
    """Per frame and fused, on recorded clips."""
    return row["clip"] in RECORDED and row["variant"] in ("sensor", "per frame", "fused")


def is_standard(row: Row, _rows: Sequence[Row]) -> bool:
    """What every run measures."""
    return row["variant"] in STANDARD


def is_ablated(row: Row, rows: Sequence[Row]) -> bool:
    """Rows of a clip and depth that have been measured with some stage off."""
    pair = row["clip"], row["depth"]
    return any((other["clip"], other["depth"]) == pair and other["variant"] not in STANDARD for other in rows)


KOREAN_SOURCE = (
    "영상마다 스케일과 시프트 하나씩 ({group}). `{command}`, 커밋 {commits} ({system}, CPU 코어 {cores}개, "
    "Python {python})에서 측정."
)
KOREAN_WARNING = "커밋이 적힌 행은 그 커밋에서 측정한 것이므로, 같은 영상과 깊이의 다른 행과 엄밀히 비교할 수 없음."
TABLES = (
    Table("quality", REPOSITORY / "README.md", is_recorded),
    Table("quality", REPOSITORY / "README.ko.md", is_recorded, KOREAN, KOREAN_SOURCE, KOREAN_WARNING),
    Table("scenes", REPOSITORY / "docs" / "fusion.md", is_standard),
    Table("ablations", REPOSITORY / "docs" / "fusion.md", is_ablated),
)


def number(value: float | None, digits: int) -> str:
    """A dash where a metric has no value."""
    return "-" if value is None else f"{value:.{digits}f}"


def with_table(text: str, name: str, content: str, document: str) -> str:
    """``text`` with everything between the markers of ``name`` replaced; exits when they are not there."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in text or end not in text:
        sys.exit(f"error: no markers {begin} and {end} in {document}")
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end, 1)[1]}"


def rewrite(*, check: bool = False) -> bool:
    """Write every table for which there are rows, or with ``check`` write nothing; True where a document was stale."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    for line in warnings(content):
        print(line, file=sys.stderr)
    stale = False
    for table in TABLES:
        found = table.markdown(content)
        if not found:
            continue
        old = table.document.read_text(encoding="utf-8")
        new = with_table(old, table.name, found, table.document.name)
        stale = stale or new != old
        if not check and new != old:
            table.document.write_text(new, encoding="utf-8")
            print(f"rewrote the table '{table.name}' of {table.document.relative_to(REPOSITORY)}")
    return stale


def main() -> None:
    """Rewrite or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a document is out of date")
    check = parser.parse_args().check
    stale = rewrite(check=check)
    sys.exit(int(check and stale))


if __name__ == "__main__":
    main()
