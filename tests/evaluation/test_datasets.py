"""Every dataset adapter on a small folder in the dataset's own layout."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from stf_depth.errors import InputNotFoundError, SequenceError, UsageError
from stf_depth.evaluation.clips import Crop, GroundTruthClip, orthonormal_poses
from stf_depth.evaluation.datasets import DATASETS, bonn, kitti, nyuv2, scannet, sintel, tum
from stf_depth.evaluation.datasets import dataset as find_dataset
from stf_depth.evaluation.evaluate import evaluate_dataset
from stf_depth.evaluation.sequences import read_sequence


def depth_of(index: int, height: int, width: int) -> np.ndarray:
    """Metres, different in every pixel and frame, exact in every unit used here."""
    steps = np.arange(height * width).reshape(height, width) % 64
    return 1.0 + 0.5 * (index % 7) + steps / 64


def write_image(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), (10, 20, 30), np.uint8))


def write_depth(path: Path, metres: np.ndarray, units_per_m: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.rint(metres * units_per_m).astype(np.uint16))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def make_sintel(root: Path, clips: tuple[str, ...] = sintel.CLIPS, frames: int = 52) -> None:
    for clip in clips:
        for k in range(1, frames + 1):
            write_image(root / "training/clean" / clip / f"frame_{k:04d}.png", 6, 8)
            depth = depth_of(k, 6, 8).astype("<f4")
            data = struct.pack("<fii", 202021.25, 8, 6) + depth.tobytes()
            path = root / "training/depth" / clip / f"frame_{k:04d}.dpt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def make_kitti(root: Path, drives: int = 13, frames: int = 3) -> None:
    for number in range(drives):
        drive = f"2011_09_26_drive_{number + 1:04d}_sync"
        for k in range(5, 5 + frames):
            write_image(root / "raw/2011_09_26" / drive / "image_02/data" / f"{k:010d}.png", 375, 1242)
            folder = root / "data_depth_annotated/val" / drive / "proj_depth/groundtruth/image_02"
            write_depth(folder / f"{k:010d}.png", depth_of(k, 375, 1242) * 10, 256)


def make_scannet(root: Path, scenes: int, frames: int) -> None:
    pose = np.eye(4)
    for number in range(scenes):
        scene = root / f"scene{707 + number:04d}_00"
        write_text(scene / "intrinsic/intrinsic_depth.txt", "570 0 320 0\n0 570 240 0\n0 0 1 0\n0 0 0 1\n")
        for k in range(frames):
            write_image(scene / f"color/{k}.jpg", 480, 640)
            write_depth(scene / f"depth/{k}.png", depth_of(k, 480, 640), 1000)
            pose[0, 3] = 0.01 * k
            lines = np.full((4, 4), -np.inf) if k == 1 else pose
            write_text(scene / f"pose/{k}.txt", "\n".join(" ".join(map(str, row)) for row in lines))


def make_rgbd(folder: Path, frames: int, height: int = 6, width: int = 8) -> None:
    """The layout of TUM and Bonn: colour leads depth by 5 ms; one colour frame has no depth."""
    rgb, depth, poses = ["# color"], ["# depth"], ["# time tx ty tz qx qy qz qw"]
    for k in range(frames):
        t = 1000 + k / 30
        write_image(folder / f"rgb/{t:.6f}.png", height, width)
        rgb.append(f"{t:.6f} rgb/{t:.6f}.png")
        poses.append(f"{t + 0.001:.6f} {0.1 * k} 0 0 0 {np.sin(np.pi / 4)} 0 {np.cos(np.pi / 4)}")
        if k != 1:
            write_depth(folder / f"depth/{t + 0.005:.6f}.png", depth_of(k, height, width), 5000)
            depth.append(f"{t + 0.005:.6f} depth/{t + 0.005:.6f}.png")
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", poses)):
        write_text(folder / f"{name}.txt", "\n".join(lines) + "\n")


def make_nyuv2(root: Path, frames: int = 2) -> None:
    for clip in nyuv2.CLIPS:
        for k in range(frames):
            write_image(root / clip / f"rgb/{k:05d}.png", 480, 640)
            write_depth(root / clip / f"depth/{k:05d}.png", depth_of(k, 480, 640), 6000)


def make_seven_scenes(root: Path) -> None:
    folder = root / "redkitchen" / "seq-01"
    for k in range(3):
        depth = np.rint(depth_of(k, 6, 8) * 1000).astype(np.uint16)
        depth[0, 0] = 65535
        write_image(folder / f"frame-{k:06d}.color.png", 6, 8)
        cv2.imwrite(str(folder / f"frame-{k:06d}.depth.png"), depth)
        write_text(folder / f"frame-{k:06d}.pose.txt", "1 0 0 0.5\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")


def assert_depth(clip: GroundTruthClip, index: int, expected: np.ndarray) -> None:
    np.testing.assert_allclose(clip.full_truth_m(index), expected, atol=1e-3)


def test_the_table_names_seven_datasets_with_source_and_licence() -> None:
    assert set(DATASETS) == {"sintel", "kitti", "scannet", "bonn", "nyuv2", "tum", "7-scenes"}
    for entry in DATASETS.values():
        assert entry.source
        assert entry.licence
        assert "all" in entry.settings
    with pytest.raises(UsageError, match="unknown dataset"):
        find_dataset("kitty")


def test_sintel(tmp_path: Path) -> None:
    make_sintel(tmp_path)
    clips = find_dataset("sintel").clips(tmp_path)
    assert (len(clips), len(clips[0]), clips[0].d_max_m) == (23, 50, 70.0)
    assert len(find_dataset("sintel").clips(tmp_path, "long")[0]) == 52
    assert_depth(clips[0], 0, depth_of(1, 6, 8))
    assert clips[0].rgb(0)[0, 0].tolist() == [30, 20, 10]
    assert "static" in clips[0].poses_absent
    (tmp_path / "training/depth" / sintel.CLIPS[0] / "frame_0001.dpt").write_bytes(b"damaged file")
    with pytest.raises(SequenceError, match=r"\.dpt"):
        clips[0].full_truth_m(0)


def test_sintel_camera_file(tmp_path: Path) -> None:
    K = np.array([[700.0, 0, 512], [0, 701, 218], [0, 0, 1]])
    cam_from_world = np.hstack([np.eye(3), [[1.0], [2.0], [3.0]]])
    path = tmp_path / "frame_0001.cam"
    path.write_bytes(struct.pack("<f", 202021.25) + K.tobytes() + cam_from_world.tobytes())
    found, pose = sintel.read_cam(path)
    np.testing.assert_array_equal(found, K)
    np.testing.assert_array_equal(pose[:3, 3], [-1, -2, -3])


def test_published_lists_must_be_complete(tmp_path: Path) -> None:
    make_sintel(tmp_path, ("alley_1",), 2)
    with pytest.raises(InputNotFoundError, match="absent"):
        find_dataset("sintel").clips(tmp_path)
    assert [clip.name for clip in find_dataset("sintel").clips(tmp_path, "all")] == ["alley_1"]


def test_kitti(tmp_path: Path) -> None:
    make_kitti(tmp_path, frames=1)
    clips = find_dataset("kitti").clips(tmp_path)
    assert (len(clips), clips[0].d_max_m, clips[0].crop) == (13, 80.0, kitti.CROP)
    assert_depth(clips[0], 0, depth_of(5, 375, 1242) * 10)
    assert clips[0].crop.of(clips[0].full_truth_m(0)).shape == (374, 1242)
    (tmp_path / "raw/2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005.png").unlink()
    with pytest.raises(InputNotFoundError, match="colour frames are absent"):
        find_dataset("kitti").clips(tmp_path)


def test_kitti_wants_thirteen_drives(tmp_path: Path) -> None:
    make_kitti(tmp_path, drives=2, frames=1)
    with pytest.raises(InputNotFoundError, match="13"):
        find_dataset("kitti").clips(tmp_path)
    assert len(find_dataset("kitti").clips(tmp_path, "all")) == 2


def test_scannet(tmp_path: Path) -> None:
    make_scannet(tmp_path, 1, 4)
    clip = find_dataset("scannet").clips(tmp_path, "all")[0]
    assert (len(clip), clip.crop, clip.d_max_m) == (4, Crop(8, -8, 11, -11), 10.0)
    assert_depth(clip, 2, depth_of(2, 480, 640))
    assert clip.crop.of(clip.full_truth_m(0)).shape == (464, 618)
    assert clip.cropped_K is not None
    assert clip.cropped_K[:2, 2].tolist() == [320 - 11, 240 - 8]
    assert clip.world_from_cam is not None
    assert np.isnan(clip.world_from_cam[1]).all()
    assert clip.world_from_cam[3, 0, 3] == pytest.approx(0.03)
    with pytest.raises(InputNotFoundError, match="100"):
        find_dataset("scannet").clips(tmp_path, "short")


def test_scannet_frame_ranges() -> None:
    assert len(range(500)[scannet.FRAMES["short"]]) == 90
    assert len(range(900)[scannet.FRAMES["long"]]) == 500
    assert list(range(500)[scannet.FRAMES["tae"]])[::169] == [10, 179]
    assert scannet.SCENES["tae"] == 20


def test_bonn(tmp_path: Path) -> None:
    for name in bonn.CLIPS:
        make_rgbd(tmp_path / f"rgbd_bonn_{name}", 36, 7, 9)
    clips = find_dataset("bonn").clips(tmp_path)
    assert [clip.name for clip in clips] == list(bonn.CLIPS)
    # 36 frames less the one without depth, from the 31st on.
    assert len(clips[0]) == 5
    assert clips[0].crop.of(clips[0].full_truth_m(0)).shape == (6, 8)
    assert_depth(clips[0], 0, depth_of(31, 7, 9))
    assert "people move" in clips[0].poses_absent


def test_tum(tmp_path: Path) -> None:
    make_rgbd(tmp_path / "rgbd_dataset_freiburg1_xyz", 4)
    clip = find_dataset("tum").clips(tmp_path)[0]
    assert [path.stem for path in clip.color_files] == ["1000.000000", "1000.066667", "1000.100000"]
    assert_depth(clip, 1, depth_of(2, 6, 8))
    assert clip.K is not None
    assert clip.K[0, 0] == pytest.approx(517.306408)
    assert clip.world_from_cam is not None
    # A quarter turn about y: the camera looks along +x.
    np.testing.assert_allclose(clip.world_from_cam[1, :3, 2], [1, 0, 0], atol=1e-9)
    assert clip.world_from_cam[1, 0, 3] == pytest.approx(0.2)
    (tmp_path / "rgbd_dataset_freiburg1_xyz").rename(tmp_path / "rgbd_dataset_freiburg9_xyz")
    with pytest.raises(SequenceError, match="which camera"):
        find_dataset("tum").clips(tmp_path)


def test_association_takes_the_nearest_time_within_the_gap() -> None:
    others = np.array([0.0, 0.033, 0.066])
    assert tum.associate(np.array([0.001, 0.02, 0.05, 0.2]), others) == [0, 1, 2, -1]
    assert tum.associate(np.array([5.0]), np.array([5.01])) == [0]


def test_nyuv2(tmp_path: Path) -> None:
    make_nyuv2(tmp_path)
    clips = find_dataset("nyuv2").clips(tmp_path)
    assert [clip.name for clip in clips] == list(nyuv2.CLIPS)
    assert_depth(clips[0], 1, depth_of(1, 480, 640))
    assert clips[0].crop.of(clips[0].full_truth_m(0)).shape == (426, 560)


def test_seven_scenes(tmp_path: Path) -> None:
    make_seven_scenes(tmp_path)
    clip = find_dataset("7-scenes").clips(tmp_path)[0]
    assert (clip.name, len(clip)) == ("redkitchen_seq-01", 3)
    truth = clip.full_truth_m(1)
    assert truth[0, 0] == 0
    np.testing.assert_allclose(truth[1:], depth_of(1, 6, 8)[1:], atol=1e-3)
    assert clip.world_from_cam is not None
    assert clip.world_from_cam[0, 0, 3] == 0.5


def test_settings_without_meaning_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no setting"):
        find_dataset("7-scenes").clips(tmp_path, "short")
    with pytest.raises(InputNotFoundError):
        find_dataset("tum").clips(tmp_path / "absent")


def test_dataset_scores_are_means_over_clips_and_a_missing_clip_fails(tmp_path: Path) -> None:
    make_sintel(tmp_path / "data", ("alley_1", "cave_2"), 3)
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    depth = np.stack([depth_of(k, 6, 8) for k in (1, 2, 3)]).astype(np.float32)
    meaning = {"representation": np.array("z_depth"), "ambiguity": np.array("metric")}
    for clip in ("alley_1", "cave_2"):
        np.savez(predictions / f"{clip}.npz", depth=depth, **meaning)
    perfect = evaluate_dataset("sintel", tmp_path / "data", predictions, setting="all")
    assert perfect.value("abs_rel", "metric") == pytest.approx(0, abs=1e-6)
    assert perfect.counts["clips"] == 2
    (predictions / "cave_2.npz").unlink()
    broken = evaluate_dataset("sintel", tmp_path / "data", predictions, setting="all")
    assert broken.counts["failed_frames"] == 3
    assert broken.value("abs_rel", "metric") > 5
    assert broken.value("delta1", "metric") == pytest.approx(0.5)


def test_cropped_predictions_cover_only_the_crop(tmp_path: Path) -> None:
    from stf_depth.evaluation.evaluate import ScoreOptions, score_prediction
    from stf_depth.evaluation.predictions import ArrayPrediction

    make_nyuv2(tmp_path, 1)
    clip = find_dataset("nyuv2").clips(tmp_path)[0]
    full = clip.full_truth_m(0)
    for view, depth in (("full", full), ("cropped", full[45:471, 41:601])):
        prediction = ArrayPrediction(depth[None], "z_depth", "metric")
        scores = score_prediction(prediction, clip, options=ScoreOptions(view=view, boundaries=False))
        assert scores.value("abs_rel", "metric") == pytest.approx(0, abs=1e-6)


class TestSequenceFolder:
    def make(self, folder: Path, frames: int = 3) -> Path:
        for k in range(frames):
            write_image(folder / f"color/{k:06d}.jpg", 12, 16)
            write_depth(folder / f"depth/{k:06d}.png", depth_of(k, 6, 8), 1000)
        pose = np.eye(4)
        pose[0, 1] = 0.01
        np.savetxt(folder / "poses.txt", np.stack([pose.ravel()] * frames))
        np.savetxt(folder / "intrinsics.txt", [[20, 0, 8], [0, 20, 6], [0, 0, 1]])
        return folder

    def test_reads_depth_poses_and_intrinsics_at_the_depth_size(self, tmp_path: Path) -> None:
        clip = read_sequence(self.make(tmp_path))
        assert_depth(clip, 2, depth_of(2, 6, 8))
        assert clip.K is not None
        np.testing.assert_allclose(clip.K, [[10, 0, 3.75], [0, 10, 2.75], [0, 0, 1]])
        assert clip.world_from_cam is not None
        rotation = clip.world_from_cam[0, :3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert rotation[0, 1] == pytest.approx(0.005, abs=1e-4)

    def test_refuses_frames_that_do_not_belong_together(self, tmp_path: Path) -> None:
        folder = self.make(tmp_path)
        (folder / "depth/000001.png").unlink()
        with pytest.raises(SequenceError, match="000001"):
            read_sequence(folder)

    def test_refuses_too_few_poses(self, tmp_path: Path) -> None:
        folder = self.make(tmp_path)
        np.savetxt(folder / "poses.txt", np.eye(4).reshape(1, 16))
        with pytest.raises(SequenceError, match="poses"):
            read_sequence(folder)

    def test_works_without_poses(self, tmp_path: Path) -> None:
        folder = self.make(tmp_path)
        (folder / "poses.txt").unlink()
        (folder / "intrinsics.txt").unlink()
        assert read_sequence(folder).world_from_cam is None

    def test_refuses_what_is_not_a_rotation(self, tmp_path: Path) -> None:
        with pytest.raises(Exception, match="not a rotation"):
            orthonormal_poses(2 * np.eye(4)[None], where=tmp_path)

    def test_refuses_an_absent_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputNotFoundError):
            read_sequence(tmp_path / "absent")
