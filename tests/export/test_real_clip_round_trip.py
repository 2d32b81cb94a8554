"""Every format of a recorded clip with the holes of its depth camera, read back by readers that are not ours."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stf_depth.evaluation.sequences import read_sequence
from stf_depth.export import FORMATS
from stf_depth.result import DepthResult
from stf_depth.synthetic import SyntheticClip
from stf_depth.types import Intrinsics, Shot
from stf_depth.video.sequence import DEFAULT_SEQUENCE_RATE

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "round_trip.py"
FRAMES = 30

pytestmark = [pytest.mark.shared, pytest.mark.slow]

# Half a step where a value is rounded, a little more for the arithmetic of the reader.
PRECISION = {
    **dict.fromkeys(("npz", "zarr", "npy", "pkl", "exr"), 0.0),
    **dict.fromkeys(("png16", "mkv", "mov"), 0.52),
    **dict.fromkeys(("ply", "points-glb", "glb", "mesh-ply"), 1e-6),
    "cameras": 1e-6,
    "mp4": 6.0,
    **dict.fromkeys(("comparison", "sbs", "anaglyph"), 2e-3),
    "rrd": 0.0,
}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("round_trip", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["round_trip"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["round_trip"]


@pytest.fixture(scope="module")
def recorded(shared_dir: Path, room_clip: SyntheticClip, make_result: Any, tmp_path_factory: Any) -> DepthResult:
    """Thirty frames of the recorded kitchen: colours, sensor depth up to a factor, true poses, unknown where it has
    holes.
    """
    truth = read_sequence(shared_dir / "data" / "redkitchen").frames(slice(FRAMES))
    source = tmp_path_factory.mktemp("kitchen") / "color"
    source.mkdir()
    for path in truth.color_files:
        (source / path.name).symlink_to(path)
    depth = np.stack([truth.full_truth_m(k) for k in range(FRAMES)])
    depth[depth == 0] = np.inf
    height, width = depth.shape[1:]
    assert truth.K is not None
    assert truth.world_from_cam is not None
    clip = replace(
        room_clip,
        name="kitchen",
        rgb=np.zeros((FRAMES, 1, 1, 3), np.uint8),
        depth=depth,
        labels=np.ones(depth.shape, np.int32),
        roles=np.zeros(depth.shape, np.uint8),
        world_from_cam=truth.world_from_cam,
        intrinsics=Intrinsics(truth.K[0, 0], truth.K[1, 1], truth.K[0, 2], truth.K[1, 2], width, height),
        pts_seconds=np.arange(FRAMES) / float(DEFAULT_SEQUENCE_RATE),
        shots=(Shot(0, FRAMES),),
    )
    return DepthResult(make_result(clip, source, representation="z_depth", ambiguity="metric"))


def test_the_clip_has_holes(recorded: DepthResult) -> None:
    unknown = sum(int(np.count_nonzero(~np.asarray(recorded.valid[k]))) for k in range(FRAMES))
    assert unknown > 0.1 * np.prod(recorded.depth.shape)


@pytest.mark.parametrize("name", list(PRECISION))
def test_recorded_clip_comes_back(script: ModuleType, recorded: DepthResult, name: str) -> None:
    row = script.round_trip(recorded, name)
    assert row["frames"] == FRAMES
    assert row["error"] <= PRECISION[name], row
    assert row["validity_changed"] == 0, row


def test_every_format_of_data_is_read_back(script: ModuleType) -> None:
    # The report is a page, looked at in a browser.
    assert set(script.READERS) == set(PRECISION) == set(FORMATS) - {"report"}
