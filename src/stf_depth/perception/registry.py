"""From a specification to a backend, and the table of all of them.

Nothing heavy is imported until a backend is made; a licence is checked before anything is fetched.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

from stf_depth.errors import CheckpointError, LicenceError, SpecError
from stf_depth.perception.base import (
    BackendInfo,
    BackendRequest,
    DepthBackend,
    DepthFromGeometry,
    FlowBackend,
    IndexedDepth,
    IndexedSegments,
    Licence,
    SegmentBackend,
    Task,
)
from stf_depth.perception.specs import BackendSpec, parse_spec
from stf_depth.perception.table import MODEL_TYPES, TABLE, Entry
from stf_depth.perception.weights import cached_snapshot, checkpoint_config, torch_hub_folder

__all__ = ["ModelRow", "create", "describe", "find_entry", "models_table"]

UNKNOWN = Licence("unknown", None, "brought by the user")
OWN_DATA = Licence("none (data brought by the user)", True)

_OPTIONAL: tuple[Task, ...] = ("semantic", "panoptic")
ONNX_LOADERS: dict[Task, str] = {
    "depth": "depth.onnx:OnnxDepth",
    "semantic": "semantic.onnx:OnnxSemantic",
    "panoptic": "semantic.onnx:OnnxSemantic",
}
PRECOMPUTED_LOADERS: dict[Task, str] = {
    "depth": "depth.precomputed:PrecomputedDepth",
    "semantic": "panoptic.precomputed:PrecomputedSegments",
    "panoptic": "panoptic.precomputed:PrecomputedSegments",
}


@dataclass(frozen=True)
class ModelRow:
    """One line of ``stf-depth models``. installed: the packages are there. cached: the weights are on this disk."""

    name: str
    task: Task
    weights: str
    licence: Licence
    size_mb: float | None
    units: str
    installed: bool
    cached: bool


@overload
def create(
    task: Literal["depth"], spec: str, *, device: str = ..., precision: str = ..., commercial: bool = ...
) -> DepthBackend | IndexedDepth | DepthFromGeometry | None: ...
@overload
def create(
    task: Literal["semantic", "panoptic"],
    spec: str,
    *,
    device: str = ...,
    precision: str = ...,
    commercial: bool = ...,
) -> SegmentBackend | IndexedSegments | None: ...
@overload
def create(
    task: Literal["flow"], spec: str, *, device: str = ..., precision: str = ..., commercial: bool = ...
) -> FlowBackend | None: ...


def create(task: Task, spec: str, *, device: str = "auto", precision: str = "float32", commercial: bool = False) -> Any:
    """The backend that ``spec`` chooses for ``task``; None for ``none``, which segmentation alone can do without.

    Weights are found, and fetched where they are not cached; networks are loaded by the first ``infer``.

    >>> create("flow", "dis").info.name
    'dis'

    Raises SpecError for a name that is not registered or a kind that the task does not have, LicenceError under
    ``commercial`` before anything is fetched, WeightsError and CheckpointError for weights that cannot be used,
    ConfigError for an unknown option of the backend, MissingExtraError for a package that is not installed.
    """
    parsed = _parsed(task, spec)
    if parsed.kind == "none":
        return None
    request = replace(_request(task, parsed), device=device, precision=precision)
    if commercial:
        _check_licence(request)
    if parsed.kind == "name" and not find_entry(task, parsed.target).loader:
        return DepthFromGeometry(request.info("geometry"))
    return _load(_loader(request, parsed))(request)


def describe(task: Task, spec: str) -> BackendInfo | None:
    """What ``create`` would make, without looking for weights; None where it makes none.

    Raises SpecError as ``create`` does. weights_digest is empty, and so is what only the weights can tell, but for the
    licence of an ONNX file, which is opened: that of a known network.
    """
    parsed = _parsed(task, spec)
    if parsed.kind == "none":
        return None
    request = _request(task, parsed)
    is_there = parsed.kind == "onnx" and Path(request.location).is_file()
    return request.info("", licence=_licence(request) if is_there else None)


def _parsed(task: Task, spec: str) -> BackendSpec:
    parsed = parse_spec(spec)
    if parsed.kind == "none" and task not in _OPTIONAL:
        names = ", ".join(TABLE[task])
        raise SpecError(f"nothing can be done without {task}", expected=f"one of {names}", got="none")
    return parsed


def find_entry(task: Task, name: str) -> Entry:
    """The registered backend ``name``; raises SpecError with the closest match."""
    entries = TABLE[task]
    if name in entries:
        return entries[name]
    others = [other for other, table in TABLE.items() if name in table]
    if others:
        raise SpecError(f"'{name}' is a backend for {others[0]}, not for {task}", hint=f"Use --{others[0]} {name}")
    match = difflib.get_close_matches(name, list(entries), n=1, cutoff=0.0)
    raise SpecError(f"unknown {task} backend '{name}'", hint=f"Did you mean '{match[0]}'? See: stf-depth models")


def models_table() -> list[ModelRow]:
    """Every registered backend in the order of the table; looks at the disk only."""
    return [_row(entry) for entries in TABLE.values() for entry in entries.values()]


def _row(entry: Entry) -> ModelRow:
    packages = ["transformers"] if entry.is_hub else ["torchvision"] if entry.weights else []
    return ModelRow(
        name=entry.name,
        task=entry.task,
        weights=entry.weights,
        licence=entry.licence,
        size_mb=entry.size_mb,
        units=_units(entry),
        installed=all(importlib.util.find_spec(package) is not None for package in packages),
        cached=_is_cached(entry),
    )


def _units(entry: Entry) -> str:
    if entry.task == "flow":
        return "pixels"
    if entry.representation is None or entry.ambiguity is None:
        return "segment ids"
    if entry.ambiguity == "metric":
        return "z-depth in metres"
    return {"scale": "disparity up to scale", "affine": "disparity up to scale and shift"}[entry.ambiguity]


def _is_cached(entry: Entry) -> bool:
    if not entry.weights:
        return True
    if entry.is_hub:
        return cached_snapshot(entry.weights) is not None
    # torchvision appends a digest to the name: deeplabv3_resnet101_coco-586e9e4e.pth
    return any(torch_hub_folder().glob(f"{entry.weights}_*.pth"))


def _request(task: Task, spec: BackendSpec) -> BackendRequest:
    if spec.kind == "name":
        return _registered(find_entry(task, spec.target), spec)
    options = dict(spec.options)
    if spec.kind == "precomputed":
        return BackendRequest(str(spec), task, str(spec.path), OWN_DATA, options)
    known = [entry for entry in TABLE[task].values() if entry.weights == spec.target]
    if spec.kind == "hf" and known:
        return replace(_registered(known[0], spec), name=str(spec))
    licence = _stated_licence(options)
    location = str(spec.path) if spec.kind == "onnx" or spec.path.is_dir() else spec.target
    return BackendRequest(str(spec), task, location, licence, options)


def _stated_licence(options: dict[str, str]) -> Licence:
    """What the user says of weights of their own, taken out of the options."""
    if "licence" not in options:
        return UNKNOWN
    return Licence(options.pop("licence"), options.pop("commercial", "no") == "yes", "stated by the user")


def _registered(entry: Entry, spec: BackendSpec) -> BackendRequest:
    options = dict(spec.options)
    # Weights from elsewhere have another licence than the registered ones.
    own = options.pop("weights", None)
    return BackendRequest(
        name=str(spec),
        task=entry.task,
        location=own or entry.weights,
        licence=_stated_licence(options) if own else entry.licence,
        options=options,
        size_mb=None if own else entry.size_mb,
        representation=entry.representation,
        ambiguity=entry.ambiguity,
    )


def _check_licence(request: BackendRequest) -> None:
    licence = _licence(request)
    if licence.commercial:
        return
    word = "unknown" if licence.commercial is None else "no"
    mark = "&" if "?" in request.name else "?"
    raise LicenceError(
        f"the weights of {request.name} may not be used under --commercial",
        expected="a licence that allows commercial use",
        got=f"{licence.name}, commercial use: {word}",
        hint=f"See: stf-depth models. For weights of your own add {mark}licence=NAME&commercial=yes",
    )


def _licence(request: BackendRequest) -> Licence:
    """That of the request, or of the known network which an ONNX file holds."""
    if not request.name.startswith("onnx:") or request.licence is not UNKNOWN:
        return request.licence
    from stf_depth.perception.onnx_runtime import open_graph

    signature = open_graph(Path(request.location)).signature
    return signature.licence if signature is not None else UNKNOWN


def _loader(request: BackendRequest, spec: BackendSpec) -> str:
    if spec.kind == "name":
        return find_entry(request.task, spec.target).loader
    if spec.kind == "hf":
        return _checkpoint_loader(request)
    loaders = ONNX_LOADERS if spec.kind == "onnx" else PRECOMPUTED_LOADERS
    if request.task not in loaders:
        raise SpecError(f"there is no {spec.kind}: backend for {request.task}", where=spec)
    return loaders[request.task]


def _checkpoint_loader(request: BackendRequest) -> str:
    known = MODEL_TYPES[request.task]
    if not known:
        raise SpecError(f"there is no hf: backend for {request.task}", where=request.name)
    model_type = str(checkpoint_config(request.location, request.name).get("model_type", ""))
    if model_type in known:
        return known[model_type]
    expected = f"a {request.task} network of type {', '.join(known)}"
    raise CheckpointError("checkpoint of another kind", where=request.location, expected=expected, got=repr(model_type))


def _load(loader: str) -> Any:
    module, _, name = loader.partition(":")
    return getattr(importlib.import_module(f"stf_depth.perception.{module}"), name)
