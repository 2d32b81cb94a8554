"""What a few frames say about a shot's range."""

from __future__ import annotations

import numpy as np
import pytest

from stf_depth.fusion.inputs import ShotInputs, StructureMaps
from stf_depth.fusion.prelook import look_ahead, offset_below
from stf_depth.types import Ambiguity


def test_the_unit_is_that_of_the_whole_picture(rng: np.random.Generator) -> None:
    """One column in eight says something else: evenly spaced picks could all lie there."""
    shape = (3, 192, 256)
    structure = rng.uniform(0.2, 1, shape).astype(np.float32)
    unit = np.where(np.arange(256) % 8 == 0, 5.0, 2.0).astype(np.float32)
    inputs = ShotInputs(
        np.zeros((*shape, 3), np.uint8),
        structure * unit,
        np.ones(shape, bool),
        Ambiguity.SCALE,
        structure=StructureMaps(structure, np.full(shape, 0.9, np.float32)),
    )
    assert look_ahead(inputs, use_structure=True).structure_unit == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize(("low", "high", "offset"), [(0.2, 1, 0), (-1, 1, -1.2), (9, 10, 8), (0.01, 1.01, -0.09)])
def test_infinity_is_at_zero_unless_the_values_are_nowhere_near_it(low: float, high: float, offset: float) -> None:
    values = np.linspace(low, high, 10_001).astype(np.float32)
    assert offset_below(values) == pytest.approx(offset, abs=0.02 * (high - low))
