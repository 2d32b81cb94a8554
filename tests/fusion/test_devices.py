"""Fusion on another device than the CPU: no tensor is left behind, and the result is the CPU's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from other_device import OTHER, OtherDevice

from stf_depth.config import CausalConfig, RunConfig
from stf_depth.fusion import shot
from stf_depth.fusion.causal import CausalFuser
from stf_depth.fusion.inputs import ShotInputs, StructureMaps
from stf_depth.parallel import thread_pool
from stf_depth.perception.registry import create
from stf_depth.synthetic import SyntheticClip, degrade, render_clip, scene
from stf_depth.types import CameraPath, DepthMaps, MotionKind

MODES = ("full", "flow", "none")


@pytest.fixture(scope="module")
def street() -> SyntheticClip:
    return render_clip(scene("street"), frames=8, wh=(160, 96))


@pytest.fixture(scope="module")
def maps(street: SyntheticClip) -> DepthMaps:
    return degrade(street.depth, 1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums have another order in more threads; fusion takes one a frame on a CPU only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def other_device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The pretended device, in this thread and in those of the fusion."""
    enter = OtherDevice().__enter__
    monkeypatch.setattr(shot, "thread_pool", lambda **_: thread_pool(most=1, initializer=enter))
    with OtherDevice():
        yield OTHER


def inputs_of(clip: SyntheticClip, maps: DepthMaps) -> ShotInputs:
    """Everything that fusion can use: camera, structure, roles with sky, movers and planes, and segments."""
    count = len(clip.rgb)
    sure = np.ones(count, np.float32)
    camera = CameraPath(MotionKind.PARALLAX, clip.intrinsics, clip.world_from_cam, sure > 0, sure)
    disparity = np.where(np.isfinite(clip.depth), 1 / clip.depth, 0).astype(np.float32)
    structure = StructureMaps(disparity, np.full(disparity.shape, 0.8, np.float32))
    labels = {"roles": clip.roles.astype(np.uint8), "segments": clip.labels.astype(np.int32)}
    return ShotInputs(clip.rgb, maps.depth, maps.valid, maps.ambiguity, camera=camera, structure=structure, **labels)


def fused(inputs: ShotInputs, mode: str, device: str) -> tuple[np.ndarray, np.ndarray]:
    config = RunConfig().with_values({"fusion.mode": mode})
    chunks = list(shot.fuse_shot(inputs, config, device=device))
    return tuple(np.concatenate([getattr(one, part) for one in chunks]) for part in ("disparity", "confidence"))  # type: ignore[return-value]


def causal(clip: SyntheticClip, maps: DepthMaps, device: str) -> np.ndarray:
    fuser = CausalFuser(CausalConfig(lookahead_frames=1), maps.ambiguity, flow=create("flow", "dis"), device=device)
    done = []
    for frame in range(len(clip.rgb)):
        done += fuser.push(clip.rgb[frame], maps.depth[frame], maps.valid[frame])
    return np.stack([one.disparity for one in [*done, *fuser.flush()]])


@pytest.mark.parametrize("mode", MODES)
def test_another_device_gives_the_same_bytes(
    street: SyntheticClip, maps: DepthMaps, mode: str, request: pytest.FixtureRequest
) -> None:
    inputs = inputs_of(street, maps)
    expected = fused(inputs, mode, "cpu")
    got = fused(inputs, mode, request.getfixturevalue("other_device"))
    assert all(np.array_equal(one, two) for one, two in zip(expected, got, strict=True))


def test_the_causal_filter_on_another_device_gives_the_same_bytes(
    street: SyntheticClip, maps: DepthMaps, request: pytest.FixtureRequest
) -> None:
    expected = causal(street, maps, "cpu")
    assert np.array_equal(expected, causal(street, maps, request.getfixturevalue("other_device")))


def test_the_other_device_notices_what_a_gpu_would_refuse(other_device: str) -> None:
    there, here = torch.zeros(3, device=other_device), torch.ones(3)
    with pytest.raises(RuntimeError, match="two devices"):
        there + here
    with pytest.raises(RuntimeError, match="numpy"):
        there.numpy()
    assert np.array_equal((there + here.to(other_device)).cpu().numpy(), np.ones(3))


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_a_gpu_gives_what_the_cpu_gives(street: SyntheticClip, maps: DepthMaps, mode: str) -> None:
    """Equal up to rounding, but where rounding tips a threshold: those pixels are few, and near by."""
    inputs = inputs_of(street, maps)
    (expected, sure), (got, sure_too) = fused(inputs, mode, "cpu"), fused(inputs, mode, "cuda")
    gap = np.abs(np.log(np.maximum(got, 1e-9) / np.maximum(expected, 1e-9)))
    assert np.quantile(gap, 0.99) < 1e-3
    assert gap.mean() < 1e-3
    assert np.quantile(np.abs(sure - sure_too), 0.99) < 1e-2


@pytest.mark.gpu
def test_the_causal_filter_on_a_gpu_gives_what_the_cpu_gives(street: SyntheticClip, maps: DepthMaps) -> None:
    gap = np.abs(np.log(causal(street, maps, "cuda") / causal(street, maps, "cpu")))
    assert np.quantile(gap, 0.99) < 1e-3
