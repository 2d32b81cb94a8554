"""One known length makes metres; what cannot be known is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
import zarr

from stf_depth.errors import AmbiguityError, ConfigError, GeometryError, ShapeError, SpecError
from stf_depth.export import export_result
from stf_depth.export.geometry import GeometryOptions
from stf_depth.export.units import CameraHeight, MetricModel, ReferenceDistance, parse_reference, to_metric
from stf_depth.result import DepthResult
from stf_depth.synthetic import SyntheticClip
from stf_depth.types import Shot


@pytest.mark.parametrize("ambiguity", ["scale", "affine"])
def test_one_distance_gives_metres_everywhere(
    make_result: Callable[..., Path], room_clip: SyntheticClip, ambiguity: str
) -> None:
    result = DepthResult(make_result(ambiguity=ambiguity))
    truth = float(room_clip.depth[4, 30, 48])
    metric = to_metric(result, ReferenceDistance(48, 30, truth, frame=4))
    assert (metric.representation.value, metric.ambiguity.value) == ("z_depth", "metric")
    np.testing.assert_allclose(np.asarray(metric.depth[2:5]), room_clip.depth[2:5], rtol=0.01)
    np.testing.assert_allclose(metric.cameras[0].world_from_cam, room_clip.world_from_cam, atol=0.02)
    twice = to_metric(result, ReferenceDistance(48, 30, 2 * truth, frame=4))
    np.testing.assert_allclose(np.asarray(twice.depth[0]), 2 * np.asarray(metric.depth[0]), rtol=1e-5)


def test_height_of_the_camera_gives_metres(make_result: Callable[..., Path], room_clip: SyntheticClip) -> None:
    result = DepthResult(make_result(ambiguity="scale"))
    height = 1.3 - room_clip.world_from_cam[0, 1, 3]
    metric = to_metric(result, CameraHeight(float(height)))
    np.testing.assert_allclose(np.asarray(metric.depth[0]), room_clip.depth[0], rtol=0.03)


def test_every_exporter_reads_the_metric_view(
    make_result: Callable[..., Path], room_clip: SyntheticClip, tmp_path: Path
) -> None:
    result = DepthResult(make_result(ambiguity="affine"))
    truth = float(room_clip.depth[0, 30, 48])
    files = export_result(result, "npz,ply", tmp_path, to_metric=f"pixel:48,30={truth}", every=12)
    archive = np.load(files["npz"][0], allow_pickle=False)
    assert (str(archive["representation"]), str(archive["ambiguity"])) == ("z_depth", "metric")
    np.testing.assert_allclose(archive["depth"][0], room_clip.depth[0], rtol=0.01)
    assert b"comment unit: m\n" in files["ply"][0].read_bytes()[:200]
    depth = np.asarray(trimesh.load(files["ply"][0]).vertices)[:, 2]
    assert np.median(depth) == pytest.approx(float(np.median(room_clip.depth[0])), rel=0.05)


def test_fused_cloud_of_a_metric_view_is_in_metres(
    make_result: Callable[..., Path], room_clip: SyntheticClip, tmp_path: Path
) -> None:
    """The camera path arrives in a unit of its own, half a metre: depth and path must come out in metres alike."""
    shrunk = room_clip.world_from_cam.copy()
    shrunk[:, :3, 3] *= 2
    result = DepthResult(make_result(replace(room_clip, world_from_cam=shrunk), ambiguity="scale"))
    _rescale_structure(result, 0.5)
    truth = float(room_clip.depth[0, 30, 48])
    reference = f"pixel:48,30={truth}"
    (path,) = export_result(result, "ply", tmp_path, to_metric=reference, layout="fused", voxel_share=0.01)["ply"]
    points = np.asarray(trimesh.load(path).vertices)
    floor = points[np.abs(points[:, 1] - 1.3) < 0.06]
    assert len(floor) > 100
    assert np.abs(floor[:, 1] - 1.3).mean() < 0.01


def _rescale_structure(result: DepthResult, factor: float) -> None:
    folder = result.stage("structure")
    assert folder is not None
    disparity = zarr.open_group(folder / "data.zarr", mode="r+")["disparity"]
    disparity[:] = disparity[:] * factor


def test_a_reference_for_metric_depth_is_refused(
    tiny_result: Path, two_shots: Callable[..., DepthResult], room_clip: SyntheticClip, tmp_path: Path
) -> None:
    with pytest.raises(AmbiguityError, match=r"in metres already.*got camera 1 m above.*Leave --to-metric out"):
        export_result(DepthResult(tiny_result), "npz", tmp_path, to_metric="camera-height:1")
    assert not (tmp_path / "depth.npz").exists()
    result = two_shots("scale")
    manifest = json.loads((result.folder / "manifest.json").read_text())
    manifest["shots"][1]["ambiguity"] = "metric"
    (result.folder / "manifest.json").write_text(json.dumps(manifest))
    truth = float(room_clip.depth[0, 30, 48])
    first, second = ReferenceDistance(48, 30, truth), ReferenceDistance(48, 30, truth, frame=6)
    assert to_metric(DepthResult(result.folder), first).ambiguity.value == "metric"
    with pytest.raises(AmbiguityError, match=r"in metres already: .* frame 6"):
        to_metric(DepthResult(result.folder), [first, second])


def test_unknown_offset_is_refused_unless_assumed(make_result: Callable[..., Path]) -> None:
    result = DepthResult(make_result(ambiguity="affine", kind="static"))
    with pytest.raises(AmbiguityError, match="offset"):
        to_metric(result, ReferenceDistance(48, 30, 2.0))
    assumed = to_metric(
        result, ReferenceDistance(48, 30, 2.0), options=GeometryOptions(far_over_near=4, fov_degrees=60)
    )
    assert np.asarray(assumed.depth[0])[30, 48] == pytest.approx(2.0, rel=0.02)


def test_reference_off_the_picture_or_off_the_surface_is_refused(
    make_result: Callable[..., Path], room_clip: SyntheticClip
) -> None:
    depth = room_clip.depth.copy()
    depth[:, :20, :20] = np.inf
    result = DepthResult(make_result(replace(room_clip, depth=depth), ambiguity="scale"))
    with pytest.raises(ShapeError, match=r"expected 96x64, got 96,0\)"):
        to_metric(result, ReferenceDistance(96, 0, 1.0))
    with pytest.raises(ShapeError, match="0 to 11"):
        to_metric(result, ReferenceDistance(9, 9, 1.0, frame=12))
    with pytest.raises(GeometryError, match="no valid depth"):
        to_metric(result, ReferenceDistance(9, 9, 1.0))


@pytest.fixture
def two_shots(make_result: Callable[..., Path], room_clip: SyntheticClip) -> Callable[..., DepthResult]:
    """A result of two shots, the second in a unit of its own: 1.7 times as long."""

    def make(ambiguity: str = "scale", **how: str) -> DepthResult:
        cut = replace(room_clip, shots=(Shot(0, 5), Shot(5, 12)))
        result = DepthResult(make_result(cut, ambiguity=ambiguity, **how))
        structure = result.stage("structure")
        assert structure is not None
        for store, name in ((result.folder / "depth.zarr", "depth"), (structure / "data.zarr", "disparity")):
            array = zarr.open_group(store, mode="r+")[name]
            array[5:] = array[5:] * 1.7
        manifest = json.loads((result.folder / "manifest.json").read_text())
        for pose in manifest["shots"][1]["camera"]["world_from_cam"]:
            for row in pose[:3]:
                row[3] /= 1.7
        (result.folder / "manifest.json").write_text(json.dumps(manifest))
        return DepthResult(result.folder)

    return make


@pytest.mark.parametrize("ambiguity", ["scale", "affine"])
def test_each_shot_takes_its_own_reference(
    two_shots: Callable[..., DepthResult], room_clip: SyntheticClip, tmp_path: Path, ambiguity: str
) -> None:
    result = two_shots(ambiguity)
    height = 1.3 - room_clip.world_from_cam[7, 1, 3]
    references = [f"pixel:48,30@4={room_clip.depth[4, 30, 48]}", f"camera-height:{height}@7"]
    files = export_result(result, "npz,ply", tmp_path, to_metric=references, every=6)
    depth = np.load(files["npz"][0], allow_pickle=False)["depth"]
    np.testing.assert_allclose(depth[:5], room_clip.depth[:5], rtol=0.01)
    np.testing.assert_allclose(depth[5:], room_clip.depth[5:], rtol=0.03)
    assert b"comment given: camera" in files["ply"][-1].read_bytes()[:300]
    metric = to_metric(result, [parse_reference(text) for text in references])
    moved = np.linalg.norm(np.diff(metric.cameras[1].world_from_cam[:, :3, 3], axis=0), axis=1)
    truth = np.linalg.norm(np.diff(room_clip.world_from_cam[5:, :3, 3], axis=0), axis=1)
    np.testing.assert_allclose(moved, truth, rtol=0.03)


def test_a_shot_without_a_reference_is_named_with_the_words_to_give(two_shots: Callable[..., DepthResult]) -> None:
    result = two_shots()
    with pytest.raises(AmbiguityError, match=r"none for frames 5 to 11.*--to-metric pixel:X,Y@5=METRES.*model:SPEC"):
        to_metric(result, ReferenceDistance(48, 30, 1.0))
    with pytest.raises(ConfigError, match="two metric references in one shot"):
        to_metric(result, [ReferenceDistance(48, 30, 1.0), CameraHeight(1.0, frame=4)])


@pytest.mark.parametrize(("ambiguity", "kind"), [("scale", "parallax"), ("affine", "parallax"), ("affine", "static")])
def test_a_metric_model_gives_every_shot_its_unit(
    two_shots: Callable[..., DepthResult], room_clip: SyntheticClip, tmp_path: Path, ambiguity: str, kind: str
) -> None:
    rng = np.random.default_rng(0)
    rough = room_clip.depth[:, ::2, ::2] * rng.uniform(0.9, 1.1, room_clip.depth[:, ::2, ::2].shape)
    np.savez(tmp_path / "model.npz", depth=rough.astype(np.float32), representation="z_depth", ambiguity="metric")
    model = f"model:precomputed:{tmp_path / 'model.npz'}"
    (path,) = export_result(two_shots(ambiguity, kind=kind), "npz", tmp_path, to_metric=model)["npz"]
    depth = np.load(path, allow_pickle=False)["depth"]
    np.testing.assert_allclose(depth, room_clip.depth, rtol=0.05)
    # A known length comes first; the model serves the other shots.
    both = [model, f"pixel:48,30@4={2 * room_clip.depth[4, 30, 48]}"]
    if kind == "parallax":
        (path,) = export_result(two_shots(ambiguity, kind=kind), "npz", tmp_path, to_metric=both)["npz"]
        depth = np.load(path, allow_pickle=False)["depth"]
        np.testing.assert_allclose(depth[:5], 2 * room_clip.depth[:5], rtol=0.01)
        np.testing.assert_allclose(depth[5:], room_clip.depth[5:], rtol=0.05)


def test_a_model_that_does_not_help_is_refused(
    two_shots: Callable[..., DepthResult], room_clip: SyntheticClip, tmp_path: Path
) -> None:
    result = two_shots()
    np.savez(tmp_path / "relative.npz", depth=room_clip.depth, representation="z_depth", ambiguity="scale")
    with pytest.raises(AmbiguityError, match="does not give metres"):
        to_metric(result, MetricModel(f"precomputed:{tmp_path / 'relative.npz'}"))
    noise = np.random.default_rng(0).uniform(0.2, 30, room_clip.depth.shape).astype(np.float32)
    np.savez(tmp_path / "noise.npz", depth=noise, representation="z_depth", ambiguity="metric")
    with pytest.raises(GeometryError, match="contradicts"):
        to_metric(result, MetricModel(f"precomputed:{tmp_path / 'noise.npz'}"))
    with pytest.raises(SpecError, match="must predict depth"):
        to_metric(result, MetricModel("motion"))
    with pytest.raises(ConfigError, match="several metric models"):
        to_metric(result, [MetricModel("a"), MetricModel("b")])


def test_an_assumed_offset_is_given_with_the_reference(make_result: Callable[..., Path], tmp_path: Path) -> None:
    result = DepthResult(make_result(ambiguity="affine", kind="static"))
    how = {"to_metric": "pixel:48,30=2", "far_over_near": 4.0}
    (path,) = export_result(result, "npz", tmp_path, **how)["npz"]
    assert np.load(path, allow_pickle=False)["depth"][0, 30, 48] == pytest.approx(2.0, rel=0.02)


def test_height_needs_ground(make_result: Callable[..., Path]) -> None:
    folder = make_result(ambiguity="scale")
    (folder.parent / "working" / "panoptic" / "complete.json").unlink()
    with pytest.raises(GeometryError, match="ground"):
        to_metric(DepthResult(folder), CameraHeight(1.5))


def test_ground_is_found_by_name_where_panoptic_segments_have_none(
    make_result: Callable[..., Path], room_clip: SyntheticClip
) -> None:
    """Colour regions know no ground: the semantic network's word counts."""
    folder = make_result(ambiguity="scale")
    manifest = json.loads((folder / "manifest.json").read_text())
    named = Path(manifest["stages"]["panoptic"]["path"])
    regions = shutil.copytree(named, named.with_name("regions"))
    for marker in (regions / "done").glob("*.json"):
        content = json.loads(marker.read_text())
        content["extra"] = [{key: ["region", 0, False, 1.0] for key in one} for one in content["extra"]]
        marker.write_text(json.dumps(content))
    manifest["stages"]["semantic"] = manifest["stages"]["panoptic"]
    manifest["stages"]["panoptic"] = {"key": "test", "path": str(regions)}
    manifest["models"]["panoptic"] = {"name": "regions", "licence": "none"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    height = float(1.3 - room_clip.world_from_cam[0, 1, 3])
    metric = to_metric(DepthResult(folder), CameraHeight(height))
    np.testing.assert_allclose(np.asarray(metric.depth[0]), room_clip.depth[0], rtol=0.03)


@pytest.mark.parametrize(
    "text",
    ["", "pixel:3=2", "pixel:1,2=-1", "pixel:1,2=nan", "camera-height:0", "camera-height:2@x", "model:", "door:2"],
)
def test_unreadable_references_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="camera-height:METRES"):
        parse_reference(text)


def test_readable_references() -> None:
    assert parse_reference("camera-height:1.6") == CameraHeight(1.6)
    assert parse_reference("camera-height:1.6@40") == CameraHeight(1.6, frame=40)
    assert parse_reference("model:precomputed:a.npz") == MetricModel("precomputed:a.npz")
    assert parse_reference("pixel:3,4=2.5") == ReferenceDistance(3, 4, 2.5)
