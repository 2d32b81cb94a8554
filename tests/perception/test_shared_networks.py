"""The small published networks on recorded frames, against sensor depth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from stf_depth.perception.registry import create
from stf_depth.types import Ambiguity, Representation, Role

pytestmark = pytest.mark.shared


def load(folder: Path, step: int) -> tuple[np.ndarray, np.ndarray]:
    colour = sorted((folder / "color").glob("*.jpg"))[::step]
    depth = sorted((folder / "depth").glob("*.png"))[::step]
    rgb = np.stack([cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in colour])
    return rgb, np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in depth]) / 1000


def first_frame(shared_dir: Path, video: str) -> np.ndarray:
    capture = cv2.VideoCapture(str(shared_dir / "data" / "videos" / f"{video}.mp4"))
    is_read, frame = capture.read()
    capture.release()
    assert is_read
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)[None]


def abs_rel(z_m: np.ndarray, true_m: np.ndarray) -> float:
    """Mean of |s z - t| / t with one scale s for the whole clip."""
    size = true_m.shape[2], true_m.shape[1]
    z = np.stack([cv2.resize(frame, size) for frame in z_m])
    known = (true_m > 0) & (z > 0)
    scale = np.median(true_m[known] / z[known])
    return float(np.mean(np.abs(scale * z[known] - true_m[known]) / true_m[known]))


@pytest.mark.parametrize(
    ("model", "bound", "factor"),
    [("fastdepth_nyu_224", 0.15, (0.85, 1.2)), ("meter_xxs_nyu_256x192", 0.17, (0.5, 1.2))],
)
def test_indoor_depth_is_metres(model: str, bound: float, factor: tuple[float, float], shared_dir: Path) -> None:
    rgb, true_m = load(shared_dir / "data" / "redkitchen", 10)
    backend = create("depth", f"onnx:{shared_dir / 'models' / model}.onnx", commercial=True)
    maps = backend.infer(rgb)
    assert (maps.representation, maps.ambiguity) == (Representation.Z_DEPTH, Ambiguity.METRIC)
    assert backend.info.licence.name == "MIT"
    assert abs_rel(maps.depth, true_m) < bound
    # The learned scale holds within what another camera's field of view changes.
    assert factor[0] < np.median(true_m[true_m > 0]) / np.median(maps.depth[maps.valid]) < factor[1]


@pytest.mark.parametrize("model", ["fastdepth_nyu_224", "meter_xxs_nyu_256x192"])
@pytest.mark.parametrize("wrong", ["normalize=imagenet", "channels=bgr", "normalize=none"])
def test_the_known_preprocessing_is_the_right_one(model: str, wrong: str, shared_dir: Path) -> None:
    rgb, true_m = load(shared_dir / "data" / "redkitchen", 25)
    spec = f"onnx:{shared_dir / 'models' / model}.onnx"
    assert abs_rel(create("depth", spec).infer(rgb).depth, true_m) < abs_rel(
        create("depth", f"{spec}?{wrong}").infer(rgb).depth, true_m
    )


def test_driving_depth_is_metres(shared_dir: Path) -> None:
    rgb = first_frame(shared_dir, "kitti360_seq_0000")
    maps = create("depth", f"onnx:{shared_dir / 'models' / 'meter_xxs_kitti_640x192.onnx'}").infer(rgb)
    assert maps.depth.shape == (1, 48, 160)
    lower, upper = np.median(maps.depth[0, -6:, 60:100]), np.median(maps.depth[0, 18:24, 70:90])
    # The road in front of a car is some metres away, the end of the road some tens of metres.
    assert 3 < lower < 15 < upper < 90


def test_semantic_labels_are_plausible(shared_dir: Path) -> None:
    backend = create("semantic", f"onnx:{shared_dir / 'models' / 'deeplabv3_mnv2_ade20k_512.onnx'}")
    rgb, _ = load(shared_dir / "data" / "redkitchen", 25)
    maps = backend.infer(rgb)
    assert maps.ids.shape == (4, 512, 512)
    found = {maps.tables[0][number].name for number in np.unique(maps.ids) if number}
    assert {"floor", "table"} & found and "sea" not in found
    runner = backend.infer(first_frame(shared_dir, "lady-running"))
    assert 0.1 < (runner.roles() == Role.MOVER).mean() < 0.6
    assert "person" in {runner.tables[0][number].name for number in np.unique(runner.ids) if number}
    coaster = backend.infer(first_frame(shared_dir, "davis_rollercoaster")).roles()[0]
    assert (coaster[:128] == Role.SKY).mean() > 0.9


def test_sensor_depth_is_read_as_recorded(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "redkitchen" / "depth"
    backend = create("depth", f"precomputed:{folder}?representation=z_depth&ambiguity=metric&unit_m=0.001")
    backend.check_length(100)
    maps = backend.read([0, 99])
    expected = cv2.imread(str(folder / "000099.png"), cv2.IMREAD_UNCHANGED) / 1000
    np.testing.assert_allclose(maps.depth[1], expected, atol=1e-6)
    np.testing.assert_array_equal(maps.valid[1], expected > 0)


def test_regions_are_steady_from_frame_to_frame(shared_dir: Path) -> None:
    rgb, _ = load(shared_dir / "data" / "redkitchen", 1)
    ids = create("panoptic", "regions").infer(rgb[:6]).ids
    counts = ids.max(axis=(1, 2)).astype(float)
    assert counts.min() > 20 and counts.max() < 300
    assert np.abs(np.diff(counts)).max() / counts.mean() < 0.25
