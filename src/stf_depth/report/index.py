"""``index.html`` of an output folder: one card for each result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from stf_depth.errors import OutputError, StfDepthError
from stf_depth.export.files import aside
from stf_depth.ordering import natural_key
from stf_depth.report.markup import number, paragraph
from stf_depth.report.options import ReportOptions
from stf_depth.report.page import document
from stf_depth.report.pictures import ShownDepth, data_uri, fit_wh
from stf_depth.report.sources import open_sources
from stf_depth.result import DEPTH_STORE, MANIFEST, DepthResult
from stf_depth.video.discover import INDEX_PAGE

__all__ = ["INDEX_PAGE", "finished_results", "is_foreign_page", "write_index"]

_THUMBNAIL_PX = 320
_TITLE = "STF-Depth results"
# A page of ours says so before its style sheet begins.
_HEAD_BYTES = 2048
REPORT = "report.html"


def finished_results(folder: Path) -> list[DepthResult]:
    """The finished results that lie in an output folder, in natural order of their names."""
    found = [path for path in folder.iterdir() if (path / MANIFEST).is_file() and (path / DEPTH_STORE).is_dir()]
    return [DepthResult(path) for path in sorted(found, key=lambda path: natural_key(path.name))]


def is_foreign_page(target: Path) -> bool:
    """Whether something lies at ``target`` that ``write_index`` has not written."""
    if not target.is_file():
        return target.exists() or target.is_symlink()
    with target.open("rb") as file:
        return f"<title>{_TITLE}</title>".encode() not in file.read(_HEAD_BYTES)


def write_index(results: Sequence[DepthResult], target: Path, options: ReportOptions | None = None) -> Path:
    """Write a page with a picture, the main facts and a link to the report of every result; returns ``target``.

    Links are relative, so that a whole output folder can be moved. Raises OutputError where the file cannot be
    written, or something else lies in its place.
    """
    if is_foreign_page(target):
        raise OutputError("a page that no run has written lies here", where=target, hint="Move it away, or leave it")
    options = options or ReportOptions()
    cards = "".join(_card(result, target.parent, options) for result in results)
    count = f"{len(results)} video{'' if len(results) == 1 else 's'}"
    head = f'<header><p class="kicker">STF-Depth</p><h1>Results</h1>{paragraph(count, "meaning")}</header>'
    page = document(_TITLE, [head, f'<div class="cards">{cards}</div>'])
    with aside(target) as partial:
        partial.write_text(page, encoding="utf-8")
    return target


def _card(result: DepthResult, folder: Path, options: ReportOptions) -> str:
    try:
        return _readable_card(result, folder, options)
    except StfDepthError:  # of an earlier run: it is no reason to have no page
        return f'<article class="card"><h2>{escape(result.name)}</h2><p>This result is damaged.</p></article>'


def _readable_card(result: DepthResult, folder: Path, options: ReportOptions) -> str:
    fused = ShownDepth(open_sources(result).fused, result.shots, options.colormap)
    picture = data_uri(fused.picture(len(result) // 2, fit_wh(result.depth.shape, _THUMBNAIL_PX)))
    flicker = result.manifest.get("flicker_percent", {})
    shots = f"{len(result.shots)} shot{'' if len(result.shots) == 1 else 's'}"
    facts = f"{len(result)} frames, {shots}, {result.representation.value} ({result.ambiguity.value})"
    change = f"Flicker {number(flicker.get('per_frame'))} → {number(flicker.get('fused'), 2, '%')}" if flicker else ""
    fallback = any(shot.get("fallback") for shot in result.manifest["shots"])
    label = '<span class="label">Fallback</span>' if fallback else ""
    content = f'<img alt="" src="{picture}"><h2>{escape(result.name)} {label}</h2><p>{facts}</p><p>{change}</p>'
    if not (result.folder / REPORT).is_file():
        return f'<article class="card">{content}<p>No report was written.</p></article>'
    link = quote(Path(os.path.relpath(result.folder / REPORT, folder)).as_posix())
    return f'<a class="card" href="{link}">{content}</a>'
