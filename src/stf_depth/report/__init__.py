"""``report.html``: one self-contained page for each video, and an index for a run."""

from __future__ import annotations

from stf_depth.report.index import INDEX_PAGE, finished_results, is_foreign_page, write_index
from stf_depth.report.options import ReportOptions
from stf_depth.report.page import write_report

__all__ = ["INDEX_PAGE", "ReportOptions", "finished_results", "is_foreign_page", "write_index", "write_report"]
