"""Movers: which masks are believed, and what becomes of the structure on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stf_depth.config import FusionConfig
from stf_depth.fusion.inputs import ShotInputs, StructureMaps
from stf_depth.fusion.movers import with_believed_movers
from stf_depth.synthetic import SyntheticClip, render_clip, scene
from stf_depth.types import Ambiguity, Role

CONFIG = FusionConfig()


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
    believed = with_believed_movers(inputs, CONFIG)
    assert believed.structure is not None and believed.roles is not None
    np.testing.assert_array_equal(believed.roles[1], street.roles[1])
    confidence = np.asarray(believed.structure.confidence[1])
    assert (confidence == 0).any()
    np.testing.assert_array_equal(np.unique(confidence), np.array([0, 0.8], np.float32))


@pytest.mark.parametrize(("on_movers", "elsewhere"), [(0.8, 0.8), (0.5, 0.4)])
def test_masks_of_what_was_triangulated_as_well_as_the_rest_are_not_believed(
    street: SyntheticClip, on_movers: float, elsewhere: float
) -> None:
    inputs = inputs_of(street, on_movers=on_movers, elsewhere=elsewhere)
    result = with_believed_movers(inputs, CONFIG)
    assert inputs.structure is not None and result.structure is not None and result.roles is not None
    np.testing.assert_array_equal(result.structure.confidence[1], inputs.structure.confidence[1])
    assert result.roles.shape == street.roles.shape
    assert len(result.roles) == len(street.roles)
    expected = np.where(street.roles[1] == Role.MOVER, Role.UNKNOWN, street.roles[1])
    assert np.mean(np.asarray(result.roles[1]) != expected) < 0.01  # outlines, where the sizes differ
    assert (np.asarray(result.roles[1]) == Role.MOVER).sum() < 0.1 * (street.roles[1] == Role.MOVER).sum()


def test_each_segment_is_judged_alone(street: SyntheticClip) -> None:
    inputs = inputs_of(street, on_movers=0.1, elsewhere=0.8)
    assert inputs.structure is not None
    movers = np.unique(street.labels[street.roles == Role.MOVER])
    assert len(movers) == 3
    parked = street.labels == movers[0]
    confidence = np.where(parked[:, 1::2, 1::2], np.float32(0.8), inputs.structure.confidence)
    structure = StructureMaps(inputs.structure.disparity, confidence)
    result = with_believed_movers(replace(inputs, structure=structure, segments=street.labels), CONFIG)
    assert result.roles is not None
    left = np.asarray(result.roles[1]) == Role.MOVER
    assert left[parked[1]].mean() < 0.1
    for moving in movers[1:]:
        assert left[street.labels[1] == moving].mean() > 0.9


def test_without_structure_or_in_flow_mode_masks_are_believed(street: SyntheticClip) -> None:
    inputs = inputs_of(street, on_movers=0.8, elsewhere=0.8)
    alone = replace(inputs, structure=None)
    assert with_believed_movers(alone, CONFIG) is alone
    assert with_believed_movers(inputs, CONFIG.model_copy(update={"mode": "flow"})) is inputs


def test_what_was_triangulated_against_its_mask_is_suspect(street: SyntheticClip) -> None:
    solid = with_believed_movers(inputs_of(street, on_movers=0.8, elsewhere=0.8), CONFIG)
    moving = with_believed_movers(inputs_of(street, on_movers=0.1, elsewhere=0.8), CONFIG)
    assert solid.suspects is not None and moving.suspects is not None
    np.testing.assert_array_equal(solid.suspects[1], street.roles[1, 1::2, 1::2] == Role.MOVER)
    assert not np.asarray(moving.suspects[1]).any()


@pytest.mark.parametrize("called_mover", [True, False])
def test_structure_that_contradicts_the_network_by_far_is_not_believed(
    street: SyntheticClip, called_mover: bool
) -> None:
    """An oncoming car: triangulated surely at half its distance by a camera that drives towards it."""
    inputs = inputs_of(street, on_movers=0.8, elsewhere=0.8)
    roles = street.roles if called_mover else np.where(street.roles == Role.MOVER, Role.UNKNOWN, street.roles)
    movers, sky = street.roles == Role.MOVER, street.roles == Role.SKY
    assert inputs.structure is not None
    half = np.where(movers[:, ::2, ::2], np.float32(2.5), np.float32(1)) * inputs.structure.disparity
    structure = StructureMaps(half.astype(np.float32), inputs.structure.confidence)
    camera = reliable_path(len(street.rgb), street.intrinsics)
    weak = weak_network(street)
    inputs = replace(inputs, disparity=weak, roles=roles.astype(np.uint8), structure=structure, camera=camera)
    fused = np.concatenate([chunk.disparity for chunk in fuse_shot(inputs, RunConfig())])
    solid = ~movers & ~sky
    assert error_of(fused, street, solid) < 0.5 * error_of(weak, street, solid)
    assert error_of(fused, street, movers) < error_of(weak, street, movers) + 0.1
