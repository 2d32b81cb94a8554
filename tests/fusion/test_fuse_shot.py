"""fuse_shot as a whole, on scenes with exact depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from stf_depth.config import RunConfig
from stf_depth.errors import ShapeError
from stf_depth.fusion.egomotion import Egomotion
from stf_depth.fusion.inputs import FusedChunk, ShotInputs, StructureMaps
from stf_depth.fusion.shot import fuse_shot
from stf_depth.synthetic import SyntheticClip, degrade, render_clip, scene
from stf_depth.synthetic.degrade import DegradeConfig
from stf_depth.types import Ambiguity, CameraPath, DepthMaps, MotionKind, Representation, Role

WH = (160, 96)
FRAMES = 16
CONFIG = RunConfig()


@pytest.fixture(scope="module")
def room() -> SyntheticClip:
    return render_clip(scene("room"), frames=FRAMES, wh=WH)


@pytest.fixture(scope="module")
def movers() -> SyntheticClip:
    return render_clip(scene("static_camera_movers"), frames=FRAMES, wh=WH)


@pytest.fixture(scope="module")
def street() -> SyntheticClip:
    return render_clip(scene("street"), frames=8, wh=WH)


def camera_of(clip: SyntheticClip) -> CameraPath:
    count = len(clip.rgb)
    return CameraPath(
        MotionKind.PARALLAX, clip.intrinsics, clip.world_from_cam, np.ones(count, bool), np.ones(count, np.float32)
    )


def true_disparity(clip: SyntheticClip) -> np.ndarray:
    return np.where(np.isfinite(clip.depth), 1 / clip.depth, 0).astype(np.float32)


def structure_of(clip: SyntheticClip, confidence: float = 0.8) -> StructureMaps:
    disparity = true_disparity(clip)
    return StructureMaps(disparity, np.full(disparity.shape, confidence, np.float32))


def inputs_of(clip: SyntheticClip, maps: DepthMaps, **more: Any) -> ShotInputs:
    return ShotInputs(clip.rgb, maps.depth, maps.valid, maps.ambiguity, **more)


def run(inputs: ShotInputs, settings: Mapping[str, Any] | None = None) -> list[FusedChunk]:
    return list(fuse_shot(inputs, RunConfig().with_values(settings or {})))


def joined(chunks: list[FusedChunk]) -> np.ndarray:
    return np.concatenate([chunk.disparity for chunk in chunks])


def abs_rel(disparity: np.ndarray, clip: SyntheticClip, mask: np.ndarray | None = None) -> float:
    """Whole-clip AbsRel after one scale and shift over all frames."""
    solid = np.isfinite(clip.depth)
    p, g = disparity[solid].astype(np.float64), 1 / clip.depth[solid].astype(np.float64)
    line = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), g, rcond=None)[0]
    z = 1 / np.maximum(line[0] * disparity + line[1], 1e-3)
    counted = solid if mask is None else solid & mask
    return float((np.abs(z - clip.depth)[counted] / clip.depth[counted]).mean())


def flicker(disparity: np.ndarray, mask: np.ndarray) -> float:
    """Mean over frames of the step of log disparity at pixels that stay."""
    both = mask[1:] & mask[:-1]
    step = np.abs(np.diff(np.log(np.maximum(disparity, 1e-6)), axis=0))
    return float(step[both].mean())


def test_chunks_cover_every_frame_once_at_the_working_size(room: SyntheticClip) -> None:
    small = degrade(room.depth, 0).depth[:, ::2, ::2].copy()
    maps = DepthMaps.of(small, "disparity", "affine")
    chunks = run(inputs_of(room, maps), {"fusion.chunk_frames": 5})
    assert [chunk.start for chunk in chunks] == [0, 5, 10, 15]
    disparity = joined(chunks)
    assert disparity.shape == room.depth.shape
    assert disparity.dtype == np.float32
    for chunk in chunks:
        assert chunk.valid.dtype == bool
        assert chunk.confidence.dtype == np.float32
        assert chunk.confidence.min() >= 0
        assert chunk.confidence.max() <= 1


def test_flow_mode_steadies_an_unsteady_input(room: SyntheticClip) -> None:
    maps = degrade(room.depth, 1)
    fused = joined(run(inputs_of(room, maps), {"fusion.mode": "flow"}))
    assert abs_rel(fused, room) < 0.85 * abs_rel(maps.depth, room)


def test_structure_halves_the_error_and_resolves_the_offset(room: SyntheticClip) -> None:
    maps = degrade(room.depth, 1)
    inputs = inputs_of(room, maps, camera=camera_of(room), structure=structure_of(room))
    chunks = run(inputs)
    assert {chunk.ambiguity for chunk in chunks} == {Ambiguity.SCALE}
    assert abs_rel(joined(chunks), room) < 0.5 * abs_rel(maps.depth, room)
    ratio = np.median(joined(chunks), axis=(1, 2)) / np.median(true_disparity(room), axis=(1, 2))
    assert ratio.std() / ratio.mean() < 0.02


def test_a_good_network_keeps_its_low_band_against_a_biased_structure(room: SyntheticClip) -> None:
    mild = DegradeConfig(scale=0.03, shift=0.01, field_white=0.03, field_slow=0.02)
    maps = degrade(room.depth, 1, mild)
    bias = np.exp(0.12 * np.sin(np.linspace(0, 5, WH[0])))[None, None].astype(np.float32)
    structure = StructureMaps(true_disparity(room) * bias, np.full(room.depth.shape, 0.8, np.float32))
    inputs = inputs_of(room, maps, camera=camera_of(room), structure=structure)
    kept, bent = (joined(run(inputs, {"fusion.structure_bend": bend})) for bend in (CONFIG.fusion.structure_bend, 1e-6))
    assert abs_rel(kept, room) < abs_rel(bent, room)


def test_structure_that_was_seen_well_corrects_a_good_network_that_flickers(room: SyntheticClip) -> None:
    maps = degrade(room.depth, 1, DegradeConfig(scale=0.03, shift=0.01, field_white=0.045, field_slow=0.03))
    inputs = inputs_of(room, maps, camera=camera_of(room), structure=structure_of(room))
    corrected, left = (joined(run(inputs, {"fusion.structure_jitter": k})) for k in (CONFIG.fusion.structure_jitter, 0))
    assert abs_rel(corrected, room) < 0.8 * abs_rel(left, room)


def test_a_sharp_network_that_flickers_little_is_steadied_and_keeps_its_edges(room: SyntheticClip) -> None:
    """Though the structure is worse than the network, and its borders lie beside the segments'."""
    fine = DegradeConfig(scale=0.012, shift=0.006, field_white=0.006, field_slow=0.008, blur_sigma_px=0.5)
    maps = degrade(room.depth, 1, fine)
    bias = np.exp(0.05 * np.sin(np.linspace(0, 9, WH[0])))[None, None].astype(np.float32)
    structure = StructureMaps(true_disparity(room) * bias, np.full(room.depth.shape, 0.8, np.float32))
    masks = {"segments": np.roll(room.labels, 2, axis=2), "roles": room.roles}
    fused = joined(run(inputs_of(room, maps, camera=camera_of(room), structure=structure, **masks)))
    assert abs_rel(fused, room) < 0.85 * abs_rel(maps.depth, room)
    everywhere = np.ones(fused.shape, bool)
    before, after = (flicker(depth / true_disparity(room), everywhere) for depth in (maps.depth, fused))
    assert after < 0.5 * before
    edges = [np.abs(np.diff(np.log(depth), axis=2)) for depth in (true_disparity(room), maps.depth, fused)]
    is_edge = edges[0] > 0.3
    assert edges[2][is_edge].mean() > 0.95 * edges[1][is_edge].mean()


def test_flicker_below_the_noise_of_flow_is_taken_away_without_the_structure(room: SyntheticClip) -> None:
    faint = DegradeConfig(scale=0.01, shift=0, field_white=0.004, field_slow=0.004, blur_sigma_px=0.5)
    maps = degrade(room.depth, 1, faint)
    bias = np.exp(0.04 * np.sin(np.linspace(0, 5, WH[0])))[None, None].astype(np.float32)
    structure = StructureMaps(true_disparity(room) * bias, np.full(room.depth.shape, 0.8, np.float32))
    inputs = inputs_of(room, maps, camera=camera_of(room), structure=structure)
    fused, anchored = (joined(run(inputs, {"fusion.abstain": abstain})) for abstain in (True, False))
    everywhere = np.ones(fused.shape, bool)
    before, after = (flicker(depth / true_disparity(room), everywhere) for depth in (maps.depth, fused))
    assert after < 0.5 * before
    assert abs_rel(fused, room) < abs_rel(maps.depth, room)
    assert abs_rel(fused, room) < 0.8 * abs_rel(anchored, room)


@pytest.mark.parametrize("ambiguity", [Ambiguity.SCALE, Ambiguity.AFFINE])
def test_structure_that_swaps_near_and_far_is_not_used(room: SyntheticClip, ambiguity: Ambiguity) -> None:
    maps = replace(degrade(room.depth, 1), ambiguity=ambiguity)
    right = structure_of(room)
    swapped = replace(right, disparity=(right.disparity.max() + right.disparity.min() - right.disparity))
    with_swapped = joined(run(inputs_of(room, maps, camera=camera_of(room), structure=swapped)))
    alone = joined(run(inputs_of(room, maps, camera=camera_of(room)), {"fusion.mode": "flow"}))
    np.testing.assert_array_equal(with_swapped, alone)


def test_flow_mode_tells_the_cameras_motion_from_flicker() -> None:
    """Moving forward brings things nearer; with large steps the alignment would take that for flicker."""
    clip = render_clip(scene("forward"), frames=32, wh=WH)
    steps = replace(clip, rgb=clip.rgb[::2], depth=clip.depth[::2])
    maps = degrade(steps.depth, 1)
    with_motion, without = (
        abs_rel(joined(run(inputs_of(steps, maps), {"fusion.mode": "flow", "fusion.egomotion": on})), steps)
        for on in (True, False)
    )
    assert with_motion < 0.97 * without


def test_a_camera_on_the_spot_has_no_motion_to_be_found(movers: SyntheticClip, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def push(_motion: Egomotion, frame: int, *_maps: np.ndarray) -> None:
        steps.append(frame)

    monkeypatch.setattr(Egomotion, "push", push)
    inputs = inputs_of(movers, degrade(movers.depth, 1))
    run(replace(inputs, camera=replace(camera_of(movers), kind=MotionKind.STATIC)))
    assert not steps
    run(inputs)
    assert steps == list(range(1, FRAMES))


def test_frames_without_a_pose_in_a_solved_shot_are_no_worse_than_in_an_unsolved_one() -> None:
    clip = render_clip(scene("forward"), frames=48, wh=WH)
    steps = replace(clip, rgb=clip.rgb[::2], depth=clip.depth[::2], world_from_cam=clip.world_from_cam[::2])
    maps, posed = degrade(steps.depth, 1), np.arange(24) < 12
    path, structure = camera_of(steps), structure_of(steps)
    path = replace(path, solved=posed, reliability=posed.astype(np.float32))
    structure = replace(structure, confidence=np.where(posed[:, None, None], structure.confidence, 0))
    unposed = np.broadcast_to((np.arange(24) >= 16)[:, None, None], steps.depth.shape)
    partly, never = (
        abs_rel(joined(run(inputs))[unposed[:, 0, 0]], replace(steps, depth=steps.depth[unposed[:, 0, 0]]))
        for inputs in (inputs_of(steps, maps, camera=path, structure=structure), inputs_of(steps, maps))
    )
    assert partly < 1.05 * never


def test_alignment_switched_off_leaves_the_evidence_and_the_cameras_motion(room: SyntheticClip) -> None:
    maps = degrade(room.depth, 1)
    inputs = inputs_of(room, maps, camera=camera_of(room), structure=structure_of(room))
    off, without_parts = (
        joined(run(inputs, settings))
        for settings in ({"alignment.enabled": False}, {"alignment.affine": False, "alignment.grid": False})
    )
    np.testing.assert_array_equal(off, without_parts)
    truth = DepthMaps.of(true_disparity(room), "disparity", "scale")
    np.testing.assert_array_equal(joined(run(inputs_of(room, truth), {"alignment.enabled": False})), truth.depth)


class LosesItself:
    """Flow with no number for the left half of the picture."""

    def infer(self, first: np.ndarray, _second: np.ndarray) -> np.ndarray:
        flow = np.zeros((*first.shape[:3], 2), np.float32)
        flow[:, :, : first.shape[2] // 2] = np.nan
        return flow


def test_flow_that_is_no_number_is_no_match(movers: SyntheticClip) -> None:
    maps = degrade(movers.depth, 1)
    chunks = list(fuse_shot(inputs_of(movers, maps), RunConfig(), flow=LosesItself()))  # type: ignore[arg-type]
    assert np.isfinite(joined(chunks)).all()
    half = WH[0] // 2
    static = np.broadcast_to(movers.roles[:1] != Role.MOVER, movers.roles.shape)
    lost, found = (flicker(joined(chunks)[..., part], static[..., part]) for part in (np.s_[:half], np.s_[half:]))
    assert found < 0.5 * lost


@pytest.mark.parametrize("name", ["room", "street"])
def test_flow_mode_ignores_path_and_structure(name: str) -> None:
    clip = render_clip(scene(name), frames=8, wh=WH)
    maps = degrade(clip.depth, 1)
    masks: dict[str, Any] = {"roles": clip.roles.astype(np.uint8), "segments": clip.labels.astype(np.int32)}
    still = replace(camera_of(clip), world_from_cam=np.tile(np.eye(4), (8, 1, 1)))
    bare = joined(run(inputs_of(clip, maps, camera=still, **masks), {"fusion.mode": "flow"}))
    inputs = inputs_of(clip, maps, camera=camera_of(clip), structure=structure_of(clip), **masks)
    np.testing.assert_array_equal(bare, joined(run(inputs, {"fusion.mode": "flow"})))


@pytest.mark.parametrize("offset", [-100.0, -5.0, 1.0, 3.0, 100.0])
def test_affine_disparity_may_have_any_offset(room: SyntheticClip, offset: float) -> None:
    maps = degrade(room.depth, 1)
    before = abs_rel(joined(run(inputs_of(room, maps), {"fusion.mode": "flow"})), room)
    moved = replace(maps, depth=maps.depth + np.float32(offset))
    fused = joined(run(inputs_of(room, moved), {"fusion.mode": "flow"}))
    assert abs_rel(fused, room) < 1.1 * before


def test_what_the_camera_comes_near_is_steadied_no_worse_for_a_pose_in_every_frame() -> None:
    """The filter along flow alone: without knowing that things come nearer, it averages over it."""
    clip = render_clip(scene("forward"), frames=24, wh=WH)
    maps, stages = degrade(clip.depth, 1), ("pose_filter", "structure", "fine_filter")
    some = np.ones(24, bool)
    some[12] = False
    errors = []
    for solved in (np.ones(24, bool), some):
        camera = replace(camera_of(clip), solved=solved)
        inputs = inputs_of(clip, maps, camera=camera, structure=structure_of(clip))
        fused = joined(run(inputs, {f"fusion.{stage}": False for stage in stages}))
        errors.append(abs_rel(fused, clip))
    assert errors[0] < 1.02 * errors[1]


def test_metric_input_keeps_its_scale(room: SyntheticClip, rng: np.random.Generator) -> None:
    jitter = np.exp(rng.normal(0, 0.08, FRAMES)).astype(np.float32)[:, None, None]
    maps = DepthMaps.of(true_disparity(room) * jitter, "disparity", "metric")
    structure = structure_of(room)
    scaled = StructureMaps(np.asarray(structure.disparity) * 17, structure.confidence)
    camera = camera_of(room)
    poses = camera.world_from_cam.copy()
    poses[:, :3, 3] /= 17
    inputs = inputs_of(
        room,
        maps,
        structure=scaled,
        camera=CameraPath(camera.kind, camera.intrinsics, poses, camera.solved, camera.reliability),
    )
    chunks = run(inputs)
    assert chunks[0].ambiguity is Ambiguity.METRIC
    drift = np.median(np.log(joined(chunks) / true_disparity(room))) - np.median(np.log(jitter))
    assert abs(drift) < 0.02


@pytest.mark.parametrize("with_structure", [True, False])
def test_truth_comes_back_untouched(room: SyntheticClip, with_structure: bool) -> None:
    truth = true_disparity(room)
    maps = DepthMaps.of(truth, "disparity", "metric")
    more = {"camera": camera_of(room), "structure": structure_of(room)} if with_structure else {}
    segments = {"roles": room.roles, "segments": room.labels}
    np.testing.assert_allclose(joined(run(inputs_of(room, maps, **more, **segments))), truth, rtol=1e-5)


def test_an_untouched_input_is_as_sure_as_the_structure_says(room: SyntheticClip) -> None:
    structure = structure_of(room)
    np.asarray(structure.confidence)[:, : WH[1] // 2] = 0.1
    maps = DepthMaps.of(true_disparity(room), "disparity", "metric")
    chunks = run(inputs_of(room, maps, camera=camera_of(room), structure=structure))
    np.testing.assert_allclose(joined(chunks), true_disparity(room), rtol=1e-5)
    confidence = np.concatenate([chunk.confidence for chunk in chunks])
    assert np.median(confidence[:, 60:]) > np.median(confidence[:, :30]) + 0.3


def test_own_output_fed_back_is_no_worse(room: SyntheticClip) -> None:
    more = {"camera": camera_of(room), "structure": structure_of(room)}
    once = joined(run(inputs_of(room, degrade(room.depth, 1), **more)))
    twice = joined(run(inputs_of(room, DepthMaps.of(once, "disparity", "scale"), **more)))
    assert abs_rel(twice, room) <= abs_rel(once, room) + 0.003


def test_a_steady_result_with_sky_fed_back_comes_back(street: SyntheticClip) -> None:
    """Where the sky's mask reaches over what is solid, and the sky itself has no depth, as a sensor's."""
    mild = degrade(
        street.depth, 1, DegradeConfig(scale=0.012, shift=0, field_white=0.006, field_slow=0, blur_sigma_px=0.5)
    )
    solid = np.isfinite(street.depth)
    sky = np.stack([ndimage.binary_dilation(frame == Role.SKY, iterations=2) for frame in street.roles])
    roles = np.where(sky, np.uint8(Role.SKY), street.roles).astype(np.uint8)
    depth = np.where(solid, mild.depth, 0).astype(np.float32)
    more = {"camera": camera_of(street), "roles": roles, "segments": street.labels}
    once = np.where(solid, joined(run(ShotInputs(street.rgb, depth, solid, Ambiguity.SCALE, **more))), 0)
    twice = joined(run(ShotInputs(street.rgb, once.astype(np.float32), solid, Ambiguity.SCALE, **more)))
    differs = np.abs(twice[solid] / once[solid] - 1) > 1e-4
    assert differs.mean() < 1e-4  # single pixels at the mask's border change sides


def test_fixed_camera_with_movers(movers: SyntheticClip) -> None:
    maps = degrade(movers.depth, 1)
    fused = joined(run(inputs_of(movers, maps, roles=movers.roles, segments=movers.labels)))
    moving = movers.roles == 5
    assert flicker(fused, ~moving) < 0.2 * flicker(maps.depth, ~moving)
    assert abs_rel(fused, movers, moving) <= abs_rel(maps.depth, movers, moving)


def damaged(clip: SyntheticClip, kind: str) -> dict[str, np.ndarray]:
    roles, labels = clip.roles.copy(), clip.labels.copy()
    if kind == "shifted":
        return {"roles": np.roll(roles, 9, 2), "segments": np.roll(labels, 9, 2)}
    if kind == "missing":
        roles[::2], labels[::2] = 0, 0
    if kind == "eroded":
        border = np.zeros(labels.shape, bool)
        for shift in range(1, 5):
            for axis in (1, 2):
                border |= np.roll(labels, shift, axis) != labels
                border |= np.roll(labels, -shift, axis) != labels
        roles[border], labels[border] = 0, 0
    return {"roles": roles, "segments": labels}


@pytest.mark.parametrize("kind", ["shifted", "missing", "eroded"])
def test_damaged_masks_are_no_worse_than_none(movers: SyntheticClip, kind: str) -> None:
    maps = degrade(movers.depth, 2)
    bare = joined(run(inputs_of(movers, maps)))
    fused = joined(run(inputs_of(movers, maps, **damaged(movers, kind))))
    assert abs_rel(fused, movers) <= abs_rel(bare, movers) + 0.001


def test_good_masks_sharpen_edges_and_lower_the_error(movers: SyntheticClip) -> None:
    maps = degrade(movers.depth, 2)
    bare = joined(run(inputs_of(movers, maps)))
    fused = joined(run(inputs_of(movers, maps, roles=movers.roles, segments=movers.labels)))
    assert abs_rel(fused, movers) < 0.95 * abs_rel(bare, movers)


def test_masks_whose_borders_tremble_leave_edges_steady(movers: SyntheticClip) -> None:
    """The camera stands still, and so do the borders that the background has in itself."""
    maps = degrade(movers.depth, 0)
    jitter = np.random.default_rng(0).integers(-2, 3, FRAMES)
    masks = {
        name: np.stack([np.roll(mask, step, 1) for mask, step in zip(values, jitter, strict=True)])
        for name, values in (("roles", movers.roles), ("segments", movers.labels))
    }
    static = ndimage.binary_erosion(movers.roles != Role.MOVER, np.ones((1, 9, 9)))
    alone, carried = (joined(run(inputs_of(movers, maps, **masks), {"fusion.snap_reach": r})) for r in (0, 2))
    without = joined(run(inputs_of(movers, maps)))
    excess = [flicker(result, static) - flicker(without, static) for result in (alone, carried)]
    assert excess[0] > 0
    assert excess[1] < 0.5 * excess[0]


def test_movers_that_stand_still_are_steadied_with_the_rest(room: SyntheticClip) -> None:
    """A mask that calls a wall a mover in every third frame does nothing where the wall was triangulated."""
    roles = np.full(room.roles.shape, Role.STATIC, np.uint8)
    wrong = roles.copy()
    wrong[::3, :, : WH[0] // 2] = Role.MOVER
    more = {"camera": camera_of(room), "structure": structure_of(room)}
    maps = degrade(room.depth, 0)
    right, other = (joined(run(inputs_of(room, maps, roles=part, **more))) for part in (roles, wrong))
    # All that is left is that masks which come and go are no segments of their surroundings.
    assert np.median(np.abs(np.log(other / right))) < 1e-3
    assert abs_rel(other, room) < 1.002 * abs_rel(right, room)


def test_sky_is_behind_everything_and_shifted_sky_is_not_believed(street: SyntheticClip) -> None:
    maps = degrade(street.depth, 3)
    sky = street.roles == 1
    fused = joined(run(inputs_of(street, maps, roles=street.roles)))
    core = sky & np.roll(sky, 1, 1) & np.roll(sky, 1, 2) & np.roll(sky, -1, 2)
    for frame in range(len(fused)):
        assert fused[frame][core[frame]].max() < fused[frame][~sky[frame]].min()
    bare = joined(run(inputs_of(street, maps)))
    wrong = joined(run(inputs_of(street, maps, **damaged(street, "shifted"))))
    assert abs_rel(wrong, street) <= 1.05 * abs_rel(bare, street)


def test_confidence_ranks_errors(room: SyntheticClip, rng: np.random.Generator) -> None:
    confidence = np.full(room.depth.shape, 0.05, np.float32)
    confidence[:, :, : WH[0] // 2] = 0.9
    wrong = np.where(confidence < 0.1, np.exp(rng.normal(0, 0.3, room.depth.shape)), 1).astype(np.float32)
    structure = StructureMaps(true_disparity(room) * wrong, confidence)
    chunks = run(inputs_of(room, degrade(room.depth, 1), camera=camera_of(room), structure=structure))
    ratio = np.log(joined(chunks) / true_disparity(room))
    error = np.abs(ratio - np.median(ratio))
    sure = np.concatenate([chunk.confidence for chunk in chunks])
    high, low = sure > np.quantile(sure, 0.7), sure < np.quantile(sure, 0.3)
    assert error[high].mean() < error[low].mean()


def test_window_of_the_output_does_not_matter(room: SyntheticClip) -> None:
    inputs = inputs_of(room, degrade(room.depth, 1))
    small, large = (joined(run(inputs, {"fusion.chunk_frames": n})) for n in (3, 16))
    np.testing.assert_array_equal(small, large)


def test_same_bytes_twice(room: SyntheticClip) -> None:
    inputs = inputs_of(room, degrade(room.depth, 1), camera=camera_of(room), structure=structure_of(room, 0.5))
    assert joined(run(inputs)).tobytes() == joined(run(inputs)).tobytes()


class Counting:
    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.reads = array, array.shape, np.zeros(len(array), int)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> np.ndarray:
        self.reads[index] += 1
        return np.asarray(self.array[index])


NEAR = {
    "fusion.pose_offsets": [[1], [2]],
    "fusion.trajectory_radius": 1,
    "fusion.fine_radius": 1,
    "fusion.snap_reach": 1,
}


@pytest.fixture(scope="module")
def long_room() -> SyntheticClip:
    """Many times as long as the window of ``NEAR``, and than a stretch of the alignment there."""
    return render_clip(scene("room"), frames=60, wh=(64, 40))


def test_frames_are_read_few_times(long_room: SyntheticClip) -> None:
    maps = degrade(long_room.depth, 1)
    rgb, disparity = Counting(long_room.rgb), Counting(maps.depth)
    inputs = ShotInputs(
        rgb, disparity, maps.valid, maps.ambiguity, camera=camera_of(long_room), structure=structure_of(long_room)
    )
    assert RunConfig().with_values(NEAR).fusion.window_frames() < 20
    assert len(joined(run(inputs, NEAR))) == 60
    assert rgb.reads.max() <= 4
    assert disparity.reads.max() <= 6


def test_a_shot_in_stretches_and_whole_is_nearly_the_same(long_room: SyntheticClip) -> None:
    maps = degrade(long_room.depth, 1)
    inputs = inputs_of(long_room, maps, camera=camera_of(long_room), structure=structure_of(long_room))
    whole = joined(run(inputs, NEAR))
    parts = joined(run(inputs, {**NEAR, "alignment.stretch_frames": 16, "alignment.stretch_margin_frames": 16}))
    assert np.median(np.abs(np.log(parts / whole))) < 0.01
    assert abs_rel(parts, long_room) < 1.05 * abs_rel(whole, long_room)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("ambiguity", ["affine", "metric"])
def test_one_and_two_frames(room: SyntheticClip, count: int, ambiguity: str) -> None:
    maps = DepthMaps.of(true_disparity(room)[:count], "disparity", ambiguity)
    fused = joined(run(ShotInputs(room.rgb[:count], maps.depth, maps.valid, maps.ambiguity)))
    np.testing.assert_allclose(fused, maps.depth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ambiguity", list(Ambiguity))
def test_constant_depth_and_black_frames(ambiguity: Ambiguity) -> None:
    rgb = np.zeros((5, 40, 64, 3), np.uint8)
    flat = np.full((5, 20, 32), 0.5, np.float32)
    fused = joined(run(ShotInputs(rgb, flat, np.ones(flat.shape, bool), ambiguity)))
    np.testing.assert_allclose(fused, 0.5, atol=1e-5)


def test_all_invalid_stays_invalid_and_finite() -> None:
    rgb = np.zeros((4, 40, 64, 3), np.uint8)
    nothing = np.full((4, 20, 32), np.nan, np.float32)
    chunks = run(ShotInputs(rgb, nothing, np.zeros(nothing.shape, bool), Ambiguity.AFFINE))
    assert not np.concatenate([chunk.valid for chunk in chunks]).any()
    assert np.isfinite(joined(chunks)).all()


def test_zero_disparity_is_finite(room: SyntheticClip) -> None:
    values = degrade(room.depth, 0).depth
    values[:, :20] = 0
    fused = joined(run(inputs_of(room, DepthMaps.of(values, "disparity", "scale"))))
    assert np.isfinite(fused).all()
    assert fused.min() >= 0


@pytest.mark.parametrize("mode", ["flow", "full"])
def test_holes_cost_what_lies_beside_them_little(room: SyntheticClip, mode: str) -> None:
    maps = degrade(room.depth, 1)
    holes = np.zeros_like(maps.valid)
    holes[:, 1::5] = holes[:, 2::5] = True  # like the scan lines of a depth camera
    torn = DepthMaps(np.where(holes, 0, maps.depth), maps.valid & ~holes, maps.representation, maps.ambiguity)
    more = {"camera": camera_of(room), "structure": structure_of(room)}
    settings = {"fusion.mode": mode, "fusion.low_band_long_side_px": 64}
    whole, found = (joined(run(inputs_of(room, one, **more), settings)) for one in (maps, torn))
    assert (found[torn.valid] > 0).all()
    kept = np.where(holes, whole, found)
    assert abs_rel(kept, room, ~holes) < 1.1 * abs_rel(whole, room, ~holes)


def test_mode_none_is_the_input(room: SyntheticClip) -> None:
    maps = degrade(room.depth, 1)
    fused = joined(run(inputs_of(room, maps), {"fusion.mode": "none"}))
    np.testing.assert_array_equal(fused, maps.depth)


def test_what_is_perfect_comes_back_as_it_is_however_far(room: SyntheticClip) -> None:
    disparity = true_disparity(room).copy()
    disparity[:, :20] *= 1e-3  # three kilometres away
    perfect = DepthMaps.of(disparity, Representation.DISPARITY, Ambiguity.METRIC)
    still = replace(inputs_of(room, perfect), rgb=np.repeat(room.rgb[:1], FRAMES, 0))
    still = replace(still, disparity=np.repeat(disparity[:1], FRAMES, 0))
    np.testing.assert_array_equal(joined(run(still)), still.disparity)


def test_lengths_must_agree(room: SyntheticClip) -> None:
    maps = degrade(room.depth, 1)
    with pytest.raises(ShapeError, match="valid"):
        fuse_shot(ShotInputs(room.rgb, maps.depth, maps.valid[:-1], maps.ambiguity), RunConfig())


def test_links_know_the_cameras_motion_without_the_pose_filter() -> None:
    """Moving forward brings things nearer: without poses the alignment takes that for flicker."""
    clip = render_clip(scene("forward"), frames=24, wh=WH)
    maps = degrade(clip.depth, 1)
    links_alone = {
        "fusion.structure": False,
        "fusion.trajectory_filter": False,
        "fusion.egomotion": False,
        "alignment.anchor_weight": 0.0,
    }
    along = inputs_of(clip, maps, camera=camera_of(clip), structure=structure_of(clip))
    errors = [
        abs_rel(joined(run(inputs, {**links_alone, "fusion.pose_filter": False})), clip)
        for inputs in (along, inputs_of(clip, maps))
    ]
    assert errors[0] < 0.85 * errors[1]
