"""Which pixels of two frames lie in the same segment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stf_depth.config import RunConfig
from stf_depth.fusion.inputs import ShotInputs, StructureMaps
from stf_depth.fusion.matching import NearCounterparts, SegmentMatches
from stf_depth.fusion.shot import fuse_shot
from stf_depth.fusion.trajectory import Place, Targets, pixel_grid
from stf_depth.synthetic import SyntheticClip, render_clip, scene
from stf_depth.types import Ambiguity, CameraPath, MotionKind


def ids(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32)[None, None]


def matched(mine: Tensor, theirs: Tensor, position: Tensor | None = None, known: Tensor | None = None) -> np.ndarray:
    """As all pixels tell, and as those of flow do: here they are the same."""
    position = pixel_grid(mine.float()) if position is None else position
    known = torch.ones_like(mine, dtype=torch.bool) if known is None else known
    segments = [mine, theirs].__getitem__
    found = SegmentMatches(segments, 2)(0, 1, position, known)
    near = NearCounterparts(segments, lambda _: [Place(1, position, known.float())], 2)
    size = (int(mine.shape[-2]), int(mine.shape[-1]))
    assert torch.equal(near(0, 1, position, Targets(size)) & known, found)
    some = torch.arange(0, mine.numel(), 2)
    assert torch.equal(
        near.widened(0, 1.0, 2.0, some)(1, Targets(size, some).of(position), known) > 1.5,
        near(0, 1, Targets(size, some).of(position), Targets(size, some)),
    )
    return found[0, 0].numpy()


def slowly(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """One pixel after the other."""
    result = np.zeros(mine.shape, bool)
    for at in np.ndindex(*mine.shape):
        a, b = mine == mine[at], theirs == theirs[at]
        result[at] = mine[at] != 0 and theirs[at] != 0 and 2 * (a & b).sum() > (a | b).sum()
    return result


def test_it_is_more_than_half_of_the_union(rng: np.random.Generator) -> None:
    mine = np.kron(rng.integers(0, 5, (4, 6)), np.ones((3, 3), int))
    theirs = np.where(rng.random(mine.shape) < 0.25, rng.integers(0, 5, mine.shape), mine)
    expected = slowly(mine, theirs)
    assert 0.2 < expected.mean() < 0.9
    np.testing.assert_array_equal(matched(ids(mine.tolist()), ids(theirs.tolist())), expected)
    renumbered = np.array([0, 900, 7, 3, 1])[theirs]
    np.testing.assert_array_equal(matched(ids(mine.tolist()), ids(renumbered.tolist())), expected)


def test_places_are_where_the_position_leads() -> None:
    mine, theirs = ids([[1, 1, 1, 2, 2, 2]]), ids([[5, 1, 1, 1, 2, 2]])
    moved = pixel_grid(mine.float()) + torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    inside = moved[:, :1] <= 5
    np.testing.assert_array_equal(matched(mine, theirs, moved, inside), [[True] * 5 + [False]])


@pytest.mark.parametrize("none", [0, 1])
def test_what_has_no_segment_matches_nothing(none: int) -> None:
    some, empty = ids([[4, 4], [4, 4]]), ids([[0, 0], [0, 0]])
    pair = (empty, some) if none == 0 else (some, empty)
    assert not matched(*pair).any()
    assert not matched(empty, empty).any()


def test_counterparts_are_told_at_the_pixels_of_the_flow() -> None:
    """Flow of a quarter of the size, one pixel a frame: four of the segments'."""
    columns = torch.arange(48).expand(1, 1, 16, 48)
    mine, theirs = (torch.where(columns < border, 3, 8).int() for border in (20, 24))
    low = pixel_grid(torch.zeros(1, 1, 4, 12))
    moved = low + torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    near = NearCounterparts([mine, theirs].__getitem__, lambda _: [Place(1, moved, torch.ones(1, 1, 4, 12))], 2)
    targets = Targets((16, 48))
    same = near(0, 1, targets.moved(moved), targets)
    assert bool(same.all())
    assert not bool(near(0, 1, pixel_grid(mine.float()), targets)[..., 20:24].any())


@pytest.fixture(scope="module")
def room() -> SyntheticClip:
    return render_clip(scene("room"), frames=10, wh=(160, 96))


@pytest.mark.parametrize("stage", ["fine", "pose"])
def test_inside_a_segment_coarser_noise_is_averaged(room: SyntheticClip, rng: np.random.Generator, stage: str) -> None:
    """Noise above the tolerance between surfaces; of pixels of the low band, or finer than these."""
    noise = np.kron(rng.normal(0, 0.08, (10, 48, 80)), np.ones((1, 2, 2)))
    inputs = ShotInputs(
        room.rgb,
        (np.exp(noise) / room.depth).astype(np.float32),
        np.isfinite(room.depth),
        Ambiguity.SCALE,
        segments=room.labels,
        camera=CameraPath(
            MotionKind.PARALLAX, room.intrinsics, room.world_from_cam, np.ones(10, bool), np.ones(10, np.float32)
        ),
        structure=StructureMaps((1 / room.depth).astype(np.float32), np.full(room.depth.shape, 0.3, np.float32)),
    )

    def error(inputs: ShotInputs, **fusion: Any) -> float:
        settings = {"snap_boundaries": False, "planes": False, "structure": False, "tolerance_jitter": 0.0, **fusion}
        config = RunConfig().with_values({f"fusion.{name}": value for name, value in settings.items()})
        disparity = np.concatenate([chunk.disparity for chunk in fuse_shot(inputs, config)])
        return float(np.median(np.abs(np.log(disparity * room.depth))))

    name = f"{stage}_tolerance_inside"
    band = {"fine_filter": stage == "fine", "low_band_long_side_px": 40 if stage == "fine" else 160}
    narrow, wide = (error(inputs, **{name: tolerance}, **band) for tolerance in (0.04, 0.2))
    assert wide < 0.9 * narrow
    # One class may stand for many surfaces: nothing is wider in it.
    classes = replace(inputs, segments_are_classes=True)
    narrow, wide = (error(classes, **{name: tolerance}, **band) for tolerance in (0.04, 0.2))
    assert wide == narrow
