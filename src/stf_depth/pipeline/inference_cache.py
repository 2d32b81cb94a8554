"""``infer_result.pkl`` of the original interface, written from the stages and read back into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.cache.files import read_json, write_json
from stf_depth.cache.inference_pickle import read_inference_pickle, write_inference_pickle
from stf_depth.cache.store import StageStore
from stf_depth.errors import UntrustedPickleError
from stf_depth.pipeline.observations import Observations
from stf_depth.pipeline.perceive import Perceived
from stf_depth.pipeline.plan import CHUNK_FRAMES, VideoPlan
from stf_depth.pipeline.progress import Reporter
from stf_depth.types import Frames

__all__ = ["has_inference_pickle", "load_inference_pickle", "save_inference_pickle", "tell_loaded"]

_FORMAT = "stf-depth inference 1"
# Stage and array -> name in the pickle.
_NAMES = {
    ("depth", "depth"): "depth",
    ("depth", "valid"): "valid",
    ("semantic", "ids"): "segment",
    ("semantic", "roles"): "segment_roles",
    ("panoptic", "ids"): "segment_detail",
    ("panoptic", "roles"): "segment_detail_roles",
}


def save_inference_pickle(plan: VideoPlan, name: str, perceived: Perceived, seen: Observations) -> None:
    """Write the inference of a video."""
    stages = {stage: plan.store(stage) for stage in ("depth", "semantic", "panoptic") if stage in plan.keys}
    header = {
        "format": _FORMAT,
        "video": name,
        "models": {task: info.name for task, info in plan.backends.infos().items()},
        "representation": seen.representation.value,
        "ambiguity": seen.ambiguity.value,
        "pts_seconds": perceived.pts_seconds,
        "keys": {stage: store.key for stage, store in stages.items()},
        "extras": {stage: map(store.extra, store.chunks()) for stage, store in stages.items()},
    }
    frames = {label: _each(stages[stage].frames(array)) for (stage, array), label in _NAMES.items() if stage in stages}
    if "depth" not in stages:
        frames = {"depth": _each(seen.depth), "valid": _each(seen.valid), **frames}
    plan.folders.inference_record.unlink(missing_ok=True)
    write_inference_pickle(plan.folders.inference_pickle, header, frames)
    write_json(plan.folders.inference_record, _record(plan))


def has_inference_pickle(plan: VideoPlan) -> bool:
    """Whether the pickle of these stages is there, whole."""
    return plan.folders.inference_pickle.is_file() and read_json(plan.folders.inference_record) == _record(plan)


def _record(plan: VideoPlan) -> dict[str, Any]:
    return {"bytes": plan.folders.inference_pickle.stat().st_size, "keys": dict(plan.keys)}


def _was_cut_short(plan: VideoPlan) -> bool:
    record = read_json(plan.folders.inference_record)
    size = plan.folders.inference_pickle.stat().st_size
    return isinstance(record, dict) and isinstance(record.get("bytes"), int) and size < record["bytes"]


def _each(frames: Frames) -> Iterator[NDArray[Any]]:
    return (np.asarray(frames[index]) for index in range(len(frames)))


def load_inference_pickle(plan: VideoPlan) -> list[str]:
    """Fill the stages that have no cache from the pickle; returns the names of those filled.

    A pickle made from another input or by other models is left alone, and so is one that a power cut has shortened
    since it was written. Raises UntrustedPickleError for one that
    holds anything but arrays and builtins.
    """
    path = plan.folders.inference_pickle
    wanted = {stage: plan.store(stage) for stage in ("depth", "semantic", "panoptic") if stage in plan.keys}
    missing = {stage: store for stage, store in wanted.items() if not store.is_complete}
    if not missing or not path.is_file() or _was_cut_short(plan):
        return []
    content = read_inference_pickle(path)
    keys = content.get("keys")
    if content.get("format") != _FORMAT or not isinstance(keys, dict):
        return []
    filled = [stage for stage, store in missing.items() if keys.get(stage) == store.key]
    try:
        for stage in filled:
            _fill(missing[stage], stage, content)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        hint = "Delete the file to compute it again"
        raise UntrustedPickleError("damaged inference cache", where=path, got=repr(error), hint=hint) from error
    return filled


def tell_loaded(plan: VideoPlan, name: str, loaded: Sequence[str], reporter: Reporter) -> None:
    """Say which stages of a video came from the pickle, if any did."""
    if loaded:
        reporter.message(name, f"read {', '.join(loaded)} from {plan.folders.inference_pickle.name}")


def _fill(store: StageStore, stage: str, content: Mapping[str, Any]) -> None:
    arrays = {array: content[label] for (of, array), label in _NAMES.items() if of == stage}
    count = len(next(iter(arrays.values())))
    for chunk, extra in enumerate(content["extras"][stage]):
        span = slice(chunk * CHUNK_FRAMES, (chunk + 1) * CHUNK_FRAMES)
        store.write(chunk, {name: np.stack(frames[span]) for name, frames in arrays.items()}, extra)
    store.finish(count)
