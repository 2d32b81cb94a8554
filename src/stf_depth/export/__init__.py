"""Finished depth in the formats of other tools."""

from __future__ import annotations

from stf_depth.export.formats import FORMATS, Format, export_result, failures_as_error, parse_formats, remove_exports
from stf_depth.export.tree import attempt_tree, export_tree

__all__ = [
    "FORMATS",
    "Format",
    "attempt_tree",
    "export_result",
    "export_tree",
    "failures_as_error",
    "parse_formats",
    "remove_exports",
]
