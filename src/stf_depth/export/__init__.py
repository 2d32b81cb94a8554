"""Finished depth in the formats of other tools."""

from __future__ import annotations

from stf_depth.export.formats import FORMATS, Format, export_result, parse_formats, remove_exports
from stf_depth.export.tree import export_tree

__all__ = ["FORMATS", "Format", "export_result", "export_tree", "parse_formats", "remove_exports"]
