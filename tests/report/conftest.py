"""Results with every part that a report can show."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from stf_depth.cache.store import StageStore
from stf_depth.result import DepthResult

if TYPE_CHECKING:
    from stf_depth.synthetic import SyntheticClip

SEGMENTS = {"1": ["floor <b>", 2, False, 1.0], "2": ["person", 5, True, 0.9]}


def add_stage(working: Path, name: str, arrays: dict[str, np.ndarray], extra: list[Any]) -> dict[str, str]:
    """Write a finished stage and return its entry of the manifest."""
    folder = working / f"{name}-test"
    store = StageStore(folder, "test", chunk_frames=8)
    count = len(next(iter(arrays.values())))
    for chunk, start in enumerate(range(0, count, 8)):
        part = {key: values[start : start + 8] for key, values in arrays.items()}
        store.write(chunk, part, extra[start : start + 8])
    store.finish(count)
    return {"key": "test", "path": str(folder)}


def complete(folder: Path, clip: SyntheticClip, **changes: Any) -> DepthResult:
    """Give a result folder the stages and the manifest that a whole run leaves."""
    manifest = json.loads((folder / "manifest.json").read_text())
    height, width = clip.rgb.shape[1:3]
    ids = np.ones((len(clip), height // 2, width // 2), np.int32)
    ids[:, :10, :12] = 2
    working = folder.parent / "working"
    manifest["stages"]["frames"] = add_stage(working, "frames", {"rgb": clip.rgb}, [None] * len(clip))
    manifest["stages"]["panoptic"] = add_stage(working, "panoptic", {"ids": ids}, [SEGMENTS] * len(clip))
    manifest["software"] = {"name": "stf-depth", "version": "9.8.7", "python": "3.11"}
    manifest["packages"] = {"numpy": "2.4"}
    manifest["flicker_percent"] = {"per_frame": 12.5, "fused": 1.25}
    manifest["seconds_by_stage"] = {"decoding": 0.5, "fusion": 2.0}
    manifest["peak_memory_mb"] = 512.0
    manifest["models"]["depth"] = {"name": "net", "licence": "CC-BY-NC-4.0", "commercial": False, "weights": "hub/net"}
    manifest.update(changes)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return DepthResult(folder)


@pytest.fixture(scope="session")
def complete_result(room_clip: SyntheticClip) -> Callable[..., DepthResult]:
    """``complete`` for a result of the room: ``complete_result(folder, shots=...)``."""
    return lambda folder, **changes: complete(folder, room_clip, **changes)


@pytest.fixture(scope="session")
def full_result(complete_result: Callable[..., DepthResult], make_result: Callable[..., Path]) -> DepthResult:
    """Twelve frames with all stages cached."""
    return complete_result(make_result())
