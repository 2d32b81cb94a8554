"""What the causal filter takes from other frames, step by step, against exact formulas."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from stf_depth.config import CausalConfig
from stf_depth.fusion.causal import CausalFuser
from stf_depth.fusion.trajectory import pixel_grid
from stf_depth.perception.base import BackendInfo, Licence
from stf_depth.types import Ambiguity, Float32Array, Uint8Array

HW = (48, 64)
FOCAL_PX = 0.9 * 64


class Still:
    """Flow of a picture that does not move."""

    info = BackendInfo("still", "flow", Licence("none", True))

    def infer(self, source: Uint8Array, _target: Uint8Array) -> Float32Array:
        return np.zeros((*source.shape[:3], 2), np.float32)


def fuser(ambiguity: Ambiguity = Ambiguity.SCALE, **options: object) -> Any:
    return CausalFuser(CausalConfig().with_values({"leak": 0.0, **options}), ambiguity, flow=Still())


def motion_of(turn_degrees: float, shift: tuple[float, float, float]) -> np.ndarray:
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("y", turn_degrees, degrees=True).as_matrix()
    motion[:3, 3] = shift
    return motion


def seen(disparity: Tensor, motion: np.ndarray) -> tuple[Tensor, Tensor]:
    """Depth ratio (R r + t d)_z, (1, 1, h, w), and position in pixels, (1, 2, h, w), of each pixel after a motion."""
    grid = pixel_grid(disparity)[0].double()
    centre = torch.tensor([(HW[1] - 1) / 2, (HW[0] - 1) / 2]).view(2, 1, 1).double()
    rays = torch.cat([(grid - centre) / FOCAL_PX, torch.ones(1, *HW, dtype=torch.float64)])
    turned = torch.einsum("ij,jyx->iyx", torch.from_numpy(motion[:3, :3]), rays)
    points = turned + disparity[0].double() * torch.from_numpy(motion[:3, 3]).view(3, 1, 1)
    position = points[:2] / points[2:] * FOCAL_PX + centre
    return points[2:].float()[None], position.float()[None]


@pytest.fixture
def disparity(rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.uniform(0.5, 1.5, (1, 1, *HW)).astype(np.float32))


def test_what_a_later_frame_shows_is_carried_back_exactly(disparity: Tensor) -> None:
    motion = motion_of(4.0, (0.05, 0.0, -0.2))
    ratio, position = seen(disparity, motion)
    frame, later = SimpleNamespace(fused=disparity), SimpleNamespace(zero=None)
    back = fuser()._seen_from(frame, later, disparity / ratio, motion, position)
    torch.testing.assert_close(back, disparity, rtol=1e-3, atol=1e-4)


def test_the_past_is_carried_on_exactly(disparity: Tensor) -> None:
    step = motion_of(4.0, (0.05, 0.0, -0.2))
    ratio, position = seen(disparity, np.linalg.inv(step))
    now = fuser()._seen_from_here(disparity / ratio, 0.0, step, position)
    torch.testing.assert_close(now, disparity, rtol=1e-3, atol=1e-4)


def test_what_moves_by_itself_is_not_carried_along_the_camera(disparity: Tensor) -> None:
    step, elsewhere = motion_of(0.0, (0.0, 0.0, -0.2)), pixel_grid(disparity) + 40
    frame, later = SimpleNamespace(fused=disparity), SimpleNamespace(zero=None)
    for kept in (
        fuser()._seen_from(frame, later, disparity, step, elsewhere),
        fuser()._seen_from_here(disparity, 0.0, step, elsewhere),
    ):
        torch.testing.assert_close(kept, disparity, rtol=1e-2, atol=0)


def test_steps_to_later_frames_are_chained_in_order(disparity: Tensor) -> None:
    """A turn and then a step aside is not a step aside and then a turn."""
    turn, aside = motion_of(10.0, (0, 0, 0)), motion_of(0.0, (0.6, 0, 0))
    ones, flow = torch.ones_like(disparity), torch.cat([torch.zeros(1, 2, *HW), torch.ones(1, 1, *HW)], 1)
    # Only the second of them says something; all flow is still, and the camera is believed nevertheless.
    later = [
        SimpleNamespace(step=turn, corrected=disparity, valid=0 * ones, to_next=flow, zero=None),
        SimpleNamespace(step=aside, corrected=disparity, valid=ones, to_next=None, zero=None),
    ]
    frame = SimpleNamespace(fused=disparity, weight=1e-9 * ones, valid=ones, own=0 * ones, to_next=flow)
    filter_ = fuser(static_tolerance_px=1e6)
    filter_._held = deque(later)
    value, _ = filter_._with_later(frame)
    ratio, _ = seen(disparity, aside @ turn)
    other, _ = seen(disparity, turn @ aside)
    torch.testing.assert_close(value, disparity * ratio, rtol=1e-3, atol=1e-4)
    assert float((ratio - other).abs().max()) > 0.05


def pushed(filter_: Any, *frames: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    for rgb, disparity, valid in frames:
        (ready,) = filter_.push(rgb, disparity.astype(np.float32), valid)
    return np.asarray(ready.disparity)


def test_another_colour_is_another_surface(rng: np.random.Generator) -> None:
    rgb = rng.integers(60, 120, (*HW, 3), dtype=np.uint8)
    changed, left = rgb.copy(), (slice(None), slice(0, 24))
    changed[left] += 100
    wall, everywhere = np.ones(HW), np.ones(HW, bool)
    other = wall.copy()
    other[left] = 1.1
    fused = pushed(fuser(egomotion=False), (rgb, wall, everywhere), (changed, other, everywhere))
    np.testing.assert_allclose(fused, other, rtol=1e-4)
    averaged = pushed(fuser(egomotion=False), (rgb, wall, everywhere), (rgb, other, everywhere))
    assert averaged[left].mean() < 1.09


def test_holes_of_the_past_say_nothing(rng: np.random.Generator) -> None:
    """Half of the past and more is unknown; the rest tells the scale for all."""
    rgb = rng.integers(0, 256, (*HW, 3), dtype=np.uint8)
    wall, known = np.ones(HW), np.ones(HW, bool)
    known[:, :40] = False
    fused = pushed(fuser(egomotion=False), (rgb, wall, known), (rgb, 1.2 * wall, np.ones(HW, bool)))
    np.testing.assert_allclose(fused, 1, rtol=1e-3)
