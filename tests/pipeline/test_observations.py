"""What fusion is told about the depth that it gets."""

from __future__ import annotations

import numpy as np
import pytest

from stf_depth.pipeline.observations import Observations
from stf_depth.types import Ambiguity, Representation, Shot


@pytest.mark.parametrize(("guess_confidence", "sees_sky", "trust"), [(None, True, 1.0), (0.05, False, 0.05)])
def test_only_a_networks_depth_tells_sky(guess_confidence: float | None, sees_sky: bool, trust: float) -> None:
    maps = np.ones((3, 4, 6), np.float32)
    seen = Observations(
        rgb=np.zeros((3, 4, 6, 3), np.uint8),
        depth=maps,
        valid=maps > 0,
        representation=Representation.DISPARITY,
        ambiguity=Ambiguity.SCALE,
        roles=None,
        segments=None,
        segments_are_classes=False,
        cameras=[],
        structure=None,
        guess_confidence=guess_confidence,
    )
    inputs = seen.of_shot(0, Shot(0, 3))
    assert (inputs.sees_sky, inputs.trust) == (sees_sky, trust)
