"""Movers: which masks are believed, and what becomes of the structure on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stf_depth.config import FusionConfig, RunConfig
from stf_depth.fusion.inputs import ShotInputs, StructureMaps
from stf_depth.fusion.logmap import LogMap
from stf_depth.fusion.movers import with_believed_movers
from stf_depth.fusion.prelook import Prelook
from stf_depth.fusion.shot import fuse_shot
from stf_depth.fusion.structure import belief, contradiction_gap
from stf_depth.synthetic import SyntheticClip, render_clip, scene
from stf_depth.types import Ambiguity, CameraPath, MotionKind, Role

CONFIG = FusionConfig()
PRELOOK = Prelook(LogMap(0.0, 1e-6, Ambiguity.SCALE), 1.0)


@pytest.fixture(scope="module")
def street() -> SyntheticClip:
    return render_clip(scene("street"), frames=3, wh=(320, 180), noise_sigma=1.2)


def inputs_of(clip: SyntheticClip, *, on_movers: float, elsewhere: float) -> ShotInputs:
    """Structure at half the size of the roles, with these confidences."""
    movers = (clip.roles == Role.MOVER)[:, 1::2, 1::2]
    confidence = np.where(movers, on_movers, elsewhere).astype(np.float32)
    disparity = np.maximum(clip.disparity, 1e-3).astype(np.float32)
    structure = StructureMaps(disparity[:, ::2, ::2], confidence)
    valid = np.ones(disparity.shape, bool)
    return ShotInputs(clip.rgb, disparity, valid, Ambiguity.SCALE, roles=clip.roles, structure=structure)


def test_what_moves_has_no_structure_and_stays_a_mover(street: SyntheticClip) -> None:
    inputs = inputs_of(street, on_movers=0.1, elsewhere=0.8)
    believed = with_believed_movers(inputs, CONFIG, PRELOOK)
    assert believed.structure is not None and believed.roles is not None
    np.testing.assert_array_equal(believed.roles[1], street.roles[1])
    confidence = np.asarray(believed.structure.confidence[1])
    assert (confidence == 0).any()
    np.testing.assert_array_equal(np.unique(confidence), np.array([0, 0.8], np.float32))


@pytest.mark.parametrize("other", [Role.MOVER, Role.SKY])
def test_movers_of_a_frame_without_anything_solid_are_believed(street: SyntheticClip, other: Role) -> None:
    inputs = inputs_of(street, on_movers=0.8, elsewhere=0.8)
    roles = np.where(street.roles == Role.MOVER, street.roles, np.uint8(other))
    believed = with_believed_movers(replace(inputs, roles=roles), CONFIG, PRELOOK)
    assert believed.roles is not None
    np.testing.assert_array_equal(believed.roles[1], roles[1])


@pytest.mark.parametrize(("on_movers", "elsewhere"), [(0.8, 0.8), (0.5, 0.4)])
def test_masks_of_what_was_triangulated_as_well_as_the_rest_are_not_believed(
    street: SyntheticClip, on_movers: float, elsewhere: float
) -> None:
    inputs = inputs_of(street, on_movers=on_movers, elsewhere=elsewhere)
    result = with_believed_movers(inputs, CONFIG, PRELOOK)
    assert inputs.structure is not None and result.structure is not None and result.roles is not None
    np.testing.assert_array_equal(result.structure.confidence[1], inputs.structure.confidence[1])
    assert result.roles.shape == street.roles.shape
    assert len(result.roles) == len(street.roles)
    expected = np.where(street.roles[1] == Role.MOVER, Role.UNKNOWN, street.roles[1])
    assert np.mean(np.asarray(result.roles[1]) != expected) < 0.01  # outlines, where the sizes differ
    assert (np.asarray(result.roles[1]) == Role.MOVER).sum() < 0.1 * (street.roles[1] == Role.MOVER).sum()


@pytest.mark.parametrize(("factor", "is_parked"), [(1.0, True), (1.15, True), (0.5, False), (1.7, False)])
def test_what_was_triangulated_far_from_where_the_network_has_it_moves(
    street: SyntheticClip, factor: float, is_parked: bool
) -> None:
    inputs = inputs_of(street, on_movers=0.8, elsewhere=0.8)
    assert inputs.structure is not None
    # A network whose unit is not the structure's, and structure that puts the movers elsewhere.
    network = np.asarray(inputs.disparity) * np.float32(3)
    movers = (street.roles == Role.MOVER)[:, ::2, ::2]
    triangulated = np.asarray(inputs.structure.disparity) * np.where(movers, np.float32(factor), 1)
    structure = StructureMaps(triangulated.astype(np.float32), inputs.structure.confidence)
    prelook = Prelook(LogMap(0.0, 1e-6, Ambiguity.SCALE), 3.0)
    result = with_believed_movers(replace(inputs, disparity=network, structure=structure), CONFIG, prelook)
    assert result.roles is not None and result.structure is not None
    still_movers = (np.asarray(result.roles[1]) == Role.MOVER).sum() / (street.roles[1] == Role.MOVER).sum()
    without = (np.asarray(result.structure.confidence[1]) == 0).sum() / movers[1].sum()
    assert (still_movers < 0.1 and without < 0.1) if is_parked else (still_movers > 0.9 and without > 0.9)


def test_a_network_that_is_far_off_everywhere_tells_no_parked_car_from_a_moving_one(
    street: SyntheticClip, rng: np.random.Generator
) -> None:
    inputs = inputs_of(street, on_movers=0.8, elsewhere=0.8)
    movers = street.roles == Role.MOVER
    wrong = np.exp(np.where(movers, -0.4, rng.normal(0, 0.4, movers.shape))).astype(np.float32)
    result = with_believed_movers(replace(inputs, disparity=np.asarray(inputs.disparity) * wrong), CONFIG, PRELOOK)
    assert result.roles is not None
    assert (np.asarray(result.roles[1]) == Role.MOVER).sum() < 0.1 * movers[1].sum()
    sharp = np.exp(np.where(movers, np.float32(-0.4), 0))
    result = with_believed_movers(replace(inputs, disparity=np.asarray(inputs.disparity) * sharp), CONFIG, PRELOOK)
    assert result.roles is not None
    assert (np.asarray(result.roles[1]) == Role.MOVER).sum() > 0.9 * movers[1].sum()


def test_how_far_off_a_network_is_the_whole_shot_tells(street: SyntheticClip, rng: np.random.Generator) -> None:
    """In the middle frame it happens to be right about the rest; a parked car must not begin to move for that."""
    inputs = inputs_of(street, on_movers=0.8, elsewhere=0.8)
    movers = street.roles == Role.MOVER
    noise = rng.normal(0, np.array([0.4, 0.02, 0.4])[:, None, None], movers.shape)
    wrong = np.exp(np.where(movers, -0.4, noise)).astype(np.float32)
    result = with_believed_movers(replace(inputs, disparity=np.asarray(inputs.disparity) * wrong), CONFIG, PRELOOK)
    assert result.roles is not None
    assert (np.asarray(result.roles[1]) == Role.MOVER).sum() < 0.1 * movers[1].sum()


def test_each_segment_is_judged_alone(street: SyntheticClip) -> None:
    inputs = inputs_of(street, on_movers=0.1, elsewhere=0.8)
    assert inputs.structure is not None
    movers = np.unique(street.labels[street.roles == Role.MOVER])
    assert len(movers) == 3
    parked = street.labels == movers[0]
    confidence = np.where(parked[:, 1::2, 1::2], np.float32(0.8), inputs.structure.confidence)
    structure = StructureMaps(inputs.structure.disparity, confidence)
    result = with_believed_movers(replace(inputs, structure=structure, segments=street.labels), CONFIG, PRELOOK)
    assert result.roles is not None
    left = np.asarray(result.roles[1]) == Role.MOVER
    assert left[parked[1]].mean() < 0.1
    for moving in movers[1:]:
        assert left[street.labels[1] == moving].mean() > 0.9


def test_without_structure_or_in_flow_mode_masks_are_believed(street: SyntheticClip) -> None:
    inputs = inputs_of(street, on_movers=0.8, elsewhere=0.8)
    alone = replace(inputs, structure=None)
    assert with_believed_movers(alone, CONFIG, PRELOOK) is alone
    assert with_believed_movers(inputs, CONFIG.model_copy(update={"mode": "flow"}), PRELOOK) is inputs


def test_what_contradicts_the_network_by_far_bends_it_little(street: SyntheticClip) -> None:
    """Surely triangulated at a third of its distance, as what drives towards the camera is."""
    inputs = inputs_of(street, on_movers=0.8, elsewhere=0.8)
    assert inputs.structure is not None
    movers, sky = street.roles == Role.MOVER, street.roles == Role.SKY
    nearer = np.where(movers[:, ::2, ::2], np.float32(3), np.float32(1)) * inputs.structure.disparity
    inputs = replace(
        inputs,
        disparity=weak_network(street),
        roles=None,
        structure=StructureMaps(nearer, inputs.structure.confidence),
        camera=true_path(street),
    )
    plain, believing = (
        errors_of(np.concatenate([chunk.disparity for chunk in fuse_shot(inputs, config)]), street)
        for config in (RunConfig(), RunConfig().with_values({"fusion.structure_contradiction": 100.0}))
    )
    before = errors_of(inputs.disparity, street)
    assert plain[~movers & ~sky].mean() < 0.5 * before[~movers & ~sky].mean()
    assert plain[movers].mean() < 0.8 * believing[movers].mean()


def test_what_a_good_network_contradicts_moves(street: SyntheticClip) -> None:
    """One of the movers, without a mask, surely triangulated at seven tenths of its distance."""
    inputs = inputs_of(street, on_movers=0.9, elsewhere=0.9)
    assert inputs.structure is not None
    shares = {label: (street.labels == label).mean() for label in np.unique(street.labels[street.roles == Role.MOVER])}
    movers = street.labels == min(shares, key=lambda label: shares[label])
    assert 0.005 < movers.mean() < 0.04  # few enough for the rest to judge
    nearer = np.where(movers[:, 1::2, 1::2], np.float32(1 / 0.7), np.float32(1)) * inputs.structure.disparity
    inputs = replace(
        inputs, roles=None, structure=StructureMaps(nearer, inputs.structure.confidence), camera=true_path(street)
    )

    def on_movers(disparity: np.ndarray, **options: float) -> float:
        config = RunConfig().with_values({f"fusion.{name}": value for name, value in options.items()})
        chunks = fuse_shot(replace(inputs, disparity=disparity), config)
        return float(errors_of(np.concatenate([chunk.disparity for chunk in chunks]), street)[movers].mean())

    good = good_network(street)
    judged = on_movers(good)
    assert judged < 1.2 * float(errors_of(good, street)[movers].mean())
    assert judged < 0.5 * on_movers(good, contradiction_least=0.75)


def true_path(clip: SyntheticClip) -> CameraPath:
    count = len(clip)
    trust = np.ones(count, np.float32)
    return CameraPath(MotionKind.PARALLAX, clip.intrinsics, clip.world_from_cam, np.ones(count, bool), trust)


def good_network(clip: SyntheticClip) -> np.ndarray:
    """Disparity with waves of a sixth, too short for the alignment."""
    height, width = clip.depth.shape[1:]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.maximum(clip.disparity, np.float32(1e-3)) * np.exp(np.float32(0.16) * np.sin(x / 3) * np.cos(y / 4))


def weak_network(clip: SyntheticClip) -> np.ndarray:
    """Disparity with a bias that stays in its place, from 0.7 to 1.4 times the true one."""
    height, width = clip.depth.shape[1:]
    across = np.linspace(-1, 1, width, dtype=np.float32) * np.sin(np.linspace(0, 3, height, dtype=np.float32))[:, None]
    return np.maximum(clip.disparity, np.float32(1e-3)) * np.exp(np.float32(0.35) * across)


def errors_of(disparity: object, clip: SyntheticClip) -> np.ndarray:
    return np.abs(np.log(np.asarray(disparity) / np.maximum(clip.disparity, 1e-3)))


def test_belief_falls_with_the_gap_to_the_network() -> None:
    gap = torch.tensor([0.0, 0.5, 1.0, -1.0])
    np.testing.assert_allclose(belief(gap, 0.5), [1, 0.5, 1 / 257, 1 / 257], rtol=1e-6)


def test_a_network_that_is_wrong_over_fields_contradicts_no_structure_but_a_mover_does() -> None:
    y, x = np.mgrid[:90, :160].astype(np.float32) / 90
    truth = torch.from_numpy(0.3 * x - 0.2 * y)[None, None]
    network = truth + torch.from_numpy(0.3 * np.sin(2 * x) * np.cos(y))[None, None].float()
    structure = truth.clone()
    structure[..., 40:56, 60:76] -= 0.6  # what drives ahead is triangulated far away
    ones = torch.ones_like(truth)
    gap = contradiction_gap(network, ones, structure, ones, CONFIG)[0, 0]
    mover = torch.zeros(90, 160, dtype=torch.bool)
    mover[40:56, 60:76] = True
    assert float((structure - network).abs()[0, 0][~mover].quantile(0.9)) > 0.2
    assert float(gap[~mover].abs().quantile(0.9)) < 0.06
    assert float(gap[mover].abs().median()) > 0.4
