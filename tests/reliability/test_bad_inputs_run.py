"""Bad and odd inputs through the command: a clear line and the right exit code, or a right result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import zarr
from PIL import Image

from stf_depth.api import open_result

Run = Callable[..., int]
Error = Callable[[], str]
# Depth without any network, for whatever number of frames a video turns out to have.
MOTION = ("--depth", "motion", "--no-visualize", "--quiet")


def encode(path: Path, frames: np.ndarray, codec: str = "libx264", pixel_format: str = "yuv420p") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel_format
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def noise(count: int, wh: tuple[int, int] = (96, 64)) -> np.ndarray:
    rng = np.random.default_rng(3)
    small = rng.integers(0, 255, (count, max(1, wh[1] // 8), max(1, wh[0] // 8), 3)).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize(wh)) for image in small])


def flat(count: int, value: int) -> np.ndarray:
    return np.full((count, 64, 96, 3), value, np.uint8)


FRAMES: dict[str, Callable[[], np.ndarray]] = {
    "one frame": lambda: noise(1),
    "two frames": lambda: noise(2),
    "one pixel": lambda: noise(2, (1, 1)),
    "one column": lambda: noise(2, (1, 48)),
    "odd size": lambda: noise(3, (33, 17)),
    "extreme aspect": lambda: noise(2, (400, 4)),
    "black": lambda: flat(5, 0),
    "white": lambda: flat(5, 255),
    "constant": lambda: flat(5, 90),
    "strobe": lambda: np.stack([flat(1, 255 * (number % 2))[0] for number in range(10)]),
    "very fast cuts": lambda: np.repeat(noise(6), 2, axis=0),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_odd_video_gives_a_result_of_its_size(kind: str, run: Run, tmp_path: Path) -> None:
    frames = FRAMES[kind]()
    video = encode(tmp_path / "clip.mov", frames, "png", "rgb24")
    assert run(video, *MOTION) == 0
    result = open_result(tmp_path / "o" / "clip")
    assert result.depth.shape == frames.shape[:3]
    depth, valid = np.asarray(result.depth[:]), np.asarray(result.valid[:])
    assert np.isfinite(depth).all()
    assert (depth[valid] >= 0).all()
    assert next(shot.start for shot in result.shots) == 0
    assert sum(len(shot) for shot in result.shots) == len(frames)
    json.dumps(result.manifest, allow_nan=False)


def test_all_sky(run: Run, tmp_path: Path) -> None:
    video = encode(tmp_path / "clip.mov", noise(4), "png", "rgb24")
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(4):
        Image.fromarray(np.ones((64, 96), np.uint8)).save(masks / f"{number}.png")
    (masks / "roles.json").write_text('{"1": {"name": "sky", "role": "sky"}}')
    np.savez(tmp_path / "d.npz", depth=np.ones((4, 8, 12), "f4"), representation="disparity", ambiguity="affine")
    depth = ("--depth", f"precomputed:{tmp_path / 'd.npz'}", "--no-visualize", "--quiet")
    assert run(video, *depth, "--panoptic", f"precomputed:{masks}", "--fusion", "flow") == 0
    assert np.isfinite(np.asarray(open_result(tmp_path / "o" / "clip").depth[:])).all()


@pytest.mark.parametrize(
    "name", ["影片 🎬.mp4", "x" * 250 + ".mp4", "a b'c\"d<e>.mp4", "-i.mp4", "1²3.mp4", "a ... b.mp4"]
)
def test_strange_names_stay_in_the_output_folder(name: str, room_video: Path, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_bytes(room_video.read_bytes())
    (folder / "2.mp4").write_bytes(room_video.read_bytes())
    assert run(folder, *MOTION, "--max-frames", "2") == 0
    made = [path for path in (tmp_path / "o").iterdir() if path.is_dir()]
    assert len(made) == 2
    assert all(len(open_result(path)) == 2 for path in made)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "o", "w"]


def test_symlinked_video_and_folder(room_video: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.mp4").symlink_to(room_video)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert run(tmp_path / "in", *MOTION, "--max-frames", "2") == 0
    assert [path.name for path in (tmp_path / "o").iterdir() if path.is_dir()] == ["link"]


def npz(path: Path, depth: np.ndarray, **more: Any) -> str:
    words = {"representation": "disparity", "ambiguity": "scale", **more}
    np.savez(path, depth=depth.astype("f4"), **words)
    return f"precomputed:{path}"


@pytest.mark.parametrize("fusion", ["none", "flow"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0])
def test_unusable_precomputed_values_are_invalid(
    value: float, fusion: str, room_video: Path, run: Run, tmp_path: Path
) -> None:
    depth = np.full((12, 8, 12), 2.0)
    depth[:, :4] = value
    spec = npz(tmp_path / "d.npz", depth)
    assert run(room_video, "--depth", spec, "--fusion", fusion, "--no-visualize", "--quiet") == 0
    result = open_result(tmp_path / "o" / "room")
    values, valid = np.asarray(result.depth[:]), np.asarray(result.valid[:])
    assert np.isfinite(values).all()
    assert valid[:, 40:].all()
    if fusion == "none":
        assert not valid[:, :28].any()
        np.testing.assert_allclose(values[:, 48:], 2.0)


@pytest.mark.parametrize("value", [np.nan, 0.0, 5.0])
def test_constant_precomputed_depth(value: float, room_video: Path, run: Run, tmp_path: Path) -> None:
    spec = npz(tmp_path / "d.npz", np.full((12, 8, 12), value))
    assert run(room_video, "--depth", spec, "--fusion", "flow", "--no-visualize", "--quiet") == 0
    result = open_result(tmp_path / "o" / "room")
    assert np.isfinite(np.asarray(result.depth[:])).all()
    assert np.asarray(result.valid[:]).any() == np.isfinite(value)


def damaged(path: Path, how: str) -> str:
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    else:
        middle = len(data) // 2
        data[middle : middle + 64] = b"\0" * 64
    path.write_bytes(bytes(data))
    return f"precomputed:{path}"


def bad_depth(kind: str, folder: Path) -> tuple[str, str]:
    """A specification of precomputed depth that cannot be used, and what the error must say."""
    path = folder / "d.npz"
    good = npz(path, np.random.default_rng(0).random((12, 8, 12)))
    if kind == "too few maps":
        return npz(path, np.ones((7, 8, 12))), "7"
    if kind == "too many maps":
        return npz(path, np.ones((20, 8, 12))), "one map for each frame"
    if kind == "two axes":
        return npz(path, np.ones((8, 12))), "(T, h, w)"
    if kind == "no meaning":
        np.savez(path, depth=np.ones((12, 8, 12), "f4"))
        return good, "representation"
    if kind == "another meaning":
        return npz(path, np.ones((12, 8, 12)), representation="inverse"), "representation"
    if kind == "objects":
        np.savez(path, depth=np.array([{}, {}], object))
        return good, "refused to unpickle"
    if kind == "text for depth":
        np.savez(path, depth=np.full((12, 8, 12), "near"), representation="disparity", ambiguity="scale")
        return good, "not numbers"
    if kind == "text for times":
        return npz(path, np.ones((12, 8, 12)), pts_seconds=np.full(12, "soon")), "not numbers"
    if kind == "no depth":
        np.savez(path, dept=np.ones(3))
        return good, "no depth"
    if kind == "absent":
        return f"precomputed:{folder / 'absent.npz'}", "absent.npz"
    if kind == "unknown home":
        return "precomputed:~nobody-of-this-name/d.npz", "home"
    if kind == "too long a path":
        return "precomputed:" + "x" * 5000, "xxx"
    if kind == "text":
        path.write_text("depth")
        return good, "damaged"
    return damaged(path, kind), "damaged"


BAD_DEPTH = [
    "too few maps", "too many maps", "two axes", "no meaning", "another meaning", "objects", "no depth", "absent",
    "text for depth", "text for times", "unknown home", "too long a path", "text", "cut",
]  # fmt: skip


@pytest.mark.parametrize("kind", BAD_DEPTH)
def test_unusable_precomputed_depth_is_one_line(
    kind: str, room_video: Path, run: Run, tmp_path: Path, one_error: Error
) -> None:
    spec, says = bad_depth(kind, tmp_path)
    assert run(room_video, "--depth", spec, "--no-visualize") in (1, 2)
    error = one_error()
    assert says in error and len(error) < 6000
    assert not (tmp_path / "o" / "room" / "manifest.json").exists()


def bad_roles(kind: str) -> str:
    return {
        "not json": "{",
        "a list": "[]",
        "no role": '{"1": {"name": "x"}}',
        "unknown role": '{"1": {"role": "cloud"}}',
        "no number": '{"one": {"role": "sky"}}',
        "too deep": "[" * 100_000,
        "text for an entry": '{"1": "sky"}',
    }[kind]


ROLES = ["not json", "a list", "no role", "unknown role", "no number", "too deep", "text for an entry"]


@pytest.mark.parametrize("kind", ROLES)
def test_broken_roles_are_one_line(
    kind: str, room_video: Path, room_depth: str, run: Run, tmp_path: Path, one_error: Error
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(12):
        Image.fromarray(np.ones((4, 6), np.uint8)).save(masks / f"{number}.png")
    (masks / "roles.json").write_text(bad_roles(kind))
    assert run(room_video, "--depth", room_depth, "--panoptic", f"precomputed:{masks}", "--no-visualize") == 1
    assert "unusable roles" in one_error()


def test_missing_and_damaged_masks_are_told(
    run: Run, room_video: Path, room_depth: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(12):
        Image.fromarray(np.ones((4, 6), np.uint8)).save(masks / f"{number}.png")
    (masks / "4.png").unlink()
    (masks / "7.png").write_bytes(b"")
    options = ("--depth", room_depth, "--panoptic", f"precomputed:{masks}", "--no-visualize")
    monkeypatch.setenv("COLUMNS", "200")
    assert run(room_video, *options) == 0
    assert "12 (2 without panoptic map)" in capsys.readouterr().out
    assert run(room_video, *options, "--log-json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["unusable_maps"], result["failed_frames"]) == ({"panoptic": 2}, 0)


@pytest.mark.parametrize("wh", [(6, 4), (192, 128), (64, 96)])
def test_masks_of_another_size_are_fitted(
    wh: tuple[int, int], room_video: Path, room_depth: str, run: Run, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(12):
        Image.fromarray(np.ones((wh[1], wh[0]), np.uint8)).save(masks / f"{number}.png")
    options = ("--depth", room_depth, "--panoptic", f"precomputed:{masks}", "--fusion", "flow", "--quiet")
    assert run(room_video, *options) == 0
    assert open_result(tmp_path / "o" / "room").depth.shape == (12, 64, 96)


@pytest.fixture
def gappy(room_clip: Any, tmp_path: Path) -> Path:
    """Eleven images of the room, numbered 1 to 12 without 5."""
    folder = tmp_path / "gappy"
    folder.mkdir()
    for number, image in enumerate(room_clip.rgb, 1):
        if number != 5:
            Image.fromarray(image).save(folder / f"shot_{number:03d}.png")
    return folder


def test_a_sequence_with_gaps_goes_on_as_its_error_says(
    run: Run, gappy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = (*MOTION[:-1], "--export", "png16", "--log-json")
    assert run(gappy, *options) == 1
    error = next(line for line in capfd.readouterr().err.splitlines() if line.startswith("error:"))
    assert "no 5" in error
    assert run(gappy, *options, *error.split(": ")[-1].split()) == 0
    assert "images are missing in the sequence (no 5)" in capfd.readouterr().out
    result = open_result(tmp_path / "o" / "gappy")
    np.testing.assert_allclose(result.pts_seconds, np.arange(11) / 30)
    names = sorted(path.stem for path in (result.folder / "depth_png16").glob("*.png"))
    assert names == [f"shot_{number:03d}" for number in range(1, 13) if number != 5]
    assert (result.folder / "comparison.mp4").is_file()


def test_masks_of_a_sequence_with_gaps_are_not_shifted(run: Run, gappy: Path, tmp_path: Path, one_error: Error) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for image in gappy.iterdir():
        Image.fromarray(np.full((4, 6), int(image.stem[-3:]), np.uint8)).save(masks / image.name)
    options = (*MOTION, "--set", "video.allow_gaps=true")
    assert run(gappy, *options, "--panoptic", f"precomputed:{masks}") == 1
    assert "?numbered=false" in one_error()
    assert run(gappy, *options, "--panoptic", f"precomputed:{masks}?numbered=false") == 0
    stage = open_result(tmp_path / "o" / "gappy").stage("panoptic")
    assert stage is not None
    assert zarr.open_group(stage / "data.zarr", mode="r")["ids"][:, 0, 0].tolist() == [
        1,
        2,
        3,
        4,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
    ]


def test_a_number_far_away_among_masks_is_no_gap(
    room_video: Path, room_depth: str, run: Run, tmp_path: Path, one_error: Error
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in (0, 1, 2, 3, 10**18):
        Image.fromarray(np.ones((4, 6), np.uint8)).save(masks / f"{number}.png")
    assert run(room_video, "--depth", room_depth, "--panoptic", f"precomputed:{masks}", "--no-visualize") == 1
    assert "one map for each frame" in one_error()


def test_masks_of_another_video(room_video: Path, room_depth: str, run: Run, tmp_path: Path, one_error: Error) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(5):
        Image.fromarray(np.ones((4, 6), np.uint8)).save(masks / f"{number}.png")
    assert run(room_video, "--depth", room_depth, "--panoptic", f"precomputed:{masks}", "--no-visualize") == 1
    assert "one map for each frame" in one_error()


def save_graph(path: Path, shape: list[int], output: str = "out") -> str:
    """An ONNX network that copies its input."""
    from onnx import TensorProto, helper, save

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", output)]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], [output])], "graph", ends[:1], ends[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return f"onnx:{path}?representation=disparity&ambiguity=affine"


@pytest.mark.parametrize("shape", [[1, 5], [1, 4, 8, 8], [2, 3, 8, 8], [1, 3, 8, 8]])
def test_onnx_of_another_shape_is_one_line(
    shape: list[int], room_video: Path, run: Run, tmp_path: Path, one_error: Error
) -> None:
    spec = save_graph(tmp_path / "net.onnx", shape)
    assert run(room_video, "--depth", spec, "--no-visualize") == 1
    assert "net.onnx" in one_error()


def test_damaged_onnx_is_one_line(room_video: Path, run: Run, tmp_path: Path, one_error: Error) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x09\x12\x04junk" * 10)
    assert run(room_video, "--depth", f"onnx:{path}", "--no-visualize") == 1
    assert "damaged ONNX file" in one_error()


def checkpoint(folder: Path, architecture: str, weights: bytes) -> str:
    folder.mkdir()
    config = {"architectures": [architecture], "model_type": "dpt"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(weights)
    return f"hf:{folder}"


EMPTY = b"\x02\0\0\0\0\0\0\0{}"
WEIGHTS = {
    "empty file": b"",
    "header cut": b"\xff\0\0\0\0\0\0\0{",
    "header too long": b"\xff" * 8 + b"{}",
    "data cut": b'\x38\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}  ' + b"\0" * 10,
    "header too deep": (60_000).to_bytes(8, "little") + b"[" * 60_000,
    "no offsets": b'\x1a\0\0\0\0\0\0\0{"a":{"data_offsets":[0]}}',
}


def test_checkpoint_of_another_task_is_one_line(room_video: Path, run: Run, tmp_path: Path, one_error: Error) -> None:
    spec = checkpoint(tmp_path / "bert", "BertForMaskedLM", EMPTY)
    assert run(room_video, "--depth", spec, "--no-visualize") in (1, 2)
    assert "Bert" in one_error()


@pytest.mark.parametrize("kind", WEIGHTS)
def test_damaged_safetensors_are_one_line(
    kind: str, room_video: Path, run: Run, tmp_path: Path, one_error: Error
) -> None:
    spec = checkpoint(tmp_path / "dpt", "DPTForDepthEstimation", WEIGHTS[kind])
    assert run(room_video, "--depth", spec, "--no-visualize") == 1
    assert "damaged weights" in one_error()


def test_a_broken_file_among_good_ones_loses_nothing(
    room_video: Path, run: Run, tmp_path: Path, one_error: Error
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mp4", "c.mp4"):
        (folder / name).write_bytes(room_video.read_bytes())
    (folder / "b.mp4").write_bytes(room_video.read_bytes()[:900])
    assert run(folder, *MOTION, "--max-frames", "3") == 1
    assert "b.mp4" in one_error()
    assert [len(open_result(tmp_path / "o" / name)) for name in ("a", "c")] == [3, 3]


def test_source_changed_between_runs(run: Run, tmp_path: Path) -> None:
    video = encode(tmp_path / "clip.mov", noise(3), "png", "rgb24")
    assert run(video, *MOTION) == 0
    encode(video, noise(5), "png", "rgb24")
    assert run(video, *MOTION) == 0
    assert len(open_result(tmp_path / "o" / "clip")) == 5
