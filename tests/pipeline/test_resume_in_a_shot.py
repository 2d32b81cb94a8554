"""A shot that is continued in its middle ends with the same bytes, and what lies far before is not done again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stf_depth.geometry.structure as structure
from stf_depth.config import GeometryConfig, RunConfig
from stf_depth.fusion.inputs import ShotInputs
from stf_depth.fusion.shot import fuse_shot
from stf_depth.geometry.camera_solve import CameraSolve
from stf_depth.geometry.points import FramePoints
from stf_depth.geometry.structure import triangulate_shot
from stf_depth.synthetic import SyntheticClip, degrade, render_clip, scene
from stf_depth.types import CameraPath, MotionKind


@pytest.fixture(scope="module")
def walk() -> SyntheticClip:
    return render_clip(scene("room"), 22, (96, 64), noise_sigma=1.0)


@pytest.fixture(scope="module")
def solve(walk: SyntheticClip) -> CameraSolve:
    """The true cameras, with the points of frame 0 as tracks."""
    at = np.indices(walk.depth[0].shape)[:, 4::8, 4::8].reshape(2, -1)
    trust = np.ones(len(walk.rgb), np.float32)
    path = CameraPath(MotionKind.PARALLAX, walk.intrinsics, walk.world_from_cam, np.ones(len(walk.rgb), bool), trust)
    seen = np.column_stack([at[1], at[0], 1 / walk.depth[0][at[0], at[1]]])
    return CameraSolve(path, FramePoints([seen] + [()] * (len(walk.rgb) - 1)), trust)


@pytest.mark.parametrize("start", [0, 1, 5, 13, 21, 22])
def test_structure_from_the_middle(
    walk: SyntheticClip, solve: CameraSolve, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GeometryConfig().with_values({"fusion_offsets": (1, 2), "source_reach_frames": 6})
    whole = list(triangulate_shot(walk.rgb, solve, config=config))
    calls: list[Any] = []
    original = structure.triangulate

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(structure, "triangulate", counted)
    rest = list(triangulate_shot(walk.rgb, solve, config=config, start=start))
    assert len(rest) == len(whole) - start
    for (disparity, confidence), (expected, sure) in zip(rest, whole[start:], strict=True):
        assert disparity.tobytes() == expected.tobytes()
        assert confidence.tobytes() == sure.tobytes()
    assert len(calls) <= len(rest) + 3 * 2


@pytest.mark.parametrize("start", [0, 3, 8, 13, 21, 22])
def test_fusion_from_the_middle(walk: SyntheticClip, start: int) -> None:
    maps = degrade(walk.depth, 0)
    inputs = ShotInputs(walk.rgb, maps.depth, maps.valid, maps.ambiguity)
    config = RunConfig().with_values({"fusion.mode": "flow", "fusion.chunk_frames": 4})
    whole = list(fuse_shot(inputs, config))
    rest = list(fuse_shot(inputs, config, start=start))
    assert sum(len(chunk) for chunk in rest) == len(walk.rgb) - start
    assert [chunk.start for chunk in rest][:1] == ([start] if start < len(walk.rgb) else [])
    for name in ("disparity", "valid", "confidence"):
        expected = np.concatenate([getattr(chunk, name) for chunk in whole])[start:]
        found = [getattr(chunk, name) for chunk in rest]
        assert (np.concatenate(found) if found else expected).tobytes() == expected.tobytes()


@pytest.mark.parametrize("chunk_frames", [1, 5, 64])
def test_the_borders_of_windows_cannot_be_seen(walk: SyntheticClip, chunk_frames: int) -> None:
    maps = degrade(walk.depth, 0)
    inputs = ShotInputs(walk.rgb, maps.depth, maps.valid, maps.ambiguity)
    found = []
    for frames in (8, chunk_frames):
        config = RunConfig().with_values({"fusion.mode": "flow", "fusion.chunk_frames": frames})
        found.append(np.concatenate([chunk.disparity for chunk in fuse_shot(inputs, config)]))
    assert found[0].tobytes() == found[1].tobytes()
