from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stf_depth.perception.registry import create


def texture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (160, 200, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2.5)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (4.0, 0.0), (0.0, -3.0), (2.5, 1.5), (-6.0, 2.0)])
def test_dis_finds_a_translation(shift: tuple[float, float]) -> None:
    big = texture()
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
    moved = cv2.warpAffine(big, matrix, (200, 160), flags=cv2.INTER_CUBIC)
    crop = np.s_[20:-20, 20:-20]
    flow = create("flow", "dis").infer(big[crop][None], moved[crop][None])[0]
    inner = flow[15:-15, 15:-15]
    np.testing.assert_allclose(np.median(inner, (0, 1)), shift, atol=0.15)
    assert np.abs(inner - shift).mean() < 0.3


def test_dis_of_equal_frames_is_zero() -> None:
    rgb = texture()[None]
    assert not create("flow", "dis").infer(rgb, rgb).any()


def test_dis_does_not_depend_on_what_came_before() -> None:
    first, second, other = texture(0)[None], texture(1)[None], texture(2)[None]
    backend = create("flow", "dis")
    alone = backend.infer(first, second)
    backend.infer(other, first)
    assert backend.infer(first, second).tobytes() == alone.tobytes()
    together = backend.infer(np.concatenate([other, first]), np.concatenate([first, second]))
    assert together[1].tobytes() == alone[0].tobytes()


@pytest.mark.parametrize("speed", ["ultrafast", "fast", "medium"])
def test_dis_speed_is_part_of_its_identity(speed: str) -> None:
    assert create("flow", f"dis?speed={speed}").info.options == {"speed": speed}


@pytest.mark.parametrize("builder", ["raft_small", "raft_large"])
def test_raft_equals_torchvision(builder: str, state_file: Callable[[str], Path], rng: np.random.Generator) -> None:
    from torchvision.models import get_model

    model = get_model(builder, weights=None).eval()
    model.load_state_dict(torch.load(state_file(builder), weights_only=True))
    pair = rng.integers(0, 256, (2, 1, 128, 136, 3), dtype=np.uint8)
    planes = torch.from_numpy((pair.transpose(0, 1, 4, 2, 3) / 255 * 2 - 1).astype(np.float32))
    with torch.no_grad():
        expected = model(planes[0], planes[1], num_flow_updates=3)[-1].numpy().transpose(0, 2, 3, 1)
    name = builder.replace("_", "-")
    flow = create("flow", f"{name}?weights={state_file(builder)}&updates=3").infer(*pair)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(flow, expected, atol=1e-3 * np.abs(expected).max())


def test_raft_padding_lies_below_and_right(state_file: Callable[[str], Path], rng: np.random.Generator) -> None:
    spec = f"raft-small?weights={state_file('raft_small')}&updates=2"
    pair = rng.integers(0, 256, (2, 1, 130, 133, 3), dtype=np.uint8)
    padded = np.pad(pair, ((0, 0), (0, 0), (0, 6), (0, 3), (0, 0)), mode="edge")
    backend = create("flow", spec)
    np.testing.assert_array_equal(backend.infer(*pair), backend.infer(*padded)[:, :130, :133])
