"""Open a result, or a saved recording, in the rerun viewer."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stf_depth.errors import InputNotFoundError, MissingExtraError, OutputError
from stf_depth.export.files import aside
from stf_depth.export.formats import FORMATS, export_result
from stf_depth.result import DepthResult

__all__ = ["view"]


def view(result: DepthResult | Path | str, *, save: Path | None = None, **options: Any) -> Path:
    """Show RGB, depth, segments, points and camera, synchronised; returns the recording's path.

    result: a result, its folder, or a saved ``.rrd``, which needs neither the models nor the source. save: write the
    recording there and open nothing. options: those of the rrd export.

    Raises InputNotFoundError for a path that is neither, OutputError where no window can be opened, MissingExtraError
    without rerun.
    """
    if find_spec("rerun") is None:
        raise MissingExtraError.of("rerun-sdk", "view")
    recording = _recording(result, save, options)
    if save is None:
        _open(recording)
    return recording


def _recording(result: DepthResult | Path | str, save: Path | None, options: dict[str, Any]) -> Path:
    if not isinstance(result, DepthResult):
        path = Path(result)
        if path.suffix == ".rrd":
            return _saved(path, save)
        result = DepthResult(path)
    if save is None:
        return export_result(result, "rrd", **options)["rrd"][0]
    form = FORMATS["rrd"]
    return form.exporter()(result, save, form.options_type().of(options))[0]


def _saved(path: Path, save: Path | None) -> Path:
    if not path.is_file():
        raise InputNotFoundError(
            "no such recording", where=path, hint="Make one: stf-depth view RESULT --save FILE.rrd"
        )
    if save is None or save.resolve() == path.resolve():
        return path
    with aside(save) as partial:
        partial.write_bytes(path.read_bytes())
    return save


def _open(recording: Path) -> None:
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise OutputError(
            "no display to open a window on",
            where=recording,
            hint="The recording is written: open it elsewhere with rerun, or choose --save FILE.rrd",
        )
    subprocess.run([sys.executable, "-m", "rerun", str(recording)], check=True)
