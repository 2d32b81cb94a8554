"""Each factor of the confidence of triangulated depth by itself, and which frames may be fused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from stf_depth.config import GeometryConfig
from stf_depth.geometry.camera_solve import CameraSolve
from stf_depth.geometry.fuse import Estimate
from stf_depth.geometry.points import FramePoints
from stf_depth.geometry.smoothing import away_from_steps
from stf_depth.geometry.structure import _Shot
from stf_depth.geometry.triangulate import FlowMatcher, triangulate
from stf_depth.types import CameraPath, Intrinsics, MotionKind

CONFIG = GeometryConfig()
HW = (48, 64)
CAMERA = Intrinsics(60.0, 60.0, 31.5, 23.5, 64, 48)
INNER = (slice(16, 32), slice(20, 44))


class Given(FlowMatcher):
    """Matches as they are given: flow in pixels from the reference to the warped source, and its error."""

    def __init__(self, flow_px: tuple[float, float], error_px: float) -> None:
        super().__init__(CONFIG)
        self._flow_px, self._error_px = flow_px, error_px

    def match(self, reference: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG002
        flow = np.broadcast_to(np.array(self._flow_px, np.float32), (*HW, 2)).copy()
        return flow, np.full(HW, self._error_px, np.float32)


def sideways(metres: float) -> np.ndarray:
    motion = np.eye(4)
    motion[0, 3] = metres
    return motion


@pytest.fixture
def confidence(rng: np.random.Generator) -> Callable[..., np.ndarray]:
    """Confidence in the middle of a wall of disparity 1 whose prior is exact, seen from beside."""
    picture = rng.integers(0, 256, HW, dtype=np.uint8)

    def of(shift: float = 0.1, flow_px: tuple[float, float] = (0.0, 0.0), error_px: float = 0.0) -> np.ndarray:
        matcher, prior = Given(flow_px, error_px), np.ones(HW, np.float32)
        found = triangulate(picture, [(picture, sideways(shift))], prior, CAMERA, matcher, CONFIG)
        return found.confidence[INNER]

    return of


def test_confidence_falls_with_the_way_there_and_back(confidence: Callable[..., np.ndarray]) -> None:
    for error_px in (0.5, 1.0, 2.0):
        expected = math.exp(-((error_px / CONFIG.flow_error_px) ** 2))
        np.testing.assert_allclose(confidence(error_px=error_px) / confidence(), expected, rtol=1e-3)


def seen_from(parallax_px: float) -> float:
    return 1 - math.exp(-parallax_px / CONFIG.parallax_px)


def test_confidence_grows_with_the_parallax(confidence: Callable[..., np.ndarray]) -> None:
    for shift in (0.01, 0.05, 0.2):
        expected = seen_from(60 * shift) / seen_from(60 * 0.1)
        np.testing.assert_allclose(confidence(shift) / confidence(0.1), expected, rtol=1e-2)


def test_confidence_falls_with_what_no_depth_explains(confidence: Callable[..., np.ndarray]) -> None:
    """A match beside the epipolar line: the residual itself, a source that agrees less, and so less parallax."""
    for off_px in (0.25, 1.0):
        agrees = 1 / (1 + (off_px / CONFIG.cauchy_px) ** 2)
        expected = math.exp(-off_px) * agrees * seen_from(6 * math.sqrt(agrees)) / seen_from(6)
        np.testing.assert_allclose(confidence(flow_px=(0.0, off_px)) / confidence(), expected, rtol=1e-2)


def test_measurements_beside_a_step_weigh_less() -> None:
    disparity = np.ones(HW, np.float32)
    disparity[:, 32:] = 2
    weight = away_from_steps(disparity, CONFIG)
    beside = 1 / (1 + (math.log(2) / CONFIG.edge_spread) ** 2)
    near = slice(32 - CONFIG.edge_px, 32 + CONFIG.edge_px)
    np.testing.assert_allclose(weight[:, near], beside, rtol=1e-5)
    np.testing.assert_allclose(np.delete(weight, np.r_[near], 1), 1)


def shot_of(solved: list[bool], config: GeometryConfig, rng: np.random.Generator) -> _Shot:
    """Frames side by side before a wall."""
    poses = np.stack([np.linalg.inv(sideways(0.02 * frame)) for frame in range(len(solved))])
    flags = np.array(solved)
    path = CameraPath(MotionKind.PARALLAX, CAMERA, poses, flags, flags.astype(np.float32))
    rgb = rng.integers(0, 256, (len(solved), *HW, 3), dtype=np.uint8)
    points = FramePoints([()] * len(solved))
    return _Shot(rgb, CameraSolve(path, points, np.ones(len(solved), np.float32)), config)


@pytest.mark.parametrize(("solved", "fuses"), [((1, 1), True), ((0, 1), False), ((1, 0), False)])
def test_frames_without_a_solved_pose_are_not_fused(
    solved: tuple[int, int], fuses: bool, rng: np.random.Generator
) -> None:
    config = CONFIG.model_copy(update={"fusion_offsets": (1,)})
    shot = shot_of([bool(one) for one in solved], config, rng)
    window = {
        frame: Estimate(np.full(HW, disparity, np.float32), np.full(HW, 0.5, np.float32))
        for frame, disparity in enumerate((1.0, 1.02))
    }
    fused = shot.fused((0, window))
    assert (np.abs(fused.disparity[INNER] - 1).min() > 1e-3) == fuses


def test_what_lies_beside_a_step_is_continued_from_farther_away(rng: np.random.Generator) -> None:
    shot = shot_of([True, True], CONFIG, rng)
    disparity = np.ones(HW, np.float32)
    disparity[:, 32:] = 2
    weight = shot._weight(Estimate(disparity, np.ones(HW, np.float32)))
    assert weight[:, 31:33].max() < 0.5 * weight[:, :8].min()
    halved = shot._weight(Estimate(disparity, np.full(HW, 0.5, np.float32)))
    np.testing.assert_allclose(halved[:, :8], 0.25 * weight[:, :8], rtol=1e-3)
