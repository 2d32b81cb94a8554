"""One range per shot: steady, robust, bounded."""

from __future__ import annotations

import numpy as np
import pytest

from stf_depth.errors import ConfigError, ShapeError
from stf_depth.types import Ambiguity, Representation, Shot
from stf_depth.visualization import COLORMAPS, INVALID_RGB, DisplayRange, RangeSketch, colorize, shot_range
from stf_depth.visualization.colormaps import lookup_table
from stf_depth.visualization.range import closeness, infinite

DISPARITY, Z = Representation.DISPARITY, Representation.Z_DEPTH
AFFINE, SCALE, METRIC = Ambiguity.AFFINE, Ambiguity.SCALE, Ambiguity.METRIC


def ramp_frames(count: int = 20, height: int = 60, width: int = 80) -> np.ndarray:
    ramp = np.linspace(1, 2, width, dtype=np.float32)
    return np.broadcast_to(ramp, (count, height, width)).copy()


def ones(depth: np.ndarray) -> np.ndarray:
    return np.ones(depth.shape, bool)


def test_range_equals_percentiles_of_all_pixels() -> None:
    depth = np.random.default_rng(0).gamma(2.0, 1.0, (12, 50, 70)).astype(np.float32)
    sketch = RangeSketch(DISPARITY, AFFINE)
    sketch.push(depth, ones(depth))
    found = sketch.result((5, 95))
    far, near = np.percentile(depth, (5, 95))
    assert found.far == pytest.approx(far, abs=0.02)
    assert found.near == pytest.approx(near, abs=0.03)


def test_one_bright_particle_does_not_rescale_the_shot() -> None:
    clean, dirty = ramp_frames(), ramp_frames()
    dirty[7, 10:20, 10:20] = 1e6
    ranges = [shot_range(depth, ones(depth), Shot(0, 20), DISPARITY, AFFINE) for depth in (clean, dirty)]
    assert ranges[1].near == pytest.approx(ranges[0].near, abs=0.01)
    untouched = np.s_[7, 30:, :]
    difference = ranges[1].nearness(dirty[untouched]) - ranges[0].nearness(clean[untouched])
    assert np.abs(difference).max() < 0.01


def test_same_depth_has_the_same_colour_in_every_frame() -> None:
    depth = ramp_frames()
    depth[3:6, 30:, 40:] = 1.9
    display = shot_range(depth, ones(depth), Shot(0, 20), DISPARITY, AFFINE)
    rgb = colorize(display.nearness(depth), ones(depth), "turbo")
    assert (rgb[:, :20] == rgb[0, :20]).all()


def test_invalid_and_infinite_pixels_stay_out_of_the_range() -> None:
    depth = ramp_frames()
    valid = ones(depth)
    valid[:, :20] = False
    depth[:, :20] = 1e9
    depth[:, 20:30] = 0.0
    display = shot_range(depth, valid, Shot(0, 20), DISPARITY, SCALE)
    assert 1.0 <= display.far < 1.02
    assert 1.98 < display.near <= 2.0


def test_z_depth_and_its_disparity_give_the_same_picture() -> None:
    disparity = ramp_frames()
    z = 1 / disparity
    by_disparity = shot_range(disparity, ones(z), Shot(0, 20), DISPARITY, SCALE).nearness(disparity)
    by_z = shot_range(z, ones(z), Shot(0, 20), Z, SCALE).nearness(z)
    np.testing.assert_allclose(by_z, by_disparity, atol=1e-4)


def test_affine_z_depth_shows_near_pixels_as_near() -> None:
    z = ramp_frames(2)
    display = shot_range(z, ones(z), Shot(0, 2), Z, AFFINE)
    nearness = display.nearness(z[0])
    assert nearness[0, 0] > 0.99
    assert nearness[0, -1] < 0.01


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_constant_depth_is_shown_in_the_middle(value: float) -> None:
    depth = np.full((3, 8, 8), value, np.float32)
    display = shot_range(depth, ones(depth), Shot(0, 3), DISPARITY, AFFINE)
    assert np.isfinite(display.nearness(depth)).all()
    assert 0.3 < display.nearness(depth).mean() < 0.7


def test_all_invalid_shot_has_a_range_and_one_colour() -> None:
    depth = np.full((3, 8, 8), np.nan, np.float32)
    valid = np.zeros(depth.shape, bool)
    display = shot_range(depth, valid, Shot(0, 3), DISPARITY, AFFINE)
    assert (colorize(display.nearness(depth), valid) == INVALID_RGB).all()


def test_sketch_memory_is_bounded_and_keeps_late_frames() -> None:
    sketch = RangeSketch(DISPARITY, AFFINE)
    for index in range(9000):
        frame = np.full((1, 2, 2), float(index), np.float32)
        sketch.push(frame, np.ones((1, 2, 2), bool))
    assert len(sketch._sketches) < 2048
    found = sketch.result((5, 95))
    assert found.far == pytest.approx(450, rel=0.05)
    assert found.near == pytest.approx(8550, rel=0.05)


def test_infinite_needs_a_known_zero() -> None:
    depth = np.array([[-1.0, 0.0, 1.0, np.inf]], np.float32)
    assert infinite(depth, DISPARITY, SCALE).tolist() == [[True, True, False, False]]
    assert not infinite(depth, DISPARITY, AFFINE).any()
    assert infinite(depth, Z, METRIC).tolist() == [[True, True, False, True]]
    assert infinite(depth, Z, AFFINE).tolist() == [[False, False, False, True]]
    assert closeness(np.array([np.inf, 0.0, 2.0], np.float32), Z).tolist() == [0.0, 0.0, 0.5]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="far < near"):
        DisplayRange(1.0, 1.0)
    with pytest.raises(ShapeError, match="stacks"):
        RangeSketch(DISPARITY, AFFINE).push(np.zeros((4, 4), np.float32), np.zeros((4, 4), bool))
    with pytest.raises(ConfigError, match="inferno"):
        lookup_table("infernal")
    with pytest.raises(ShapeError, match="match"):
        colorize(np.zeros((2, 2), np.float32), np.zeros((2, 3), bool))


@pytest.mark.parametrize("name", COLORMAPS)
def test_tables_end_where_matplotlib_ends(name: str) -> None:
    import matplotlib

    cmap = matplotlib.colormaps[name]
    table = lookup_table(name)
    for step, position in ((0, 0.0), (1023, 1.0)):
        np.testing.assert_allclose(table[step], np.array(cmap(position))[:3] * 255, atol=0.51)
    assert INVALID_RGB not in {tuple(row) for row in table.tolist()}


def test_no_pyplot_import() -> None:
    import subprocess
    import sys

    code = (
        "import sys, stf_depth.visualization as v; assert 'matplotlib' not in sys.modules;"
        "v.colormaps.lookup_table('turbo'); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
