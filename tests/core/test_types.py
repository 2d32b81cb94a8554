"""Values check themselves and carry their meaning."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from stf_depth.errors import AmbiguityError, ShapeError
from stf_depth.types import DepthMaps, FrameBatch, Intrinsics, Role, SegmentInfo, SegmentMaps, Shot


def test_import_is_light() -> None:
    heavy = "torch ray gradio transformers cv2 av rerun matplotlib pycolmap scipy zarr"
    code = f"import sys, stf_depth; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_depth_of_marks_unusable_values() -> None:
    values = np.array([[[1.0, np.nan, np.inf, -2.0, 0.0]]])
    z = DepthMaps.of(values, "z_depth", "metric")
    disparity = DepthMaps.of(values, "disparity", "affine")
    assert z.valid.tolist() == [[[True, False, False, False, False]]]
    assert disparity.valid.tolist() == [[[True, False, False, True, True]]]
    assert np.isfinite(z.depth).all()


def test_declared_values_without_a_surface_are_infinitely_far() -> None:
    values, valid = np.array([[[2.0, np.nan, np.inf, -2.0, 0.0, 3.0]]]), np.array([[[1, 1, 1, 1, 1, 0]]], bool)
    z = DepthMaps.of(values, "z_depth", "scale", valid=valid)
    assert z.valid.tolist() == [[[True, False, True, True, True, False]]]
    assert z.as_disparity().depth.tolist() == [[[0.5, 0, 0, 0, 0, 0]]]
    affine = DepthMaps.of(values, "disparity", "affine", valid=valid)
    assert affine.valid.tolist() == [[[True, False, False, True, True, False]]]
    assert affine.depth.tolist() == [[[2, 0, 0, -2, 0, 0]]]


def test_z_depth_inverts_unless_affine() -> None:
    z = DepthMaps.of(np.full((1, 2, 2), 4.0), "z_depth", "scale").as_disparity()
    assert z.representation == "disparity"
    np.testing.assert_allclose(z.depth, 0.25)
    with pytest.raises(AmbiguityError, match="affine"):
        DepthMaps.of(np.ones((1, 2, 2)), "z_depth", "affine").as_disparity()


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError):
        DepthMaps(np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 3), bool), "disparity", "affine")  # type: ignore[arg-type]
    with pytest.raises(ShapeError):
        FrameBatch(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(1), np.zeros(2, np.int64))
    with pytest.raises(ShapeError):
        Shot(3, 3)


def test_roles_follow_each_frames_table() -> None:
    ids = np.array([[[1, 2]], [[1, 2]]], np.int32)
    tables = (
        {1: SegmentInfo("sky", Role.SKY)},
        {1: SegmentInfo("car", Role.MOVER), 2: SegmentInfo("road", Role.GROUND)},
    )
    assert SegmentMaps(ids, tables).roles().tolist() == [[[Role.SKY, 0]], [[Role.MOVER, Role.GROUND]]]


def test_resizing_intrinsics_keeps_directions(rng: np.random.Generator) -> None:
    k = Intrinsics(500.0, 510.0, 319.5, 239.5, 640, 480)
    small = k.resized(160, 120)
    edge_px = np.array([-0.5, 639.5])
    edge_small_px = np.array([-0.5, 159.5])
    np.testing.assert_allclose((edge_px - k.cx_px) / k.fx_px, (edge_small_px - small.cx_px) / small.fx_px)
