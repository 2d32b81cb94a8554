"""The second eye: direction, amount, order of surfaces, holes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from stf_depth.errors import ConfigError
from stf_depth.export import export_result
from stf_depth.export.stereo import _filled_nearness, anaglyph, shifted_view
from stf_depth.result import DepthResult
from stf_depth.synthetic import SyntheticClip


def box_scene() -> tuple[np.ndarray, np.ndarray]:
    """Green background with a ramp, and a near red box in columns 30 to 49."""
    rgb = np.zeros((20, 80, 3), np.uint8)
    rgb[..., 1] = 100 + np.arange(80)
    nearness = np.zeros((20, 80), np.float32)
    rgb[5:15, 30:50], nearness[5:15, 30:50] = (255, 0, 0), 1.0
    return rgb, nearness


def test_near_box_moves_over_the_background_and_the_gap_is_background() -> None:
    rgb, nearness = box_scene()
    view, holes = shifted_view(rgb, nearness, 6 * nearness)
    red = view[10, :, 0] > 200
    assert np.flatnonzero(red)[[0, -1]].tolist() == [36, 55]
    assert holes[10].nonzero()[0].tolist() == list(range(30, 36))
    assert (view[6:14, 31:35, 0] < 30).all()  # filled from the background, not from the box
    np.testing.assert_array_equal(view[2], rgb[2])


def test_far_surface_never_covers_a_near_one() -> None:
    rgb, nearness = box_scene()
    view, _ = shifted_view(rgb, nearness, 10 * (1 - nearness))
    assert (view[10, 30:50, 0] > 200).all()


def test_zero_shift_changes_nothing() -> None:
    rgb, nearness = box_scene()
    view, holes = shifted_view(rgb, nearness, np.zeros_like(nearness))
    np.testing.assert_array_equal(view, rgb)
    assert not holes.any()


def test_half_pixels_interpolate() -> None:
    rgb = np.repeat(np.arange(0, 160, 2, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(8, axis=0)
    flat = np.full(rgb.shape[:2], 0.5, np.float32)
    view, _ = shifted_view(rgb, flat, np.full(rgb.shape[:2], 0.5, np.float32))
    np.testing.assert_allclose(view[4, 2:-2, 0], rgb[4, 2:-2, 0] - 1.0, atol=1)


def test_stretched_slope_has_no_cracks() -> None:
    nearness = np.tile(np.linspace(0, 1, 200, dtype=np.float32), (4, 1))
    rgb = np.full((4, 200, 3), 200, np.uint8)
    _, holes = shifted_view(rgb, nearness, 60 * nearness)
    assert not holes[:, 1:].any()


def test_unknown_pixels_move_with_the_farther_neighbour() -> None:
    nearness = np.array([[0.9, 0.0, 0.0, 0.2, 0.0]], np.float32)
    valid = np.array([[True, False, False, True, False]])
    np.testing.assert_allclose(_filled_nearness(nearness, valid), [[0.9, 0.2, 0.2, 0.2, 0.2]])


def test_anaglyph_separates_the_eyes() -> None:
    white, black = np.full((2, 2, 3), 255, np.uint8), np.zeros((2, 2, 3), np.uint8)
    left, right = anaglyph(white, black)[0, 0].astype(int), anaglyph(black, white)[0, 0].astype(int)
    assert left[0] > 250
    assert left[1:].max() < 10
    assert right[0] < 10
    assert right[1:].min() > 250


@pytest.mark.parametrize(("options", "size"), [({}, (192, 64)), ({"half_width": True}, (96, 64))])
def test_side_by_side_video_shows_crossed_parallax(
    make_result: Callable[..., Path],
    room_clip: SyntheticClip,
    tmp_path: Path,
    options: dict[str, bool],
    size: tuple[int, int],
) -> None:
    flat = replace(room_clip, depth=np.full_like(room_clip.depth, 3.0))  # shown in the middle of the range
    result = DepthResult(make_result(flat))
    (path,) = export_result(result, "sbs", tmp_path, max_parallax_percent=8, convergence=0.0, **options)["sbs"]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == size
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(stream)]
    assert len(frames) == len(result)
    half = size[0] // 2
    left, right = frames[5][:, :half].astype(float), frames[5][:, half:].astype(float)
    scores = [np.abs(np.roll(right, shift, axis=1) - left)[:, 10:-10].mean() for shift in range(-7, 8)]
    parallax = 0.08 * 0.5 * half  # the left eye's picture lies further right
    assert int(np.argmin(scores)) - 7 == round(parallax)


def test_anaglyph_video_has_the_size_of_the_source(tiny_result: Path, tmp_path: Path) -> None:
    (path,) = export_result(DepthResult(tiny_result), "anaglyph", tmp_path)["anaglyph"]
    with av.open(str(path)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (96, 64)
    with pytest.raises(ConfigError, match="max_parallax_percent"):
        export_result(DepthResult(tiny_result), "anaglyph", tmp_path, max_parallax_percent=50)
