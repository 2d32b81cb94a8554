"""Point clouds, meshes and cameras against the analytic room."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from stf_depth.errors import AmbiguityError, ConfigError, GeometryError
from stf_depth.export import export_result
from stf_depth.export.geometry import GeometryOptions, cut_edges, shot_geometry, solve_affine, unproject
from stf_depth.export.mesh import grid_faces
from stf_depth.export.pointcloud import VoxelGrid
from stf_depth.result import DepthResult
from stf_depth.synthetic import SyntheticClip
from stf_depth.types import Intrinsics, Shot

NO_WISHES = GeometryOptions()


def drop_stages(folder: Path) -> DepthResult:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "stages": {}}))
    return DepthResult(folder)


def to_world(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    return points @ pose[:3, :3].T + pose[:3, 3]


@pytest.mark.parametrize(
    ("representation", "ambiguity"),
    [
        ("disparity", "affine"),
        ("disparity", "scale"),
        ("z_depth", "scale"),
        ("disparity", "metric"),
        ("z_depth", "metric"),
    ],
)
def test_every_kind_of_depth_becomes_the_true_z(
    make_result: Callable[..., Path], room_clip: SyntheticClip, representation: str, ambiguity: str
) -> None:
    result = DepthResult(make_result(representation=representation, ambiguity=ambiguity))
    geometry = shot_geometry(result, 0, NO_WISHES)
    assert geometry.unit == ("m" if ambiguity == "metric" else "unit of the solved camera path")
    assert geometry.posed.all()
    np.testing.assert_allclose(geometry.world_from_cam, room_clip.world_from_cam, atol=2e-3)
    for index, z in geometry.frames(result, every=5):
        known = np.isfinite(z)
        assert known.mean() > 0.99
        np.testing.assert_allclose(z[known], room_clip.depth[index][known], rtol=2e-3)


def test_affine_fit_is_robust_and_uses_its_weights() -> None:
    rng = np.random.default_rng(4)
    close = rng.uniform(0.5, 3, 4000).astype(np.float32)
    target = (0.4 * close + 0.1).astype(np.float32)
    weight = np.ones(4000, np.float32)
    target[:800] *= 3  # outliers with full weight
    assert solve_affine(close, target, weight, with_shift=True) == pytest.approx((0.4, 0.1), abs=1e-3)
    target[:3000], weight[:3000] = 2 * close[:3000] + 1, 0.0  # a majority with none
    assert solve_affine(close, target, weight, with_shift=True) == pytest.approx((0.4, 0.1), abs=1e-3)
    np.testing.assert_allclose(solve_affine(close, 0.7 * close, weight + 1, with_shift=False), (0.7, 0), atol=1e-6)


def test_bent_clouds_are_refused(make_result: Callable[..., Path], tmp_path: Path) -> None:
    result = drop_stages(make_result(ambiguity="affine"))
    with pytest.raises(AmbiguityError, match="bent"):
        export_result(result, "ply", tmp_path)
    assert not (tmp_path / "points_ply").exists()
    path = export_result(result, "ply", tmp_path, far_over_near=4.0, every=6)["ply"][0]
    assert b"comment assumed: the far end is 4 times" in path.read_bytes()[:400]


def test_unknown_focal_length_is_refused_and_can_be_given(make_result: Callable[..., Path], tmp_path: Path) -> None:
    result = DepthResult(make_result(kind="static"))
    with pytest.raises(GeometryError, match="fov_degrees"):
        export_result(result, "glb", tmp_path)
    path = export_result(result, "ply", tmp_path, fov_degrees=90, every=12)["ply"][0]
    cloud = trimesh.load(path)
    slope = np.abs(cloud.vertices[:, 0] / cloud.vertices[:, 2]).max()
    assert slope == pytest.approx(47.5 / 48, abs=0.05)
    with pytest.raises(GeometryError, match="no poses in the unit"):
        export_result(result, "ply", tmp_path, fov_degrees=90, layout="fused")
    with pytest.raises(ConfigError, match="fov_degrees"):
        export_result(result, "ply", tmp_path, fov_degrees=200)


@pytest.mark.parametrize(("name", "axes"), [("ply", (1, 1, 1)), ("points-glb", (1, -1, -1))])
def test_clouds_read_back_with_their_colours(
    tiny_result: Path, room_clip: SyntheticClip, tmp_path: Path, name: str, axes: tuple[int, int, int]
) -> None:
    path = export_result(DepthResult(tiny_result), name, tmp_path, every=12, edge_ratio=1e6)[name][0]
    loaded = trimesh.load(path)
    cloud = loaded if name == "ply" else next(iter(loaded.geometry.values()))
    truth = unproject(room_clip.depth[0], room_clip.intrinsics).reshape(-1, 3)
    np.testing.assert_allclose(cloud.vertices * axes, truth, rtol=1e-4, atol=1e-4)
    colours = np.asarray(cloud.colors if name != "ply" else cloud.visual.vertex_colors)[:, :3].astype(int)
    assert np.abs(colours - room_clip.rgb[0].reshape(-1, 3)).mean() < 6  # the video is compressed


def test_fused_cloud_lies_on_the_walls_of_the_room(tiny_result: Path, tmp_path: Path) -> None:
    (path,) = export_result(DepthResult(tiny_result), "ply", tmp_path, layout="fused", voxel_share=0.01)["ply"]
    points = np.asarray(trimesh.load(path).vertices)
    assert path.name == "shot_000.ply"
    assert 500 < len(points) < 12 * 64 * 96
    floor = points[np.abs(points[:, 1] - 1.3) < 0.06]
    assert len(floor) > 100
    assert np.abs(floor[:, 1] - 1.3).mean() < 0.01
    assert points[:, 1].max() < 1.35


def test_glb_states_its_unit(tiny_result: Path, tmp_path: Path) -> None:
    path = export_result(DepthResult(tiny_result), "glb", tmp_path, every=12)["glb"][0]
    assert trimesh.load(path).metadata["unit"] == "m"


def test_mesh_is_cut_at_depth_edges_and_faces_the_camera(
    tiny_result: Path, room_clip: SyntheticClip, tmp_path: Path
) -> None:
    path = export_result(DepthResult(tiny_result), "mesh-ply", tmp_path, every=12, step_px=1)["mesh-ply"][0]
    mesh = trimesh.load(path, process=False)
    corners = mesh.vertices[mesh.faces][..., 2]
    assert (corners.max(axis=1) / corners.min(axis=1)).max() <= 1.0601
    assert 0.7 < len(mesh.faces) / (2 * 63 * 95) < 1.0
    towards_camera = (mesh.face_normals * mesh.triangles_center).sum(axis=1)
    assert (towards_camera < 1e-6).mean() > 0.999


def test_grid_faces_skip_unknown_vertices() -> None:
    z = np.ones((3, 3), np.float32)
    assert len(grid_faces(z, 0.1)) == 8
    z[1, 1] = np.nan
    assert len(grid_faces(z, 0.1)) == 2
    z[1, 1] = 2
    assert len(grid_faces(z, 0.1)) == 2


def test_edges_are_cut_on_both_sides() -> None:
    z = np.array([[1, 1, 1, 2, 2, np.nan, 2]], np.float32)
    assert np.isnan(cut_edges(z, 0.1))[0].tolist() == [False, False, True, True, False, True, False]


def test_voxels_hold_means_in_any_order_and_bound_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from stf_depth.export import pointcloud

    rng = np.random.default_rng(1)
    points = rng.uniform(-1, 1, (5000, 3)).astype(np.float32)
    colours = rng.integers(0, 255, (5000, 3)).astype(np.uint8)
    once, twice = VoxelGrid(0.5), VoxelGrid(0.5)
    once.push(points, colours)
    for part in np.array_split(np.arange(5000), 7):
        twice.push(points[part], colours[part])
    np.testing.assert_allclose(once.points()[0], twice.points()[0], atol=1e-6)
    assert len(once.points()[0]) == 64
    key = np.floor(points / 0.5).astype(int)
    own = points[(key == np.floor(once.points()[0][0] / 0.5)).all(axis=1)]
    np.testing.assert_allclose(once.points()[0][0], own.mean(axis=0), atol=1e-6)
    monkeypatch.setattr(pointcloud, "_MAX_VOXELS", 20)
    small = VoxelGrid(0.1)
    small.push(points, colours)
    assert len(small.points()[0]) <= 20


def test_points_beyond_the_limit_are_left_out(make_result: Callable[..., Path], room_clip: SyntheticClip) -> None:
    far = room_clip.depth.copy()
    far[:, :10] = 1e4
    result = DepthResult(make_result(replace(room_clip, depth=far)))
    _, z = next(shot_geometry(result, 0, NO_WISHES).frames(result))
    assert np.isnan(z[:10]).all()
    assert np.isfinite(z[10:]).all()


def test_unprojection_of_the_principal_point_is_the_axis() -> None:
    camera = Intrinsics(50, 60, 2, 1, 5, 3)
    points = unproject(np.full((3, 5), 2.0, np.float32), camera)
    assert points[1, 2].tolist() == [0, 0, 2]
    np.testing.assert_allclose(points[2, 4], [2 * 2 / 50, 2 * 1 / 60, 2], rtol=1e-6)


CUPBOARD, TABLE = np.s_[90:200, 40:200], np.s_[240:330, 400:560]


def plane(points: np.ndarray) -> tuple[float, np.ndarray]:
    """RMS distance of points to their plane as a share of their median z, a tenth trimmed, and the plane's normal."""
    points = points[np.isfinite(points).all(axis=-1)]
    for kept in (0.9, 1.0):
        normal = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][2]
        distance = np.abs((points - points.mean(axis=0)) @ normal)
        if kept < 1:
            points = points[distance <= np.quantile(distance, kept)]
    return float(np.sqrt(np.mean(distance**2)) / np.median(points[:, 2])), normal


def corner_degrees(cloud: np.ndarray) -> float:
    """Angle between the cupboard's front and the table's top, a right angle in the kitchen."""
    cosine = abs(plane(cloud[CUPBOARD])[1] @ plane(cloud[TABLE])[1])
    return float(np.degrees(np.arccos(cosine)))


@pytest.mark.shared
@pytest.mark.parametrize("ambiguity", ["metric", "affine"])
def test_walls_of_a_real_room_stay_straight(
    shared_dir: Path, make_result: Callable[..., Path], tmp_path: Path, room_clip: SyntheticClip, ambiguity: str
) -> None:
    """Frame 50 of a kitchen, from its sensor depth, exported and compared with the sensor's own cloud."""
    import cv2
    from PIL import Image

    folder = shared_dir / "data" / "redkitchen"
    z = cv2.imread(str(folder / "depth" / "000050.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
    z[z == 0] = np.inf
    k = np.loadtxt(folder / "intrinsics.txt")
    camera = Intrinsics(k[0, 0], k[1, 1], k[0, 2], k[1, 2], 640, 480)
    rgb = np.asarray(Image.open(folder / "color" / "000050.jpg"))
    (tmp_path / "one").mkdir()
    Image.fromarray(rgb).save(tmp_path / "one" / "000050.png")
    clip = replace(
        room_clip, rgb=rgb[None], depth=z[None], labels=np.zeros((1, 480, 640), np.int32),
        roles=np.zeros((1, 480, 640), np.uint8), world_from_cam=np.eye(4)[None], intrinsics=camera,
        pts_seconds=np.zeros(1), shots=(Shot(0, 1),),
    )  # fmt: skip
    result = DepthResult(make_result(clip, tmp_path / "one", ambiguity=ambiguity))
    geometry = shot_geometry(result, 0, NO_WISHES)
    _, ours = next(geometry.frames(result))
    mine, sensor = unproject(ours, geometry.intrinsics), unproject(np.where(z < np.inf, z, np.nan), camera)
    for name, region in {"cupboard": CUPBOARD, "table": TABLE}.items():
        found, expected = plane(mine[region])[0], plane(sensor[region])[0]
        print(f"{ambiguity} {name}: plane residual {100 * found:.3f} % of z, sensor {100 * expected:.3f} %")
        assert found < 1.05 * expected
    print(f"{ambiguity} corner: {corner_degrees(mine):.2f} degrees, sensor {corner_degrees(sensor):.2f}")
    assert corner_degrees(mine) == pytest.approx(corner_degrees(sensor), abs=0.2)
    path = export_result(result, "ply", tmp_path, edge_ratio=1e6)["ply"][0]
    assert len(trimesh.load(path).vertices) == np.isfinite(ours).sum()


@pytest.mark.shared
def test_wrong_offset_bends_the_room(shared_dir: Path) -> None:
    """An offset taken for zero leaves planes flat and turns them against each other: the check above can tell."""
    import cv2

    folder = shared_dir / "data" / "redkitchen"
    z = cv2.imread(str(folder / "depth" / "000050.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
    z[z == 0] = np.nan
    k = np.loadtxt(folder / "intrinsics.txt")
    camera = Intrinsics(k[0, 0], k[1, 1], k[0, 2], k[1, 2], 640, 480)
    straight, bent = (corner_degrees(unproject(values, camera)) for values in (z, 1 / (1 / z + np.float32(0.5))))
    print(f"corner with the offset {straight:.2f} degrees, without {bent:.2f}")
    assert abs(straight - 90) < 3
    assert abs(bent - 90) > 6


@pytest.mark.parametrize(
    ("geometry", "note", "focal_px"),
    [
        ({"horizontal_fov_degrees": 62.0}, "given to the run: horizontal field of view 62 degrees", 79.9),
        ({"focal_px": 240.0}, "given to the run: focal length 240 px at 192x128", 120.0),
        ({"focal_px": 240.0, "horizontal_fov_degrees": 62.0}, "given to the run: focal length 240 px", 120.0),
    ],
)
def test_a_focal_length_stated_to_the_run_counts(
    make_result: Callable[..., Path], tmp_path: Path, geometry: dict[str, float], note: str, focal_px: float
) -> None:
    """The source is twice as large as the depth (96x64)."""
    folder = make_result(kind="unsolved")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["geometry"] = geometry
    manifest["input"]["size_wh"] = [192, 128]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    placed = shot_geometry(DepthResult(folder), 0, GeometryOptions())
    assert placed.intrinsics.fx_px == pytest.approx(focal_px, rel=1e-3)
    assert (placed.intrinsics.cx_px, placed.intrinsics.width_px) == (47.5, 96)
    path = export_result(DepthResult(folder), "ply", tmp_path, every=12)["ply"][0]
    assert note.encode() in path.read_bytes()[:300]
    other = shot_geometry(DepthResult(folder), 0, GeometryOptions(fov_degrees=90))
    assert other.intrinsics.fx_px == pytest.approx(48)
