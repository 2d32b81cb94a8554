"""Overlays, panels, slices and the image files of a working folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stf_depth.errors import OutputError, ShapeError
from stf_depth.types import Role, SegmentInfo
from stf_depth.visualization import (
    INVALID_RGB,
    DisplayRange,
    comparison_panel,
    segment_overlay,
    write_depth_image,
    write_rgb_image,
    write_segment_image,
    xt_slice,
)
from stf_depth.visualization.images import write_image
from stf_depth.visualization.panels import segment_colour

TABLE = {
    1: SegmentInfo("sky", Role.SKY),
    2: SegmentInfo("person", Role.MOVER, is_thing=True),
    7: SegmentInfo("person", Role.MOVER, is_thing=True),
}


def scene() -> tuple[np.ndarray, np.ndarray]:
    ids = np.zeros((90, 160), np.int32)
    ids[:30], ids[40:80, 20:60], ids[40:80, 100:140] = 1, 2, 7
    return np.full((180, 320, 3), 100, np.uint8), ids


def test_overlay_paints_each_segment_in_its_colour() -> None:
    rgb, ids = scene()
    out = segment_overlay(rgb, ids, TABLE, opacity=1.0, legend=False)
    assert out.shape == rgb.shape
    assert tuple(out[20, 160]) == segment_colour(1, TABLE[1])
    assert tuple(out[120, 80]) == segment_colour(2, TABLE[2])
    assert tuple(out[170, 4]) == (128, 128, 128)
    # The border between sky and the rest lies on the resized edge.
    assert out[60, 10].sum() < out[62, 10].sum()


def test_overlay_without_opacity_leaves_the_frame() -> None:
    rgb, ids = scene()
    out = segment_overlay(rgb, ids, TABLE, opacity=0.0, legend=False)
    assert (out[100, 90] == rgb[100, 90]).all()


def test_names_keep_their_hue_when_ids_are_renumbered() -> None:
    def hue(colour: tuple[int, int, int]) -> int:
        return int(np.asarray(Image.new("RGB", (1, 1), colour).convert("HSV"))[0, 0, 0])

    assert abs(hue(segment_colour(2, TABLE[2])) - hue(segment_colour(7, TABLE[7]))) <= 2
    assert segment_colour(2, TABLE[2]) != segment_colour(7, TABLE[7])
    assert segment_colour(1, TABLE[1]) == segment_colour(1, SegmentInfo("sky", Role.SKY))


def test_legend_names_what_is_there_and_only_that() -> None:
    rgb, ids = scene()
    with_legend = segment_overlay(rgb, ids, TABLE)
    assert (with_legend != segment_overlay(rgb, ids, TABLE, legend=False)).any()
    unused = {**TABLE, 9: SegmentInfo("a very long name of a class that is nowhere", Role.STATIC)}
    assert (segment_overlay(rgb, ids, unused) == with_legend).all()


def test_legend_fits_tiny_frames() -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    assert segment_overlay(rgb, np.ones((16, 16), np.int32), TABLE).shape == rgb.shape


def test_panel_holds_the_images_untouched() -> None:
    images = [np.full((91, 161, 3), value, np.uint8) for value in (10, 120, 250)]
    panel = comparison_panel([("RGB", images[0]), ("per frame", images[1]), ("fused", images[2])], gap_px=3)
    assert panel.shape[0] % 2 == 0
    assert panel.shape[1] % 2 == 0
    header = next(row for row in range(len(panel)) if (panel[row, :161] == 10).all())
    for position, image in enumerate(images):
        left = position * 164
        np.testing.assert_array_equal(panel[header : header + 91, left : left + 161], image)
    assert panel[:header].max() > 200  # the titles


def test_panels_of_different_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match="one size"):
        comparison_panel([("a", np.zeros((4, 4, 3), np.uint8)), ("b", np.zeros((4, 6, 3), np.uint8))])
    with pytest.raises(ShapeError, match="one size"):
        comparison_panel([])


def test_slice_is_one_row_over_time() -> None:
    frames = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(xt_slice(frames, 4), frames[:, 4])
    with pytest.raises(ShapeError, match="row"):
        xt_slice(frames, 6)


def test_image_files_are_named_by_frame_and_read_back(tmp_path: Path) -> None:
    rgb, ids = scene()
    depth = np.tile(np.linspace(0, 1, 320, dtype=np.float32), (180, 1))
    valid = np.ones(depth.shape, bool)
    valid[:50] = False
    paths = [
        write_rgb_image(tmp_path / "frames", 3, rgb),
        write_depth_image(tmp_path / "depth", 3, depth, valid, DisplayRange(0, 1), colormap="gray"),
        write_segment_image(tmp_path / "segment", 3, rgb, ids, TABLE),
    ]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "frames/000003.jpg",
        "depth/000003.png",
        "segment/000003.jpg",
    ]
    assert np.abs(np.asarray(Image.open(paths[0])).astype(int) - 100).max() <= 2
    coloured = np.asarray(Image.open(paths[1]))
    assert (coloured[:50] == INVALID_RGB).all()
    np.testing.assert_allclose(coloured[60, :, 0], depth[60] * 255, atol=1)
    assert sorted(path.name for path in (tmp_path / "depth").iterdir()) == ["000003.png"]


def test_red_stays_red(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert np.asarray(Image.open(write_image(tmp_path / "red.png", red)))[0, 0].tolist() == [255, 0, 0]


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"000000\.png"):
        write_image(tmp_path / "file" / "000000.png", np.zeros((4, 4), np.uint8))
