"""Labels moved along flow, and votes of the frames around."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stf_depth.config import FusionConfig
from stf_depth.fusion.semantic import Labels, vote_role
from stf_depth.fusion.trajectory import around
from stf_depth.types import Role

FULL, LOW = (24, 40), (12, 20)
FLOWS_PX = [(2, 1), (1, 0), (1, -1), (3, 2)]  # on the low grid, from each frame to the next


def steps(frame: int) -> tuple[Tensor, Tensor]:
    there = torch.tensor([*FLOWS_PX[frame], 1.0]).view(1, 3, 1, 1).expand(1, 3, *LOW)
    return there, there * torch.tensor([-1.0, -1.0, 1.0]).view(1, 3, 1, 1)


class Labelled:
    """Five frames of which only one has segments, each pixel one of its own."""

    def __init__(self, labelled: int) -> None:
        self._labelled = labelled
        self.ids = torch.arange(1, 1 + FULL[0] * FULL[1], dtype=torch.int32).view(1, 1, *FULL)

    def __len__(self) -> int:
        return 5

    def segments(self, frame: int, _size: tuple[int, int]) -> Tensor:
        return self.ids if frame == self._labelled else torch.zeros_like(self.ids)


@pytest.mark.parametrize(("labelled", "moved_px"), [(0, (-3, -1)), (1, (-1, 0)), (3, (1, -1)), (4, (4, 1))])
def test_labels_of_a_neighbour_are_moved_by_the_flow(labelled: int, moved_px: tuple[int, int]) -> None:
    reader: Any = Labelled(labelled)
    found = Labels(reader, lambda frame, reach: around(steps, frame, 5, reach), FULL, FusionConfig()).segments(2)
    dx, dy = 2 * moved_px[0], 2 * moved_px[1]  # at full size
    rows, columns = np.mgrid[8:16, 10:30]
    np.testing.assert_array_equal(found[0, 0].numpy()[8:16, 10:30], reader.ids[0, 0].numpy()[rows + dy, columns + dx])


def frames_of(roles: Mapping[int, Role]) -> Any:
    def frame(number: int) -> Any:
        return SimpleNamespace(roles=torch.full((1, 1, *LOW), int(roles[number])), valid=torch.ones(1, 1, *LOW))

    return frame


def still(_frame: int) -> tuple[Tensor, Tensor]:
    step = torch.cat([torch.zeros(1, 2, *LOW), torch.ones(1, 1, *LOW)], 1)
    return step, step


def test_a_frame_without_labels_has_no_vote() -> None:
    missing = {0: Role.SKY, 1: Role.UNKNOWN, 2: Role.STATIC}
    places = [around(still, frame, 3, 2) for frame in range(3)]
    votes = [vote_role(frames_of(missing), frame, places[frame], Role.SKY) for frame in range(3)]
    for vote in votes:
        torch.testing.assert_close(vote, torch.full_like(vote, 0.5))
    alone = vote_role(frames_of({**missing, 2: Role.UNKNOWN}), 1, places[1], Role.SKY)
    assert bool((alone == 1).all())
