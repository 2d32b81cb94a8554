"""Export every result below a folder, with the folders mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stf_depth.errors import InputNotFoundError, StfDepthError, UsageError
from stf_depth.export.formats import Existing, Exported, attempt_formats, failures_as_error, parse_formats
from stf_depth.result import DEPTH_STORE, MANIFEST, DepthResult

__all__ = ["attempt_tree", "export_tree", "find_results"]


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

    root may be a result itself, which goes to ``out``. Returns the files by result folder and format. A result or a
    format that fails does not stop the others.

    Raises UsageError at once; at the end the error of what failed, or ExportError where several did.
    """
    done = dict(attempt_tree(root, formats, out, existing=existing, **options))
    errors = {(folder, name): error for folder, one in done.items() for name, error in one.failures.items()}
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        raise failures_as_error(root, {f"{folder}: {name}": error for (folder, name), error in errors.items()})
    return {folder: one.files for folder, one in done.items()}


def attempt_tree(
    root: Path,
    formats: str | Sequence[str],
    out: Path | None = None,
    *,
    existing: Existing = "overwrite",
    **options: Any,
) -> Iterator[tuple[Path, Exported]]:
    """As ``export_tree``, result by result, with what failed in the answer; raises UsageError."""
    names = parse_formats(formats)
    for folder in find_results(root):
        target = None if out is None else out / folder.relative_to(root)
        try:
            yield folder, attempt_formats(DepthResult(folder), names, target, existing=existing, **options)
        except UsageError:
            raise
        except StfDepthError as error:  # of the result as a whole: damaged, or without a way to metres
            yield folder, Exported(failures=dict.fromkeys(names, error))
