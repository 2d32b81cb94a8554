"""``report.html`` of one video: everything inside one file, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from pathlib import Path

from stf_depth.export.files import aside
from stf_depth.report import sections
from stf_depth.report.measures import slices, stability
from stf_depth.report.options import ReportOptions
from stf_depth.report.pictures import Pictures, draw_pictures
from stf_depth.report.sources import open_sources
from stf_depth.result import DepthResult

__all__ = ["document", "write_report"]


def write_report(result: DepthResult, target: Path, options: ReportOptions | None = None) -> Path:
    """Write the report of a finished result and return ``target``.

    What was cleared from the cache is left out, and the page says so. The size is bounded by ``options`` whatever
    the length of the clip. Raises OutputError where the file cannot be written, CacheError for a damaged cache.

    >>> from stf_depth import open_result  # doctest: +SKIP
    >>> write_report(open_result("data/output/clip"), Path("report.html"))  # doctest: +SKIP
    """
    options = options or ReportOptions()
    shots, sources = result.shots, open_sources(result)
    pictures = draw_pictures(sources, shots, options)
    parts = [
        sections.header(result, sources.missing),
        sections.viewer_section(result, pictures),
        sections.slices_section(*slices(sources, shots, options.colormap, options.slice_frames)),
        sections.stability_section(stability(sources, shots, result.pts_seconds, options.max_pairs)),
        sections.shots_section(result),
        sections.camera_section(result),
        sections.segments_section(sources.segments, pictures),
        sections.models_section(result),
        sections.timings_section(result.manifest, len(result)),
        sections.settings_section(result.manifest),
    ]
    page = document(f"{result.name}: STF-Depth report", parts, data=_picture_data(result, pictures))
    with aside(target) as partial:
        partial.write_text(page, encoding="utf-8")
    return target


def document(title: str, parts: list[str], *, data: str | None = None) -> str:
    """A whole page with its style sheet; ``data`` is JSON for the script, which is left out without it."""
    style = _asset("report.css")
    script = _asset("report.js") if data is not None else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    scripts = f"'sha256-{digest}'" if script else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}; base-uri 'none'"
    ending = f'<script type="application/json" id="data">{data}</script>\n<script>{script}</script>' if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>\n{style}</style>\n</head>\n<body>\n'
        "<main>\n" + "\n".join(part for part in parts if part) + f"\n</main>\n{ending}\n</body>\n</html>\n"
    )


def _picture_data(result: DepthResult, pictures: Pictures) -> str:
    values = {
        "frames": pictures.indices,
        "seconds": [round(float(result.pts_seconds[index]), 4) for index in pictures.indices],
        "shots": [[shot.start, shot.stop] for shot in result.shots],
        "layers": {layer.key: {"title": layer.title, "uris": layer.uris} for layer in pictures.layers},
    }
    # No text inside may end the script element.
    return json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (files("stf_depth.report") / "assets" / name).read_text(encoding="utf-8")
