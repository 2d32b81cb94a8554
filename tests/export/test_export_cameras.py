"""Camera paths read back by COLMAP itself and by the definition of transforms.json."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import trimesh
import zarr
from PIL import Image

from stf_depth.errors import AmbiguityError, GeometryError
from stf_depth.export import export_result
from stf_depth.export.cameras import quaternion_wxyz
from stf_depth.result import DepthResult
from stf_depth.synthetic import SyntheticClip


@pytest.fixture(scope="module")
def exported(tiny_result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cameras")
    files = export_result(DepthResult(tiny_result), "cameras", out, max_points=500, every=3)["cameras"]
    assert all(path.is_file() for path in files)
    return out / "cameras" / "shot_000"


def test_colmap_reads_poses_and_intrinsics(exported: Path, room_clip: SyntheticClip) -> None:
    model = pycolmap.Reconstruction(str(exported / "sparse" / "0"))
    assert model.num_images() == len(room_clip)
    camera = next(iter(model.cameras.values()))
    k = room_clip.intrinsics
    np.testing.assert_allclose(camera.params, [k.fx_px, k.fy_px, k.cx_px + 0.5, k.cy_px + 0.5], rtol=1e-6)
    for image in model.images.values():
        pose = np.asarray(image.cam_from_world().inverse().matrix())
        np.testing.assert_allclose(pose, room_clip.world_from_cam[int(image.name[:6])][:3], atol=2e-3)


def test_points_project_onto_their_colours(exported: Path, room_clip: SyntheticClip) -> None:
    model = pycolmap.Reconstruction(str(exported / "sparse" / "0"))
    image = model.images[1]
    camera = model.cameras[image.camera_id]
    points = np.stack([point.xyz for point in model.points3D.values()])
    assert len(points) <= 500
    inside = 0
    for point in points:
        in_camera = image.cam_from_world() * point
        uv = camera.img_from_cam(in_camera)
        u, v = np.floor(uv).astype(int)
        if 0 <= u < 96 and 0 <= v < 64 and in_camera[2] > 0:
            inside += bool(in_camera[2] < room_clip.depth[0, v, u] * 1.1 + 0.05)
    assert inside > 0.5 * len(points)


def test_transforms_follow_opengl(exported: Path, room_clip: SyntheticClip) -> None:
    content = json.loads((exported / "transforms.json").read_text())
    assert (content["w"], content["h"], content["unit"]) == (96, 64, "m")
    assert content["cx"] == pytest.approx(room_clip.intrinsics.cx_px + 0.5)
    for frame in content["frames"]:
        index = int(Path(frame["file_path"]).stem)
        pose, truth = np.array(frame["transform_matrix"]), room_clip.world_from_cam[index]
        np.testing.assert_allclose(pose[:3, 3], truth[:3, 3], atol=2e-3)
        np.testing.assert_allclose(-pose[:3, 2], truth[:3, 2], atol=1e-5)  # looks along -z
        np.testing.assert_allclose(-pose[:3, 1], truth[:3, 1], atol=1e-5)  # up is +y
        assert Image.open(exported / frame["file_path"]).size == (96, 64)
    assert len(trimesh.load(exported / content["ply_file_path"]).vertices) > 100


def test_quaternions_are_colmaps() -> None:
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(quaternion_wxyz(turn), [np.sqrt(0.5), 0, 0, np.sqrt(0.5)], atol=1e-12)
    rotation = pycolmap.Rotation3d(np.array([0.1, -0.5, 0.3, 0.8]) / np.linalg.norm([0.1, -0.5, 0.3, 0.8]))
    x, y, z, w = rotation.quat
    np.testing.assert_allclose(quaternion_wxyz(rotation.matrix()), [w, x, y, z], atol=1e-9)


def test_unsolved_result_is_refused(make_result: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="solved poses"):
        export_result(DepthResult(make_result(kind="rotation")), "cameras", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ambiguity", ["metric", "scale", "affine"])
def test_a_cleared_cache_is_said(make_result: Callable[..., Path], tmp_path: Path, ambiguity: str) -> None:
    result = DepthResult(make_result(ambiguity=ambiguity))
    structure = result.stage("structure")
    assert structure is not None
    shutil.rmtree(structure)
    with pytest.raises((AmbiguityError, GeometryError), match=r"no longer cached.*Repeat the run") as refused:
        export_result(result, "cameras", tmp_path)
    assert "layout" not in str(refused.value)


@pytest.mark.parametrize("ambiguity", ["metric", "scale"])
def test_copies_state_the_unit_of_their_poses(
    make_result: Callable[..., Path], room_clip: SyntheticClip, tmp_path: Path, ambiguity: str
) -> None:
    """The camera path is solved in a unit of half a metre; in copies of metric depth its poses are in metres."""
    solved = room_clip.world_from_cam.copy()
    solved[:, :3, 3] *= 2
    result = DepthResult(make_result(replace(room_clip, world_from_cam=solved), ambiguity=ambiguity))
    structure = result.stage("structure")
    assert structure is not None
    disparity = zarr.open_group(structure / "data.zarr", mode="r+")["disparity"]
    disparity[:] = disparity[:] / 2
    files = export_result(result, "zarr,pkl", tmp_path)
    group = zarr.open_group(files["zarr"][0], mode="r")
    for camera in (group.attrs["shots"][0]["camera"], pickle.loads(files["pkl"][0].read_bytes())["cameras"][0]):
        is_metric = ambiguity == "metric"
        assert camera["unit"] == ("m" if is_metric else "unit of the solved camera path")
        expected = room_clip.world_from_cam if is_metric else solved
        np.testing.assert_allclose(camera["world_from_cam"], expected, atol=1e-3)
    shutil.rmtree(structure)
    again = zarr.open_group(export_result(result, "zarr", tmp_path / "lost")["zarr"][0], mode="r")
    assert again.attrs["shots"][0]["camera"]["unit"] == "unit of the solved camera path"
    np.testing.assert_allclose(again.attrs["shots"][0]["camera"]["world_from_cam"], solved, atol=1e-6)
