"""Depth networks against the stock forward passes and the published formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stf_depth.perception.frames import aspect_size
from stf_depth.perception.registry import create
from stf_depth.types import Ambiguity, Representation

Checkpoint = Callable[[str], Path]


def stock(name: str, folder: Path) -> Any:
    import transformers

    return getattr(transformers, name).from_pretrained(folder).eval()


def planes(rgb: np.ndarray, mean: Any = 0.5, std: Any = 0.5) -> torch.Tensor:
    return torch.from_numpy(((rgb / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize("name", ["dpt-large", "dpt-hybrid"])
def test_dpt_equals_the_stock_forward_on_square_input(
    name: str, checkpoint: Checkpoint, rng: np.random.Generator
) -> None:
    rgb = rng.integers(0, 256, (2, 384, 384, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = stock("DPTForDepthEstimation", checkpoint(name))(planes(rgb)).predicted_depth.numpy()
    depth = create("depth", f"hf:{checkpoint(name)}").infer(rgb).depth
    assert expected.std() > 0
    np.testing.assert_allclose(depth, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("name", ["dpt-large", "dpt-hybrid"])
def test_dpt_keeps_the_aspect_ratio(name: str, checkpoint: Checkpoint, rng: np.random.Generator) -> None:
    maps = create("depth", f"hf:{checkpoint(name)}").infer(rng.integers(0, 256, (1, 360, 640, 3), dtype=np.uint8))
    assert maps.depth.shape == (1, 384, 672)


def test_dpt_reads_the_patch_grid_row_by_row(checkpoint: Checkpoint, rng: np.random.Generator) -> None:
    # A wrong grid (672/16 x 384/16 instead of 384/16 x 672/16) would move the answer elsewhere.
    backend = create("depth", f"hf:{checkpoint('dpt-large')}")
    rgb = rng.integers(0, 256, (1, 384, 672, 3), dtype=np.uint8)
    changed = rgb.copy()
    changed[:, 320:, 592:] = 255
    difference = np.abs(backend.infer(changed).depth - backend.infer(rgb).depth)[0]
    assert difference[320:, 592:].mean() > 5 * difference[:192, :336].mean()


def test_depth_anything_equals_the_stock_forward(checkpoint: Checkpoint, rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (1, 518, 700, 3), dtype=np.uint8)
    model = stock("DepthAnythingForDepthEstimation", checkpoint("depth-anything"))
    with torch.no_grad():
        expected = model(planes(rgb, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))).predicted_depth.numpy()
    depth = create("depth", f"hf:{checkpoint('depth-anything')}").infer(rgb).depth
    assert expected.std() > 0
    np.testing.assert_allclose(depth, expected, atol=1e-4 * expected.max())


def test_depth_anything_metric_is_metres_and_relative_is_not(checkpoint: Checkpoint) -> None:
    metric = create("depth", f"hf:{checkpoint('depth-anything-metric')}").info
    relative = create("depth", f"hf:{checkpoint('depth-anything')}").info
    assert (metric.representation, metric.ambiguity) == (Representation.Z_DEPTH, Ambiguity.METRIC)
    assert (relative.representation, relative.ambiguity) == (Representation.DISPARITY, Ambiguity.AFFINE)


def test_zoedepth_matches_the_published_processing(checkpoint: Checkpoint, frames: np.ndarray) -> None:
    import cv2
    from transformers import ZoeDepthImageProcessor

    folder = checkpoint("zoedepth")
    processor = ZoeDepthImageProcessor(ensure_multiple_of=32, size={"height": 384, "width": 512})
    rgb = np.stack([cv2.resize(frame, (384, 288)) for frame in frames[:1]])
    with torch.no_grad():
        inputs = processor(images=list(rgb), return_tensors="pt")
        output = stock("ZoeDepthForDepthEstimation", folder)(**inputs)
    expected = processor.post_process_depth_estimation(output, source_sizes=[rgb.shape[1:3]])[0]["predicted_depth"]
    found = create("depth", f"hf:{folder}").infer(rgb).depth[0]
    found = cv2.resize(found, (384, 288), interpolation=cv2.INTER_LINEAR)
    # The published resize aligns pixel centres at the corners, ours pixel edges.
    assert np.abs(found - expected.numpy()).max() < 0.35 * float(expected.max() - expected.min()) + 1e-5


def test_zoedepth_cuts_exactly_its_border() -> None:
    from stf_depth.perception.depth.zoedepth import _without_border

    ramp = np.broadcast_to(np.arange(100, dtype=np.float32), (80, 100)).copy()
    inner = _without_border(ramp, 0.125, 0.1)
    assert inner.shape == (60, 80)
    np.testing.assert_allclose(inner[0], np.arange(10, 90), atol=1e-3)


def test_depth_pro_matches_the_published_postprocessing(checkpoint: Checkpoint, rng: np.random.Generator) -> None:
    from transformers import DepthProImageProcessor

    folder = checkpoint("depth-pro")
    rgb = rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        output = stock("DepthProForDepthEstimation", folder)(planes(rgb))
    output.field_of_view = torch.full_like(output.field_of_view, 50.0)
    expected = DepthProImageProcessor().post_process_depth_estimation(
        output, target_sizes=[output.predicted_depth.shape[1:]]
    )[0]
    backend = create("depth", f"hf:{folder}")
    with torch.no_grad():
        backend._network.model.fov_model.register_forward_hook(lambda *_: torch.tensor([50.0]))
    maps, focal_px = backend.infer_with_focal(rgb)
    inverse = 1 / expected["predicted_depth"].numpy()
    np.testing.assert_allclose(1 / maps.depth[0], inverse, atol=1e-4 * inverse.max())
    # The published focal length is in pixels of the output, ours in pixels of the frame.
    scale = 64 / output.predicted_depth.shape[-1]
    np.testing.assert_allclose(focal_px, [float(expected["focal_length"]) * scale], rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "short", "multiple", "longest", "expected"),
    [
        ((360, 640), 384, 32, 10**6, (384, 672)),
        ((376, 1408), 384, 32, 10**6, (384, 1440)),
        ((640, 360), 518, 14, 10**6, (924, 518)),
        ((1, 1), 384, 32, 10**6, (384, 384)),
        ((10, 2000), 384, 32, 10**6, (384, 1536)),
        ((480, 640), 800, 32, 1333, (800, 1056)),
        ((360, 1280), 800, 32, 1333, (384, 1344)),
    ],
)
def test_input_size(size: Any, short: int, multiple: int, longest: int, expected: Any) -> None:
    assert aspect_size(*size, short, multiple, longest) == expected
