"""``report.html``: a self-contained page about the result."""

from __future__ import annotations

from pathlib import Path

from stf_depth.report.options import ReportOptions as Options
from stf_depth.report.page import write_report
from stf_depth.result import DepthResult

__all__ = ["Options", "export"]


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write the page; see ``stf_depth.report.write_report``."""
    return [write_report(result, target, options)]
