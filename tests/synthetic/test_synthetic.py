"""The synthetic truth against itself: depth, poses, flow and labels must tell one story."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from stf_depth.errors import ShapeError, UsageError
from stf_depth.synthetic import (
    SCENES,
    Box,
    Camera,
    DegradeConfig,
    Rectangle,
    Scene,
    Sphere,
    Surface,
    SyntheticClip,
    Take,
    Thing,
    degrade,
    flow_between,
    render_clip,
    scene,
    write_sequence,
)
from stf_depth.types import Ambiguity, Representation, Role, Shot

WH = (96, 54)
GREY = Surface((60, 60, 60), (200, 200, 200))


@pytest.fixture(scope="module", params=sorted(SCENES))
def clip(request: pytest.FixtureRequest) -> SyntheticClip:
    return render_clip(scene(request.param), frames=6, wh=WH)


def pixel_grid() -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(WH[0]), np.arange(WH[1])), axis=-1).astype(np.float64)


def intrinsic_matrix(clip: SyntheticClip, frame: int) -> np.ndarray:
    focal = clip.focal_px[frame]
    return np.array([[focal, 0, (WH[0] - 1) / 2], [0, focal, (WH[1] - 1) / 2], [0, 0, 1]])


def reprojected_flow(clip: SyntheticClip, source: int, target: int) -> np.ndarray:
    """Flow of the static world by textbook matrices: K' (R X + t)."""
    homogeneous = np.concatenate([pixel_grid(), np.ones((WH[1], WH[0], 1))], axis=-1)
    rays = homogeneous @ np.linalg.inv(intrinsic_matrix(clip, source)).T
    relative = np.linalg.inv(clip.world_from_cam[target]) @ clip.world_from_cam[source]
    depth = np.minimum(clip.depth[source], 1e9)[..., None]
    points = (rays * depth) @ relative[:3, :3].T + relative[:3, 3]
    projected = points @ intrinsic_matrix(clip, target).T
    return projected[..., :2] / projected[..., 2:] - pixel_grid()


def test_flow_is_the_reprojection_of_depth_along_the_poses(clip: SyntheticClip) -> None:
    for t in range(len(clip) - 1):
        if any(shot.start == t + 1 for shot in clip.shots):
            continue
        still = (clip.roles[t] != Role.MOVER) & (clip.roles[t] != Role.SKY)
        expected = reprojected_flow(clip, t, t + 1)
        np.testing.assert_allclose(clip.flow_forward[t][still], expected[still], atol=1e-3)
        still = (clip.roles[t + 1] != Role.MOVER) & (clip.roles[t + 1] != Role.SKY)
        expected = reprojected_flow(clip, t + 1, t)
        np.testing.assert_allclose(clip.flow_backward[t][still], expected[still], atol=1e-3)


def test_visible_pixels_land_on_the_same_label_and_the_way_back_ends_where_it_began(clip: SyntheticClip) -> None:
    # Inside a thing, the backward flow sampled at the landing point must undo the forward flow.
    for t in range(len(clip) - 1):
        visible = ~clip.occlusion_forward[t]
        landing = (pixel_grid() + clip.flow_forward[t]).astype(np.float32)
        nearest = np.rint(landing).astype(int)
        edges = cv2.morphologyEx(clip.labels[t + 1].astype(np.int16), cv2.MORPH_GRADIENT, np.ones((7, 7), np.uint8))
        inner = edges == 0
        inner[[0, -1]] = inner[:, [0, -1]] = False
        nearest = np.clip(nearest, 0, np.array(WH) - 1)
        checked = visible & inner[nearest[..., 1], nearest[..., 0]]
        labels = clip.labels[t + 1][nearest[..., 1], nearest[..., 0]]
        assert np.array_equal(labels[checked], clip.labels[t][checked])
        back = cv2.remap(clip.flow_backward[t], landing, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        error = np.linalg.norm(back + clip.flow_forward[t], axis=-1)[checked]
        assert error.size == 0 or np.quantile(error, 0.99) < 0.05


def test_colours_agree_along_the_flow(clip: SyntheticClip) -> None:
    for t in range(len(clip) - 1):
        if clip.occlusion_forward[t].all():
            continue
        landing = (pixel_grid() + clip.flow_forward[t]).astype(np.float32)
        warped = cv2.remap(clip.rgb[t + 1].astype(np.float32), landing, None, cv2.INTER_LINEAR)
        difference = np.abs(warped - clip.rgb[t]).mean(-1)[~clip.occlusion_forward[t]]
        moved = np.abs(np.roll(clip.rgb[t].astype(np.float32), 7, axis=1) - clip.rgb[t]).mean()
        assert difference.mean() < 0.4 * moved


def test_roles_follow_the_labels_and_every_label_has_a_meaning(clip: SyntheticClip) -> None:
    assert np.array_equal(clip.segment_maps().roles(), clip.roles)
    assert set(np.unique(clip.labels)) <= set(clip.segments)
    assert np.array_equal(np.isinf(clip.depth), clip.roles == Role.SKY)
    assert (clip.depth > 0).all()
    assert (clip.disparity[clip.roles == Role.SKY] == 0).all()


def test_shots_cover_the_clip_and_nothing_flows_across_a_cut() -> None:
    clip = render_clip(scene("two_shots"), frames=5, wh=WH)
    assert [*clip.shots] == [Shot(0, 2), Shot(2, 5)]
    assert clip.occlusion_forward[1].all() and clip.occlusion_backward[1].all()
    assert not clip.flow_forward[1].any()
    assert not set(np.unique(clip.labels[1])) & set(np.unique(clip.labels[2]))


def test_same_scene_gives_the_same_bytes() -> None:
    first = render_clip(scene("street"), frames=2, wh=(48, 28), noise_sigma=2.0, seed=4)
    second = render_clip(scene("street"), frames=2, wh=(48, 28), noise_sigma=2.0, seed=4)
    for field in dataclasses.fields(SyntheticClip):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, np.ndarray):
            assert one.tobytes() == other.tobytes(), field.name
    other_seed = render_clip(scene("street"), frames=2, wh=(48, 28), noise_sigma=2.0, seed=5)
    assert other_seed.rgb.tobytes() != first.rgb.tobytes()


def single(thing: Thing, camera: Camera | None = None) -> SyntheticClip:
    return render_clip(Scene("one", (Take((thing,), camera or Camera()),)), frames=2, wh=(41, 31))


def test_depth_of_a_sphere_and_of_planes_is_the_closed_form() -> None:
    sphere = single(Thing("ball", Sphere(1.0), (0, 0, 5), GREY))
    assert sphere.depth[0, 15, 20] == pytest.approx(4.0)
    focal = sphere.focal_px[0]
    x, y = (np.arange(41) - 20) / focal, (np.arange(31) - 15) / focal
    a = 1 + x[None] ** 2 + y[:, None] ** 2
    inside = 25 - 24 * a > 0
    expected = np.full(a.shape, np.inf)
    expected[inside] = (5 - np.sqrt(25 - 24 * a[inside])) / a[inside]
    np.testing.assert_allclose(sphere.depth[0], expected, rtol=1e-6)
    ground = single(Thing("floor", Rectangle(1e4, 1e4), (0, 1.5, 0), GREY, pitch_degrees=90))
    np.testing.assert_allclose(ground.depth[0, 16:, 3], 1.5 / y[16:], rtol=1e-6)
    assert np.isinf(ground.depth[0, :15]).all()
    box = single(Thing("box", Box((2, 2, 2)), (0, 0, 6), GREY))
    assert box.depth[0, 15, 20] == pytest.approx(5.0)


def test_movers_move_by_their_velocity_in_a_still_camera() -> None:
    thing = Thing("ball", Sphere(0.5), (0, 0, 4), GREY, Role.MOVER, velocity_mps=(0.6, 0, 0))
    clip = single(thing)
    expected = clip.focal_px[0] * 0.6 / 30 / clip.depth[0, 15, 20]
    assert clip.flow_forward[0, 15, 20] == pytest.approx([expected, 0], abs=1e-5)


def test_flow_over_a_long_span_equals_the_reprojection() -> None:
    clip = render_clip(scene("room"), frames=6, wh=WH)
    flow, hidden = flow_between(scene("room"), 0, 5, frames=6, wh=WH)
    np.testing.assert_allclose(flow, reprojected_flow(clip, 0, 5), atol=2e-3)
    assert 0 < hidden.mean() < 0.5
    near, near_hidden = flow_between(scene("room"), 2, 3, frames=6, wh=WH)
    assert np.array_equal(near, clip.flow_forward[2]) and np.array_equal(near_hidden, clip.occlusion_forward[2])


@pytest.mark.parametrize("name", ["room", "street", "rotation", "zoom"])
def test_pictures_hold_corners_and_optical_flow_follows_the_truth(name: str) -> None:
    clip = render_clip(scene(name), frames=2, wh=(320, 180))
    first, second = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in clip.rgb)
    corners = cv2.goodFeaturesToTrack(first, 400, 0.003, 5)
    assert len(corners) > 250
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)
    error = np.linalg.norm(flow - clip.flow_forward[0], axis=-1)[~clip.occlusion_forward[0]]
    assert np.median(error) < 0.2


def test_degraded_depth_is_unsteady_affine_disparity_and_repeats() -> None:
    clip = render_clip(scene("street"), frames=8, wh=(64, 36))
    maps = degrade(clip.depth, seed=3)
    assert maps.representation is Representation.DISPARITY and maps.ambiguity is Ambiguity.AFFINE
    assert maps.depth.tobytes() == degrade(clip.depth, seed=3).depth.tobytes()
    assert maps.depth.tobytes() != degrade(clip.depth, seed=4).depth.tobytes()
    correlation = [np.corrcoef(maps.depth[t].ravel(), clip.disparity[t].ravel())[0, 1] for t in range(8)]
    assert min(correlation) > 0.9
    scale = [np.polyfit(clip.disparity[t].ravel(), maps.depth[t].ravel(), 1)[0] for t in range(8)]
    assert 0.02 < np.std(scale) < 0.25


def test_degrading_by_nothing_gives_the_inverse_depth() -> None:
    depth = np.array([[[2.0, np.inf], [0.0, 4.0]]], np.float32)
    maps = degrade(depth, 0, DegradeConfig(scale=0, shift=0, field_white=0, field_slow=0, blur_sigma_px=0))
    np.testing.assert_allclose(maps.depth, [[[0.5, 0], [0, 0.25]]])
    assert maps.valid.tolist() == [[[True, True], [False, True]]]


def test_sequence_folder_holds_millimetres_poses_and_intrinsics(tmp_path: Path) -> None:
    clip = render_clip(scene("street"), frames=2, wh=(48, 28))
    folder = write_sequence(clip, tmp_path / "street")
    depth = cv2.imread(str(folder / "depth" / "000001.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16
    known = clip.depth[1] < 65.5
    np.testing.assert_allclose(depth[known] / 1000, clip.depth[1][known], atol=5.1e-4)
    assert (depth[np.isinf(clip.depth[1])] == 0).all()
    poses = np.loadtxt(folder / "poses.txt").reshape(-1, 4, 4)
    np.testing.assert_allclose(poses, clip.world_from_cam, atol=1e-8)
    np.testing.assert_allclose(np.loadtxt(folder / "intrinsics.txt"), clip.intrinsics.matrix(), atol=1e-5)
    assert sorted(path.name for path in (folder / "color").iterdir()) == ["000000.jpg", "000001.jpg"]


def test_what_cannot_be_rendered_is_refused() -> None:
    with pytest.raises(UsageError, match="two_shots"):
        scene("nowhere")
    with pytest.raises(ShapeError):
        render_clip(scene("two_shots"), frames=1, wh=WH)
    with pytest.raises(ShapeError):
        Scene("empty", ())


def test_a_view_without_any_edge_is_rendered() -> None:
    wall = Thing("wall", Rectangle(50, 50), (0, 0, 2), GREY)
    clip = render_clip(Scene("wall", (Take((wall,), Camera()),)), 2, (32, 18))
    np.testing.assert_allclose(clip.depth, 2.0)
    assert clip.rgb.std() > 0
