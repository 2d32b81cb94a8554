"""The table of export formats and the entry point that runs them."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from stf_depth.cache.files import read_json, write_json
from stf_depth.config import FrozenConfig
from stf_depth.errors import ConfigError, ExportError, OutputError, SpecError, StfDepthError, UsageError
from stf_depth.export.files import holds_only, remove
from stf_depth.result import DepthResult

__all__ = [
    "FORMATS",
    "Existing",
    "Exported",
    "Format",
    "attempt_formats",
    "export_result",
    "failures_as_error",
    "parse_formats",
    "remove_exports",
]

log = logging.getLogger(__name__)

# What places depth in space before it can be metric.
_PLACING = {"fov_degrees", "far_over_near"}

# Lies where exports of a result go to another folder than its own, and says which video each is of.
_RECORD = ".exports.json"

Existing = Literal["overwrite", "skip", "error"]
Exporter = Callable[[DepthResult, Path, Any], list[Path]]


@dataclass(frozen=True)
class Format:
    """One way to write a result.

    module: file in this package with ``Options`` and ``export(result, target, options)``. target: name of the file
    or folder it makes. fixed: options that make this format what it is. holds: of a folder, patterns of what it makes
    in it, as ``holds_only`` takes them.
    """

    module: str
    target: str
    summary: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    holds: tuple[str, ...] = ()

    def options_type(self) -> type[FrozenConfig]:
        """The configuration that this format's exporter takes."""
        kind: type[FrozenConfig] = self._load().Options
        return kind

    def exporter(self) -> Exporter:
        """``export(result, target, options) -> files``; loads the format's libraries."""
        function: Exporter = self._load().export
        return function

    def option_names(self) -> set[str]:
        """Options that a caller may give."""
        return set(self.options_type().model_fields) - set(self.fixed)

    def _load(self) -> Any:
        return import_module(f"stf_depth.export.{self.module}")


FORMATS: dict[str, Format] = {
    "npz": Format("npz", "depth.npz", "NumPy archive: depth, valid, pts_seconds, representation, ambiguity"),
    "zarr": Format(
        "zarr_copy",
        "depth_export.zarr",
        "chunked Zarr 3 group with the meaning in its attributes",
        holds=("zarr.json", "depth/**", "valid/**", "pts_seconds/**"),
    ),
    "npy": Format(
        "npy", "depth_npy", "one float32 .npy for each frame, NaN where unknown", holds=("meaning.json", "*.npy")
    ),
    "pkl": Format("pickle_dict", "depth.pkl", "plain Python dict of arrays and strings"),
    "png16": Format(
        "png16", "depth_png16", "16-bit PNG for each frame, mapping in its metadata", holds=("mapping.json", "*.png")
    ),
    "mp4": Format("colour_video", "depth.mp4", "colour-mapped video with source timing and sound"),
    "comparison": Format("comparison", "comparison.mp4", "video of RGB, per-frame depth and fused depth"),
    "mkv": Format("grey_video", "depth_gray16.mkv", "lossless 16-bit grey FFV1", {"encoding": "ffv1-grey16"}),
    "mov": Format("grey_video", "depth_gray10.mov", "lossless 10-bit grey HEVC", {"encoding": "h265-grey10"}),
    "ply": Format("pointcloud", "points_ply", "point clouds with stated unit", {"file_type": "ply"}, ("*.ply",)),
    "points-glb": Format("pointcloud", "points_glb", "point clouds for glTF viewers", {"file_type": "glb"}, ("*.glb",)),
    "glb": Format("mesh", "mesh_glb", "coloured meshes cut at depth edges", {"file_type": "glb"}, ("*.glb",)),
    "mesh-ply": Format("mesh", "mesh_ply", "the same meshes as PLY", {"file_type": "ply"}, ("*.ply",)),
    "cameras": Format(
        "cameras",
        "cameras",
        "COLMAP text and transforms.json with images and points",
        {"file_type": "ply", "layout": "fused"},
        ("shot_*/transforms.json", "shot_*/sparse/0/*.txt", "shot_*/points.ply", "shot_*/images/*.png"),
    ),
    "exr": Format(
        "exr", "depth_exr", "OpenEXR for each frame, channel Z with its meaning in the header", holds=("*.exr",)
    ),
    "sbs": Format("stereo", "stereo_sbs.mp4", "side-by-side 3D video", {"layout": "sbs"}),
    "anaglyph": Format("stereo", "stereo_anaglyph.mp4", "3D video for red and cyan glasses", {"layout": "anaglyph"}),
    "rrd": Format("rrd", "scene.rrd", "rerun recording: frames, depth, segments, camera and points in time"),
    "report": Format("report", "report.html", "self-contained page: comparison, plots, cameras, licences"),
}


def parse_formats(formats: str | Sequence[str]) -> list[str]:
    """Names of formats from ``"npz,exr"`` or a sequence, without repetitions.

    Raises SpecError naming the closest known format.

    >>> parse_formats("npz, png16")
    ['npz', 'png16']
    """
    names = formats.split(",") if isinstance(formats, str) else list(formats)
    names = list(dict.fromkeys(name.strip().lower() for name in names if name.strip()))
    for name in names:
        if name not in FORMATS:
            close = difflib.get_close_matches(name, FORMATS, n=1)
            hint = f"Did you mean '{close[0]}'?" if close else f"Known formats: {', '.join(FORMATS)}"
            raise SpecError(f"unknown export format '{name}'", hint=hint)
    return names


def export_result(
    result: DepthResult,
    formats: str | Sequence[str],
    out: Path | None = None,
    *,
    existing: Existing = "overwrite",
    to_metric: str | Sequence[str] | None = None,
    **options: Any,
) -> dict[str, list[Path]]:
    """Write a result in each of ``formats`` and return the files of each; one that fails does not stop the others.

    out: folder to write to, the result's own when None. existing: what happens to a target that is already there.
    to_metric: one known length for each shot, or one metric model, as ``parse_reference`` reads them, that turns the
    depth into metres first. options: each must be known to at least one of the formats and goes to those that know it;
    with ``to_metric`` also ``fov_degrees`` and ``far_over_near``.

    Raises SpecError for an unknown format, ConfigError for an unknown or bad option, OutputError for a target that
    exists or cannot be written, AmbiguityError or GeometryError where the result cannot be expressed in a format; and
    ExportError, which names each, where several formats fail.
    """
    done = attempt_formats(result, formats, out, existing=existing, to_metric=to_metric, **options)
    if len(done.failures) == 1:
        raise next(iter(done.failures.values()))
    if done.failures:
        raise failures_as_error(result.folder, done.failures)
    return done.files


@dataclass(frozen=True)
class Exported:
    """What came of exporting one result: the files of each format, and why some formats have none."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    failures: dict[str, StfDepthError] = field(default_factory=dict)


def failures_as_error(where: Path, failures: Mapping[str, StfDepthError]) -> ExportError:
    """One error for all that failed, by format."""
    lines = "; ".join(f"{name}: {error}" for name, error in failures.items())
    return ExportError("some exports failed, the others are done", where=where, got=lines)


def attempt_formats(
    result: DepthResult,
    formats: str | Sequence[str],
    out: Path | None = None,
    *,
    existing: Existing = "overwrite",
    to_metric: str | Sequence[str] | None = None,
    **options: Any,
) -> Exported:
    """As ``export_result``, with what failed in the answer; raises UsageError, which would fail everywhere."""
    names = parse_formats(formats)
    _reject_unknown(names, options, set() if to_metric is None else _PLACING)
    folder = result.folder if out is None else out
    if to_metric is not None:
        result = _in_metres(result, [to_metric] if isinstance(to_metric, str) else to_metric, options)
    done = Exported()
    for name in names:
        try:
            done.files[name] = _export_one(result, FORMATS[name], folder, existing, options)
        except UsageError:
            raise
        except StfDepthError as error:
            done.failures[name] = error
        except Exception as error:  # a defect: the other formats are done all the same
            log.error("%s of %s", name, result.folder, exc_info=error)
            what = f"unexpected {type(error).__name__}: {error}"
            done.failures[name] = OutputError(what, where=result.folder, hint="Please report it with the lines above")
    return done


def remove_exports(folder: Path) -> list[str]:
    """Remove what any format has written to a result folder; returns the names of what was there.

    Folders with other things in them stay.

    Raises OSError where the disk refuses.
    """
    # A grey video has its mapping beside it.
    names = [name for form in FORMATS.values() for name in (form.target, f"{form.target}.json")]
    foreign = {form.target for form in FORMATS.values() if _is_foreign_folder(folder / form.target, form)}
    found = [name for name in names if name not in foreign and os.path.lexists(folder / name)]
    for name in found:
        remove(folder / name)
    return found


def _in_metres(result: DepthResult, references: Sequence[str], options: Mapping[str, Any]) -> DepthResult:
    from stf_depth.export.geometry import GeometryOptions
    from stf_depth.export.units import parse_reference, to_metric

    stated = {key: value for key, value in options.items() if key in _PLACING}
    geometry = GeometryOptions.of(stated) if stated else None
    return to_metric(result, [parse_reference(text) for text in references], options=geometry)


def _export_one(
    result: DepthResult, form: Format, folder: Path, existing: Existing, options: Mapping[str, Any]
) -> list[Path]:
    target = folder / form.target
    if target.exists() and existing == "error":
        raise OutputError("export exists", where=target, hint="Choose to overwrite or to skip existing files")
    _refuse_foreign(result, form, target)
    if target.exists() and existing == "skip":
        return sorted(path for path in target.rglob("*") if path.is_file()) if target.is_dir() else [target]
    known = {key: value for key, value in options.items() if key in form.option_names()}
    files = form.exporter()(result, target, form.options_type().of({**known, **form.fixed}))
    if folder.resolve() != result.folder.resolve():
        _record(result, target)
    return files


def _refuse_foreign(result: DepthResult, form: Format, target: Path) -> None:
    """Raise OutputError where an export would replace what this format has not made, or made of another video."""
    if not target.exists():
        return
    if _is_foreign_folder(target, form):
        hint = "Move it away, or choose another folder to write to"
        raise OutputError("the export would replace a folder with other things in it", where=target, hint=hint)
    records = read_json(target.parent / _RECORD)
    made_from = records.get(target.name) if isinstance(records, dict) else None
    here = _made_from(result)
    if isinstance(made_from, dict) and not any(made_from.get(key) == value for key, value in here.items()):
        hint = "Choose another folder to write to, one for each result, or remove that export"
        what = "the export of another video lies here"
        raise OutputError(what, where=target, expected=made_from.get("path"), got=here["path"], hint=hint)


def _is_foreign_folder(target: Path, form: Format) -> bool:
    return target.is_dir() and not (form.holds and holds_only(target, form.holds))


def _record(result: DepthResult, target: Path) -> None:
    """Remember which video an export outside of the result's own folder was made from."""
    records = read_json(target.parent / _RECORD)
    known = records if isinstance(records, dict) else {}
    write_json(target.parent / _RECORD, {**known, target.name: _made_from(result)})


def _made_from(result: DepthResult) -> dict[str, str]:
    given = result.manifest["input"]
    return {key: given[key] for key in ("path", "sha256") if isinstance(given.get(key), str)}


def _reject_unknown(names: Sequence[str], options: Mapping[str, Any], also: set[str]) -> None:
    known = sorted(also.union(*(FORMATS[name].option_names() for name in names)))
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            hint = f"Did you mean '{close[0]}'?" if close else "These formats take no options"
            raise ConfigError(f"unknown export option '{key}' for {', '.join(names)}", hint=hint)
