"""The causal filter: steadier than single frames, blind to what comes too late, and new after a cut."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from stf_depth.config import CausalConfig
from stf_depth.errors import ShapeError
from stf_depth.evaluation.consistency import flicker
from stf_depth.fusion import causal
from stf_depth.fusion.causal import CausalFrame, CausalFuser
from stf_depth.perception.base import FlowBackend
from stf_depth.perception.registry import create
from stf_depth.synthetic import DegradeConfig, SyntheticClip, degrade, render_clip, scene
from stf_depth.types import Ambiguity, DepthMaps


@pytest.fixture(scope="module")
def street() -> SyntheticClip:
    return render_clip(scene("street"), frames=12, wh=(128, 80))


def fuse(clip: SyntheticClip, maps: DepthMaps, config: CausalConfig, stop: int | None = None) -> list[CausalFrame]:
    fuser = CausalFuser(config, maps.ambiguity, flow=create("flow", "dis"))
    frames = [
        ready
        for rgb, disparity, valid in zip(clip.rgb[:stop], maps.depth[:stop], maps.valid[:stop], strict=True)
        for ready in fuser.push(rgb, disparity, valid)
    ]
    return frames + fuser.flush()


def stack(frames: list[CausalFrame]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([frame.disparity for frame in frames]), np.stack([frame.valid for frame in frames])


def test_it_is_steadier_than_single_frames(street: SyntheticClip) -> None:
    maps = degrade(street.depth, 0)
    before = flicker(maps.depth, street.rgb, valid=maps.valid)
    measured = []
    for lookahead in (0, 3):
        frames = fuse(street, maps, CausalConfig(lookahead_frames=lookahead))
        assert [frame.index for frame in frames] == list(range(len(street.rgb)))
        depth, valid = stack(frames)
        measured.append(flicker(depth, street.rgb, valid=valid))
    assert measured[0] < 0.5 * before
    assert measured[1] < measured[0]


@pytest.mark.parametrize("lookahead", [0, 3])
def test_moving_forward_is_not_taken_for_flicker(lookahead: int) -> None:
    clip = render_clip(scene("forward"), frames=24, wh=(128, 80))
    maps = degrade(clip.depth, 0)
    solid = np.isfinite(clip.depth)
    truth = np.where(solid, 1 / clip.depth, 0)

    def error(depth: np.ndarray) -> float:
        line = np.polyfit(depth[solid], truth[solid], 1)
        return float(np.abs(np.polyval(line, depth[solid]) / truth[solid] - 1).mean())

    carried, held_back = (
        error(stack(fuse(clip, maps, CausalConfig(lookahead_frames=lookahead, egomotion=on)))[0])
        for on in (True, False)
    )
    assert carried < 0.9 * held_back
    assert carried < error(maps.depth)


@pytest.mark.parametrize("lookahead", [0, 2])
def test_a_frame_comes_after_the_declared_lookahead_and_depends_on_nothing_later(
    street: SyntheticClip, lookahead: int
) -> None:
    maps = degrade(street.depth, 0)
    config = CausalConfig(lookahead_frames=lookahead)
    fuser = CausalFuser(config, maps.ambiguity, flow=create("flow", "dis"))
    seen: list[CausalFrame] = []
    for number in range(8):
        seen += fuser.push(street.rgb[number], maps.depth[number], maps.valid[number])
        assert len(seen) == max(0, number + 1 - lookahead)
    # Whatever follows frame 7 is other footage: what came out before must be the same.
    changed = DepthMaps(maps.depth.copy(), maps.valid, maps.representation, maps.ambiguity)
    changed.depth[8:] = 7.0
    whole = fuse(street, changed, config)
    for early, late in zip(seen, whole, strict=False):
        np.testing.assert_array_equal(early.disparity, late.disparity)


def test_a_cut_forgets_the_past() -> None:
    clip = render_clip(scene("two_shots"), frames=12, wh=(128, 80))
    cut = clip.shots[1].start
    maps = degrade(clip.depth, 1)
    for lookahead in (0, 3):
        config = CausalConfig(lookahead_frames=lookahead)
        frames = fuse(clip, maps, config)
        assert [frame.index for frame in frames if frame.is_reset] == [0, cut]
        second = SyntheticClip.__new__(type(clip))
        object.__setattr__(second, "rgb", clip.rgb[cut:])
        alone = fuse(second, DepthMaps(maps.depth[cut:], maps.valid[cut:], "disparity", Ambiguity.AFFINE), config)
        for whole, single in zip(frames[cut:], alone, strict=True):
            np.testing.assert_array_equal(whole.disparity, single.disparity)


def test_scale_and_shift_jitter_is_removed_exactly_where_nothing_moves() -> None:
    rng = np.random.default_rng(5)
    rgb = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    truth = rng.uniform(1, 2, (48, 64)).astype(np.float32)
    fuser = CausalFuser(CausalConfig(leak=0.0), Ambiguity.AFFINE, flow=create("flow", "dis"))
    everywhere = np.ones_like(truth, bool)
    fused = []
    for number in range(6):
        scale, shift = 1 + 0.1 * np.sin(number), 0.05 * np.cos(2 * number)
        (frame,) = fuser.push(rgb, (scale * truth + shift).astype(np.float32), everywhere)
        fused.append(frame.disparity)
    np.testing.assert_allclose(fused, np.stack([fused[0]] * 6), rtol=2e-4)


def test_the_correction_does_not_drift_away() -> None:
    """A network that turns to another scale for good is followed in the end."""
    rng = np.random.default_rng(6)
    rgb = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    truth = rng.uniform(1, 2, (48, 64)).astype(np.float32)
    everywhere = np.ones_like(truth, bool)
    fuser = CausalFuser(CausalConfig(leak=0.2, memory=2.0), Ambiguity.SCALE, flow=create("flow", "dis"))
    fuser.push(rgb, truth, everywhere)
    for _ in range(40):
        (frame,) = fuser.push(rgb, 1.2 * truth, everywhere)
    np.testing.assert_allclose(frame.disparity, 1.2 * truth, rtol=0.01)


def test_exact_input_is_hardly_touched(street: SyntheticClip) -> None:
    exact = degrade(street.depth, 0, DegradeConfig(scale=0, shift=0, field_white=0, field_slow=0, blur_sigma_px=0))
    depth, valid = stack(fuse(street, exact, CausalConfig()))
    used = valid & exact.valid & (exact.depth > 0.02)
    # The unit of affine disparity is free: one scale and shift for the clip.
    design = np.stack([depth[used], np.ones_like(depth[used])], 1).astype(np.float64)
    fitted = design @ np.linalg.lstsq(design, exact.depth[used].astype(np.float64), rcond=None)[0]
    gap = np.abs(fitted - exact.depth[used]) / exact.depth[used]
    assert np.median(gap) < 0.01
    assert gap.mean() < 0.03


def test_invalid_frames_stay_invalid_and_do_not_harm_the_rest(street: SyntheticClip) -> None:
    maps = degrade(street.depth, 0)
    maps.valid[4] = False
    maps.depth[5, :10] = np.nan
    maps.valid[5, :10] = False
    depth, valid = stack(fuse(street, maps, CausalConfig(lookahead_frames=1)))
    assert not valid[4].any()
    assert not valid[5, :9].any()
    assert valid[6].mean() > 0.9
    assert np.isfinite(depth).all()


def test_flow_without_a_number_is_no_match(street: SyntheticClip) -> None:
    dis = create("flow", "dis")
    assert dis is not None

    class Torn:
        def infer(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
            flow = dis.infer(first, second)
            flow[:, :4, :4] = np.nan
            return flow

    maps = degrade(street.depth, 0)
    fuser = CausalFuser(CausalConfig(lookahead_frames=1), maps.ambiguity, flow=cast(FlowBackend, Torn()))
    frames = [one for k in range(6) for one in fuser.push(street.rgb[k], maps.depth[k], maps.valid[k])]
    assert all(np.isfinite(frame.disparity).all() for frame in frames)
    assert [frame.is_reset for frame in frames] == [True, False, False, False, False]


def test_disparity_with_a_zero_stays_above_it(street: SyntheticClip, rng: np.random.Generator) -> None:
    """The coarse correction of something near does not push what is far beside it behind infinity."""
    truth = np.where(np.isfinite(street.depth), 1 / street.depth, 0)
    near = (truth * rng.uniform(0.7, 1.4, (len(truth), 1, 1)) + 1e-3).astype(np.float32)
    maps = DepthMaps.of(near, "disparity", "scale")
    depth, _ = stack(fuse(street, maps, CausalConfig(low_band_long_side_px=32, leak=0.9)))
    assert (depth > 0).all()


def test_a_change_of_size_begins_anew(street: SyntheticClip) -> None:
    fuser = CausalFuser(CausalConfig(lookahead_frames=2), Ambiguity.AFFINE, flow=create("flow", "dis"))
    small = np.full((20, 32), 0.5, np.float32)
    everywhere = np.ones_like(small, bool)
    assert fuser.push(street.rgb[0], small, everywhere) == []
    (first,) = fuser.push(np.ascontiguousarray(street.rgb[1][:40, :64]), small, everywhere)
    (second,) = fuser.flush()
    assert (first.disparity.shape, second.disparity.shape) == ((80, 128), (40, 64))
    assert second.is_reset


def test_frames_of_the_wrong_shape_are_refused() -> None:
    fuser = CausalFuser(CausalConfig(), Ambiguity.AFFINE, flow=create("flow", "dis"))
    with pytest.raises(ShapeError):
        fuser.push(np.zeros((4, 4), np.uint8), np.zeros((2, 2), np.float32), np.ones((2, 2), bool))
    with pytest.raises(ShapeError):
        fuser.push(np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2), np.float32), np.ones((2, 3), bool))


@pytest.mark.parametrize("lookahead", [0, 3])
def test_sharp_edges_of_a_steady_depth_are_not_averaged(lookahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = render_clip(scene("forward"), frames=12, wh=(160, 96))
    steady = degrade(
        clip.depth, 0, DegradeConfig(scale=0.01, shift=0, field_white=0.005, field_slow=0, blur_sigma_px=0)
    )
    restless = degrade(clip.depth, 0, DegradeConfig(field_white=0.2))
    truth = np.where(np.isfinite(clip.depth), 1 / clip.depth, 0)
    step = np.abs(np.diff(truth, axis=2)) > 0.3 * truth[:, :, 1:]
    beside = np.pad(step, ((0, 0), (0, 0), (0, 1))) & np.isfinite(clip.depth)
    config = CausalConfig(lookahead_frames=lookahead)

    def fused(maps: DepthMaps) -> np.ndarray:
        return stack(fuse(clip, maps, config))[0]

    def error(depth: np.ndarray) -> float:
        return float(np.abs(np.log(depth[beside] / truth[beside])).mean())

    kept, untouched = fused(steady), fused(restless)
    monkeypatch.setattr(causal, "sharp_edges", lambda disparity, **_: disparity * 0)
    averaged = fused(steady)
    assert beside.mean() > 0.005
    assert error(kept) < 0.9 * error(averaged)
    np.testing.assert_array_equal(untouched, fused(restless))
