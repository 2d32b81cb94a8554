"""Export every result below a folder, with the folders mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stf_depth.errors import InputNotFoundError
from stf_depth.export.formats import Existing, export_result, parse_formats
from stf_depth.result import DEPTH_STORE, MANIFEST, DepthResult

__all__ = ["export_tree", "find_results"]


def find_results(root: Path) -> list[Path]:
    """Finished result folders at or below ``root``, in order of their paths.

    Raises InputNotFoundError where there is none.
    """
    found = sorted(manifest.parent for manifest in root.rglob(MANIFEST) if (manifest.parent / DEPTH_STORE).is_dir())
    if not found:
        raise InputNotFoundError("no depth result", where=root, hint="Run: stf-depth run INPUT")
    return found


def export_tree(
    root: Path,
    formats: str | Sequence[str],
    out: Path | None = None,
    *,
    existing: Existing = "overwrite",
    **options: Any,
) -> dict[Path, dict[str, list[Path]]]:
    """``export_result`` for every result below ``root``: that of ``root/a/b`` goes to ``out/a/b``.

    root may be a result itself, which goes to ``out``. Returns the files by result folder and format. Raises as
    ``export_result`` does, at the first result that fails; what was written before stays.
    """
    names = parse_formats(formats)
    written = {}
    for folder in find_results(root):
        target = None if out is None else out / folder.relative_to(root)
        written[folder] = export_result(DepthResult(folder), names, target, existing=existing, **options)
    return written
