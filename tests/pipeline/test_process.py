"""One video from file to result: complete, reused, resumed, repaired."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from stf_depth.cache.files import read_json, write_json
from stf_depth.cache.lock import folder_lock
from stf_depth.config import preset
from stf_depth.errors import (
    ConfigError,
    DeviceError,
    ExportError,
    LockedError,
    OutputError,
    UnreadableVideoError,
    UntrustedPickleError,
)
from stf_depth.perception.base import DepthFromGeometry
from stf_depth.perception.registry import create
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.process import Delivery
from stf_depth.pipeline.progress import SilentReporter
from stf_depth.video import container
from stf_depth.video.reader import open_video

Files = Callable[[Path], dict[str, bytes]]


class StopAfter(SilentReporter):
    """Ends a run after some frames of a stage, as Ctrl-C would."""

    def __init__(self, stage: str, frames: int) -> None:
        self._wanted, self._left, self._stage = stage, frames, ""

    def stage(self, video: str, stage: str, total: int | None) -> None:
        del video, total
        self._stage = stage

    def advance(self, frames: int) -> None:
        if self._stage == self._wanted:
            self._left -= frames
            if self._left < 0:
                raise KeyboardInterrupt


def test_result_has_every_frame_at_source_size(bench, long_video: Path) -> None:
    result = bench.run(long_video).result
    with open_video(long_video) as video:
        pts = np.concatenate([batch.pts_seconds for batch in video.batches(8)])
    assert result.depth.shape == (40, 64, 96)
    assert result.valid.shape == result.confidence.shape == result.depth.shape
    np.testing.assert_allclose(result.pts_seconds, pts)
    assert (str(result.representation), str(result.ambiguity)) == ("disparity", "affine")
    assert np.isfinite(np.asarray(result.depth[:])).all()
    confidence = np.asarray(result.confidence[:])
    assert confidence.min() >= 0
    assert confidence.max() <= 1


def test_shots_cover_the_video_and_split_at_the_cut(bench, long_video: Path) -> None:
    shots = bench.run(long_video).result.shots
    assert [(shot.start, shot.stop) for shot in shots] == [(0, 20), (20, 40)]


def test_second_run_does_nothing(bench, long_video: Path) -> None:
    first = bench.run(long_video)
    seen = bench.depth.frames, bench.semantic.frames
    second = bench.run(long_video)
    assert not first.reused
    assert second.reused
    assert (bench.depth.frames, bench.semantic.frames) == seen == (40, 40)


def test_fusion_off_runs_no_network(bench, long_video: Path) -> None:
    bench.run(long_video)
    outcome = bench.run(long_video, **{"fusion.mode": "none"})
    assert "fusion" in outcome.stages_run
    assert bench.depth.frames == 40
    rgb = next(iter(open_video(long_video).batches(1))).rgb[0]
    expected = rgb[::2, ::2].mean(axis=-1) / 255 + 0.1
    enlarged = cv2.resize(expected.astype(np.float32), (96, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(np.asarray(outcome.result.depth[0]), enlarged, atol=1e-6)


def test_another_depth_model_keeps_the_segmentation(bench, long_video: Path) -> None:
    bench.run(long_video)
    bench.depth.digest = "2"
    bench.run(long_video)
    assert bench.depth.frames == 80
    assert bench.semantic.frames == 40


@pytest.mark.parametrize(("stage", "frames"), [("inference", 17), ("inference", 30), ("fusion", 9), ("fusion", 33)])
def test_interrupted_run_resumes_to_the_same_bytes(
    bench, long_video: Path, data_files: Files, stage: str, frames: int
) -> None:
    whole = data_files(bench.run(long_video, "whole").result.folder)
    bench.depth.frames = 0
    stopped = replace(bench, reporter=StopAfter(stage, frames))
    with pytest.raises(KeyboardInterrupt):
        stopped.run(long_video, "stopped")
    resumed = bench.run(long_video, "stopped")
    assert data_files(resumed.result.folder) == whole
    # At most one chunk of sixteen frames, and the frames on their way to it, were looked at twice.
    assert bench.depth.frames <= 40 + 2 * 16


def test_a_resumed_run_converts_no_frame_twice_for_its_size(
    bench, long_video: Path, data_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"video.working_long_side_px": 64}
    whole = data_files(bench.run(long_video, "whole", **small).result.folder)
    with pytest.raises(KeyboardInterrupt):
        replace(bench, reporter=StopAfter("fusion", 33)).run(long_video, "stopped", **small)
    converted = []
    convert = container.to_rgb
    monkeypatch.setattr(container, "to_rgb", lambda frame: converted.append(frame.pts) or convert(frame))
    assert data_files(bench.run(long_video, "stopped", **small).result.folder) == whole
    # A frame to know the size by, and those of the chunks that are missing.
    assert len(converted) <= 1 + 40 - 16


def test_same_bytes_twice(bench, long_video: Path, data_files: Files) -> None:
    runs = [data_files(bench.run(long_video, name).result.folder) for name in ("a", "b")]
    assert runs[0] == runs[1]


@pytest.mark.gpu
def test_a_run_on_a_gpu_gives_the_depth_of_one_on_the_cpu(bench, long_video: Path) -> None:
    results = [bench.run(long_video, device, device=device).result for device in ("cpu", "cuda")]
    expected, got = (np.asarray(result.depth[:]) for result in results)
    assert np.array_equal(*(np.asarray(result.valid[:]) for result in results))
    gap = np.abs(got - expected) / np.abs(expected).max()
    assert np.quantile(gap, 0.99) < 1e-3
    assert gap.mean() < 1e-3


def test_damaged_cache_is_repaired(bench, long_video: Path, data_files: Files) -> None:
    whole = data_files(bench.run(long_video).result.folder)
    chunk = next((bench.root / "a" / "working" / "cache").glob("depth-*/data.zarr/depth/c/1/0/0"))
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    again = bench.run(long_video, **{"fusion.mode": "none"})
    assert bench.depth.frames <= 40 + 16
    assert again.frames == 40
    assert data_files(bench.run(long_video).result.folder) == whole


def test_damage_found_while_exporting_is_repaired(bench, long_video: Path, data_files: Files) -> None:
    whole = data_files(bench.run(long_video).result.folder)
    chunk = bench.root / "a" / "output" / "depth.zarr" / "depth" / "c" / "1" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    exporting = replace(bench, delivery=replace(bench.delivery, exports=("npz",)))
    folder = exporting.run(long_video).result.folder
    assert data_files(folder) == whole
    assert (folder / "depth.npz").is_file()


def test_no_resume_starts_over(bench, long_video: Path) -> None:
    bench.run(long_video)
    fresh = replace(bench, delivery=replace(bench.delivery, resume=False))
    assert not fresh.run(long_video).reused
    assert bench.depth.frames == 80


def test_exports_of_other_depth_are_removed(bench, long_video: Path) -> None:
    told: list[str] = []

    class Listening(SilentReporter):
        def message(self, video: str, text: str) -> None:
            told.append(f"{video}: {text}")

    exporting = replace(bench, reporter=Listening(), delivery=replace(bench.delivery, exports=("npz", "png16", "mkv")))
    output = exporting.run(long_video).result.folder
    (output / "notes.txt").write_text("mine")
    made = {"depth.npz", "depth_png16", "depth_gray16.mkv", "depth_gray16.mkv.json"}
    assert made <= {path.name for path in output.iterdir()}
    assert not told

    bench.depth.digest = "2"
    replace(exporting, delivery=bench.delivery).run(long_video)
    assert {path.name for path in output.iterdir()} >= {"notes.txt", "depth.zarr", "manifest.json"}
    assert not made & {path.name for path in output.iterdir()}
    (line,) = told
    assert all(name in line for name in made)


def test_the_first_result_of_a_folder_removes_nothing(bench, room_video: Path) -> None:
    mine = bench.root / "a" / "output" / "depth.npz"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    bench.run(room_video, **{"fusion.mode": "none"})
    assert mine.read_bytes() == b"mine"


def test_exports_stay_where_the_depth_stays(bench, long_video: Path) -> None:
    exporting = replace(bench, delivery=replace(bench.delivery, exports=("npz",)))
    output = exporting.run(long_video).result.folder
    bench.run(long_video)
    assert (output / "depth.npz").is_file()
    next(output.glob("depth.zarr/depth/c/1/0/0")).unlink()
    (output / "manifest.json").unlink()
    assert "fusion" in bench.run(long_video).stages_run
    assert (output / "depth.npz").is_file()


def test_the_result_of_another_video_is_not_replaced(bench, room_video: Path, long_video: Path, tmp_path: Path) -> None:
    mine, other = tmp_path / "one" / "clip.mp4", tmp_path / "two" / "clip.mp4"
    for path, source in ((mine, room_video), (other, long_video)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source.read_bytes())
    off = {"fusion.mode": "none"}
    assert bench.run(mine, **off).frames == 12
    for run in (bench, replace(bench, delivery=replace(bench.delivery, resume=False))):
        with pytest.raises(OutputError, match="another video") as refused:
            run.run(other, **off)
        assert all(str(part) in str(refused.value) for part in (bench.root / "a" / "output", mine, other))
    mine.parent.rename(tmp_path / "moved")
    assert bench.run(tmp_path / "moved" / "clip.mp4", **off).reused
    (tmp_path / "link.mp4").symlink_to(tmp_path / "moved" / "clip.mp4")
    assert bench.run(tmp_path / "link.mp4", **off).reused


def test_a_video_that_was_edited_replaces_its_result(bench, room_video: Path, long_video: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(room_video.read_bytes())
    bench.run(clip, **{"fusion.mode": "none"})
    clip.write_bytes(long_video.read_bytes())
    assert bench.run(clip, **{"fusion.mode": "none"}).frames == 40


def test_a_format_that_fails_does_not_stop_the_others(bench, room_video: Path) -> None:
    exporting = replace(bench, delivery=replace(bench.delivery, exports=("ply", "npz", "mesh-ply", "png16")))
    with pytest.raises(ExportError) as failed:
        exporting.run(room_video, **{"fusion.mode": "none"})
    assert "ply: the focal length" in str(failed.value) and "mesh-ply: the focal length" in str(failed.value)
    result = bench.run(room_video, **{"fusion.mode": "none"}).result
    assert set(result.manifest["exports"]) == {"npz", "png16"}


@pytest.mark.parametrize("size", [{"video.output_wh": (30000, 30000)}, {"video.output_long_side_px": 100000}])
def test_an_output_beyond_the_memory_is_refused_before_any_work(bench, room_video: Path, size: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"output is too large .*at most 67108864 pixels.*--size"):
        bench.run(room_video, **size)
    assert bench.depth.frames == 0


def test_an_absent_device_is_told_before_any_work() -> None:
    absent = "mps" if platform.system() == "Linux" else "cuda"
    with pytest.raises(DeviceError, match=absent):
        Backends.of(preset("offline", device=absent))
    assert Backends.of(preset("offline", device="cpu")).panoptic is not None


def test_folder_in_use_is_refused(bench, long_video: Path) -> None:
    with folder_lock(bench.root / "a" / "working"), pytest.raises(LockedError, match="another run"):
        bench.run(long_video)


def test_original_layout(bench, room_video: Path) -> None:
    original = replace(bench, delivery=Delivery(standard=False, inference_pickle=True))
    outcome = original.run(room_video)
    assert set(vars(outcome.result)) == {"folder"}, "frames that were decoded for the images stay with the result"
    working = bench.root / "a" / "working"
    for folder in ("frames", "depth", "segment", "segment_detail"):
        assert len(list((working / folder).iterdir())) == 12
    assert (working / "infer_result.pkl").is_file()
    assert original.run(room_video).reused


def test_no_images_unless_asked_for(bench, room_video: Path) -> None:
    bench.run(room_video)
    working = bench.root / "a" / "working"
    assert not any((working / folder).exists() for folder in ("frames", "depth", "segment", "segment_detail"))


@pytest.mark.parametrize("name", ["frames", "depth", "segment", "segment_detail"])
def test_images_do_not_replace_the_folders_of_others(bench, room_video: Path, name: str) -> None:
    drawing = replace(bench, delivery=Delivery(standard=False))
    mine = bench.root / "a" / "working" / name / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("kept")
    for run in (drawing, replace(drawing, delivery=replace(drawing.delivery, resume=False))):
        with pytest.raises(OutputError, match=r"no run has written.*--working-dir") as refused:
            run.run(room_video)
        assert str(mine.parent) in str(refused.value)
    assert mine.read_text() == "kept"
    assert bench.depth.frames == 0


def test_images_do_not_replace_the_input(bench, room_sequence: Path) -> None:
    images = bench.root / "a" / "working" / "frames"
    shutil.copytree(room_sequence / "color", images)
    (images.parent / "images.json").write_text("{}")
    with pytest.raises(OutputError, match="would replace the input"):
        replace(bench, delivery=Delivery(standard=False)).run(images)
    assert len(list(images.iterdir())) == 12


def test_images_of_an_interrupted_run_are_made_anew(bench, room_video: Path, tmp_path: Path) -> None:
    drawing = replace(bench, delivery=Delivery(standard=False))
    with pytest.raises(KeyboardInterrupt):
        replace(drawing, reporter=StopAfter("images", 5)).run(room_video)
    working, elsewhere = bench.root / "a" / "working", tmp_path / "elsewhere"
    (working / "frames").rename(elsewhere)
    (working / "frames").symlink_to(elsewhere)
    replace(drawing, delivery=replace(drawing.delivery, resume=False)).run(room_video)
    assert len(list((working / "frames").iterdir())) == 12
    assert not (working / "frames").is_symlink() and any(elsewhere.iterdir())


def test_inference_pickle_stands_in_for_a_lost_cache(bench, room_video: Path, data_files: Files) -> None:
    from stf_depth.cache.files import remove_tree

    original = replace(bench, delivery=replace(bench.delivery, inference_pickle=True))
    whole = data_files(original.run(room_video).result.folder)
    remove_tree(bench.root / "a" / "working" / "cache")
    remove_tree(bench.root / "a" / "output")
    again = original.run(room_video)
    assert bench.depth.frames == bench.semantic.frames == 12
    assert data_files(again.result.folder) == whole


def test_untrusted_pickle_is_refused(bench, room_video: Path) -> None:
    import os
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, ("true",)

    working = bench.root / "a" / "working"
    working.mkdir(parents=True)
    (working / "infer_result.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UntrustedPickleError, match="system"):
        bench.run(room_video)


def test_manifest_says_what_was_done(bench, room_video: Path) -> None:
    manifest = bench.run(room_video).result.manifest
    assert manifest["models"]["depth"]["name"] == "counted"
    assert manifest["input"]["frames"] == 12
    assert manifest["config"]["video"]["working_long_side_px"] == 96
    assert set(manifest["flicker_percent"]) == {"per_frame", "fused"}
    json.dumps(manifest, allow_nan=False)


def test_unusable_file_leaves_nothing_behind(bench, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(UnreadableVideoError):
        bench.run(text)
    assert not (bench.root / "a" / "output" / "manifest.json").exists()


def test_depth_from_motion_runs_without_any_network(bench, room_video: Path) -> None:
    motion = create("depth", "motion")
    assert isinstance(motion, DepthFromGeometry)
    outcome = replace(bench, depth=motion, semantic=None).run(room_video)
    assert outcome.result.depth.shape == (12, 64, 96)
    assert str(outcome.result.representation) == "disparity"
    assert len(outcome.fallbacks) in (0, 1)


def bare_stream(video: Path, path: Path, codec: str, *, damaged: bool) -> Path:
    """A video without a container, on request with bytes changed in its middle."""
    import av

    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream(codec, rate=25, options={"g": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for frame in source.decode(video=0):
            picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400 * damaged] = np.random.default_rng(0).bytes(400 * damaged)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "wrong"),
    [("a.h264", "libx264", ["corrected_times"]), ("a.m4v", "mpeg4", ["failed_frames", "damaged_frames"])],
)
def test_what_is_wrong_with_the_input_is_in_the_manifest(
    bench, name: str, codec: str, wrong: list[str], long_video: Path, tmp_path: Path
) -> None:
    path = bare_stream(long_video, tmp_path / name, codec, damaged="failed_frames" in wrong)
    given = bench.run(path).result.manifest["input"]
    with open_video(path) as video:
        assert sum(len(batch) for batch in video.batches(8)) == given["frames"]
    for counter in ("failed_frames", "damaged_frames", "corrected_times"):
        assert given[counter] == getattr(video, counter)
    assert sum(given[counter] for counter in wrong) > 0
    assert given["unusable_maps"] == {}


def test_facts_of_an_older_version_are_found_out_again(bench, long_video: Path, tmp_path: Path) -> None:
    path = bare_stream(long_video, tmp_path / "a.h264", "libx264", damaged=False)
    whole = bench.run(path).result.manifest["input"]
    (facts_path,) = (bench.root / "a" / "working" / "cache").glob("shots-*.json")
    facts = read_json(facts_path)
    write_json(facts_path, {name: value for name, value in facts.items() if name != "corrected_times"})
    (bench.root / "a" / "output" / "manifest.json").unlink()
    assert bench.run(path).result.manifest["input"] == whole
    assert bench.depth.frames == 40


def test_maps_that_are_missing_or_damaged_are_counted_over_an_interruption(
    bench, long_video: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(40):
        # Frame 20 is unlabelled on purpose.
        Image.fromarray(np.full((8, 12), number != 20, np.uint8)).save(masks / f"{number}.png")
    (masks / "3.png").unlink()
    (masks / "33.png").write_bytes(b"")
    bench.semantic = create("semantic", f"precomputed:{masks}")
    bench.reporter = StopAfter("inference", 16)
    with pytest.raises(KeyboardInterrupt):
        bench.run(long_video)
    bench.semantic = create("semantic", f"precomputed:{masks}")
    bench.reporter = SilentReporter()
    assert bench.run(long_video).result.manifest["input"]["unusable_maps"] == {"semantic": 2}
