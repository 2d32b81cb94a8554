"""Scores as JSON, as a table for terminals, and as Markdown; the alignment group stands beside every number."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from stf_depth.errors import OutputError
from stf_depth.evaluation.metrics import Measure

__all__ = ["COLUMNS", "Column", "markdown_table", "measure_to_json", "terminal_table", "write_json"]


@dataclass(frozen=True)
class Column:
    """How a metric is shown: heading, digits, whether less is better, and a factor."""

    heading: str
    digits: int = 3
    lower_is_better: bool = True

    def text(self, measure: Measure | None) -> str:
        """The value, or a dash where there is none."""
        if measure is None or math.isnan(measure.value):
            return "-"
        return f"{measure.value:.{self.digits}f}"


COLUMNS: dict[str, Column] = {
    "abs_rel": Column("AbsRel"),
    "rmse": Column("RMSE m"),
    "delta1": Column("delta1", 3, False),
    "delta2": Column("delta2", 3, False),
    "delta3": Column("delta3", 3, False),
    "tae": Column("TAE %", 2),
    "tae_vda": Column("TAE % (as published)", 2),
    "boundary_f1": Column("Boundary F1", 3, False),
    "ause": Column("AUSE", 3),
    "tgm": Column("TGM m", 4),
    "scale_drift": Column("Scale drift", 4),
    "flicker_percent": Column("Flicker %", 2),
    "still_flicker_percent": Column("Flicker %, camera's motion out", 2),
    "opw_abs_rel": Column("OPW (z)", 4),
    "opw_nvds": Column("OPW (NVDS)", 3),
    "flow_scale_drift": Column("Scale drift (flow)", 4),
    "mask_recall": Column("Mask-edge recall", 3, False),
}


def measure_to_json(measure: Measure) -> dict[str, Any]:
    """``{"value": number or null}``, with the reason where there is one."""
    value = None if math.isnan(measure.value) else measure.value
    return {"value": value, "reason": measure.reason} if measure.reason else {"value": value}


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write strict JSON; raises OutputError when the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError("cannot write the scores", where=path, got=error.strerror) from error


Row = tuple[Sequence[str], Mapping[str, Measure]]


def _shown(rows: Iterable[Row]) -> list[str]:
    present = {metric for _, measures in rows for metric in measures}
    return [metric for metric in COLUMNS if metric in present]


def _headings(metrics: Sequence[str]) -> list[str]:
    return [f"{COLUMNS[name].heading} {'↓' if COLUMNS[name].lower_is_better else '↑'}" for name in metrics]


def markdown_table(heads: Sequence[str], rows: Sequence[Row]) -> str:
    """A Markdown table: ``heads`` name the leading cells of each row, then one column for each metric present."""
    metrics = _shown(rows)
    titles = [*heads, *_headings(metrics)]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(heads) + "---:|" * len(metrics)]
    for cells, measures in rows:
        values = [COLUMNS[name].text(measures.get(name)) for name in metrics]
        lines.append("| " + " | ".join([*cells, *values]) + " |")
    return "\n".join(lines) + "\n"


def terminal_table(title: str, heads: Sequence[str], rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The same as text with box lines, and notes and reasons below."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    metrics = _shown(rows)
    # Texts as they are: names may look like markup.
    table = Table(title=Text(title, style="table.title"), title_justify="left")
    for head in heads:
        table.add_column(Text(head))
    for heading in _headings(metrics):
        table.add_column(heading, justify="right")
    for cells, measures in rows:
        table.add_row(*map(Text, [*cells, *(COLUMNS[name].text(measures.get(name)) for name in metrics)]))
    buffer = StringIO()
    console = Console(file=buffer, width=160, color_system=None)
    console.print(table)
    for note in [*notes, *_reasons(rows)]:
        console.print(note, markup=False, emoji=False, highlight=False)
    return buffer.getvalue().rstrip("\n")


def _reasons(rows: Iterable[Row]) -> list[str]:
    found: dict[str, None] = {}
    for cells, measures in rows:
        for name, measure in measures.items():
            if measure.reason and name in COLUMNS:
                found[f"{' '.join(cells)}: {COLUMNS[name].heading}: {measure.reason}"] = None
    return list(found)
