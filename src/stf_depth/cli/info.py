"""``stf-depth models``, ``cache`` and ``doctor``."""

from __future__ import annotations

import json
import platform
import shutil
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from stf_depth.cli.common import table_of

if TYPE_CHECKING:
    from stf_depth.pipeline.plan import VideoFolders

__all__ = ["cache", "doctor", "models"]

_EXTRAS = {"onnx": "onnxruntime", "export": "OpenEXR", "view": "rerun", "app": "gradio", "ray": "ray"}


def models(
    task: Annotated[str | None, typer.Argument(help="depth, semantic, panoptic or flow; all when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List every backend with its licence, size, units and whether it is here already."""
    from stf_depth.errors import ConfigError
    from stf_depth.perception.registry import models_table
    from stf_depth.perception.table import TABLE

    if task is not None and task not in TABLE:
        raise ConfigError("unknown task", expected=", ".join(TABLE), got=task)
    rows = [row for row in models_table() if task in (None, row.task)]
    if as_json:
        typer.echo(json.dumps([_model_values(row) for row in rows], indent=1))
        return
    columns = ("task", "name", "output", "size MB", "licence of the weights", "commercial", "here")
    Console().print(table_of("backends", columns, [_model_cells(row) for row in rows]))


def _model_cells(row: Any) -> list[str]:
    commercial = {True: "yes", False: "no", None: "unknown"}[row.licence.commercial]
    here = "cached" if row.cached else "to download" if row.installed else "package missing"
    size = "" if row.size_mb is None else f"{row.size_mb:.0f}"
    return [row.task, row.name, row.units, size, row.licence.name, commercial, here]


def _model_values(row: Any) -> dict[str, Any]:
    return {
        "task": row.task,
        "name": row.name,
        "weights": row.weights,
        "units": row.units,
        "size_mb": row.size_mb,
        "licence": row.licence.name,
        "commercial": row.licence.commercial,
        "installed": row.installed,
        "cached": row.cached,
    }


def cache(
    action: Annotated[str, typer.Argument(help="list or clear.")] = "list",
    working_dir: Annotated[Path, typer.Option(help="As given to run.")] = Path("data/working"),
    video: Annotated[str | None, typer.Option(help="Only this video.")] = None,
) -> None:
    """Show or clear the cached stages of processed videos; results are never touched."""
    from stf_depth.errors import ConfigError, InputNotFoundError
    from stf_depth.pipeline.windows import locked

    if action not in ("list", "clear"):
        raise ConfigError("unknown cache action", expected="list or clear", got=action)
    if not working_dir.is_dir():
        raise InputNotFoundError("no working folder", where=working_dir, hint="Give the --working-dir of the run")
    if video is not None and not (working_dir / video).is_dir():
        raise InputNotFoundError(
            "no video of this name", where=working_dir, got=video, hint="See: stf-depth cache list"
        )
    found = _cached(working_dir, video)
    rows = [(one.working.name, stage.name, f"{_size_mb(stage):.1f}") for one in found for stage in one.stages()]
    if action == "clear":
        for one in found:
            with locked(one):
                one.clear_cache()
    Console().print(table_of(str(working_dir), ("video", "stage", "MB"), rows))
    typer.echo(f"{len(found)} video(s) {'cleared' if action == 'clear' else 'cached'}")


def _cached(working_dir: Path, video: str | None) -> list[VideoFolders]:
    """The videos that have something cached."""
    from stf_depth.pipeline.plan import VideoFolders

    found = [VideoFolders(path, path) for path in sorted(working_dir.iterdir()) if video in (None, path.name)]
    return [one for one in found if one.stages() or one.window_folders()]


def _size_mb(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    check_hub: Annotated[bool, typer.Option("--hub/--no-hub", help="Ask the model hub whether it answers.")] = True,
) -> None:
    """Say what this machine can do: devices, packages, decoders, disk space and the model hub."""
    facts = {**_machine(), **_packages(), **_decoders()}
    if check_hub:
        facts["model hub"] = "reachable" if _hub_answers() else "not reachable (use --preset offline, or cached models)"
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    Console().print(table_of("stf-depth doctor", ("fact", "value"), facts.items(), header=False))


def _machine() -> dict[str, str]:
    import os

    import torch

    free = shutil.disk_usage(Path.cwd()).free / 1e9
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "CPU cores": str(os.cpu_count()),
        "CUDA GPU": gpu,
        "MPS": "yes" if torch.backends.mps.is_available() else "no",
        "free disk here": f"{free:.0f} GB",
    }


def _packages() -> dict[str, str]:
    core = {name: metadata.version(name) for name in ("stf-depth", "torch", "transformers", "av", "pycolmap", "zarr")}
    extras = {
        f"extra '{extra}'": "installed" if util.find_spec(module) else f"missing: pip install 'stf-depth[{extra}]'"
        for extra, module in _EXTRAS.items()
    }
    return core | extras


def _decoders() -> dict[str, str]:
    import av

    wanted = ("h264", "hevc", "av1", "vp9", "prores", "mjpeg", "gif")
    return {"decoders": ", ".join(name for name in wanted if name in av.codecs_available)}


def _hub_answers() -> bool:
    import httpx
    from huggingface_hub import constants

    try:
        return httpx.head(constants.ENDPOINT, timeout=3.0, follow_redirects=True).status_code < 500
    except httpx.HTTPError:
        return False
