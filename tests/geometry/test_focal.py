"""The focal length that tracks tell, and the usual one where they tell none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stf_depth.config import GeometryConfig
from stf_depth.geometry.focal import likeliest_focal
from stf_depth.geometry.mapping import map_key_frames, mean_error_px
from stf_depth.geometry.matches import KeyFrameMatches
from stf_depth.geometry.solve import ASSUMED_FOCAL, solve_tracks
from stf_depth.geometry.tracks import Tracks

CONFIG = GeometryConfig()
WH = (320, 180)
POINTS = 260
USUAL_PX = CONFIG.first_focal * max(WH)


def filmed(focal_px: float, turns: np.ndarray, *, bend: float = 0.0) -> Tracks:
    """A camera that goes round a heap of points by ``turns``; ``bend``: a keystone that grows with them."""
    rng = np.random.default_rng(0)
    half = 1.2 * max(WH) / focal_px
    xyz = np.column_stack([rng.uniform(-half, half, POINTS), rng.uniform(-half / 2, half / 2, POINTS)])
    xyz = np.column_stack([xyz, rng.uniform(2, 4, POINTS)])
    centre, seen = (np.array(WH) - 1) / 2, []
    for turn in turns:
        rotation = Rotation.from_euler("y", turn).as_matrix()
        moved = (xyz - [0, 0, 3]) @ rotation.T + [0, 0.3 * turn, 3]
        xy = moved[:, :2] / moved[:, 2:]
        xy *= 1 + bend * turn * xy[:, :1]
        seen.append(focal_px * xy + centre)
    views = len(turns)
    xy_px = (np.concatenate(seen) + rng.normal(0, 0.15, (POINTS * views, 2))).astype(np.float32)
    offsets, ids = np.arange(views + 1) * POINTS, np.tile(np.arange(POINTS), views)
    return Tracks(offsets, ids, xy_px, np.arange(views), np.ones(views, np.float32), WH)


@pytest.mark.parametrize("share", [0.45, 0.9, 1.6])
def test_a_long_way_round_tells_the_focal_length(share: float) -> None:
    focal_px = share * WH[0]
    tracks = filmed(focal_px, np.linspace(-0.5, 0.5, 16))
    map_ = map_key_frames(KeyFrameMatches(tracks, CONFIG), USUAL_PX, focal_known=False)
    found, is_told = likeliest_focal(map_, USUAL_PX, CONFIG)
    assert is_told
    assert found.cameras[1].params[0] == pytest.approx(focal_px, rel=0.05)
    assert mean_error_px(found) < 0.3


def test_going_sideways_tells_none() -> None:
    rng = np.random.default_rng(1)
    xyz = np.column_stack([rng.uniform(-1, 1, POINTS), rng.uniform(-0.5, 0.5, POINTS), rng.uniform(2, 4, POINTS)])
    seen = [400 * (xyz[:, :2] - [0.05 * step, 0]) / xyz[:, 2:] + (np.array(WH) - 1) / 2 for step in range(10)]
    xy_px = (np.concatenate(seen) + rng.normal(0, 0.1, (POINTS * 10, 2))).astype(np.float32)
    offsets, ids = np.arange(11) * POINTS, np.tile(np.arange(POINTS), 10)
    tracks = Tracks(offsets, ids, xy_px, np.arange(10), np.ones(10, np.float32), WH)
    path = solve_tracks(tracks, CONFIG).solve.path
    assert path.is_reliable and path.reason == ASSUMED_FOCAL
    assert path.intrinsics.fx_px == USUAL_PX


@pytest.mark.parametrize("bend", [-0.5, 0.5])
def test_a_short_shot_is_not_misled_by_what_fits_an_odd_focal_length(bend: float) -> None:
    short = filmed(0.9 * WH[0], np.linspace(-0.06, 0.06, 4), bend=bend)
    map_ = map_key_frames(KeyFrameMatches(short, CONFIG), USUAL_PX, focal_known=False)
    credulous = CONFIG.with_values({"focal_views": 1000.0})
    misled, _ = likeliest_focal(map_, USUAL_PX, credulous)
    found, _ = likeliest_focal(map_, USUAL_PX, CONFIG)
    off = [abs(np.log(one.cameras[1].params[0] / USUAL_PX)) for one in (misled, found)]
    assert off[0] > 0.25 and off[1] < 0.1


def test_the_same_map_gives_the_same_focal_length() -> None:
    tracks = filmed(0.7 * WH[0], np.linspace(-0.3, 0.3, 10))
    map_ = map_key_frames(KeyFrameMatches(tracks, CONFIG), USUAL_PX, focal_known=False)
    first, second = (likeliest_focal(map_, USUAL_PX, CONFIG)[0].cameras[1].params[0] for _ in range(2))
    assert first == second
