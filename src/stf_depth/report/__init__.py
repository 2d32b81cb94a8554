"""``report.html``: one self-contained page for each video, and an index for a run."""

from __future__ import annotations

from stf_depth.report.index import write_index
from stf_depth.report.options import ReportOptions
from stf_depth.report.page import write_report

__all__ = ["ReportOptions", "write_index", "write_report"]
