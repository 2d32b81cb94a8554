"""OpenEXR files read back by OpenEXR itself and, where it can, by OpenCV's description of the channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import zarr

from stf_depth.errors import AmbiguityError, ConfigError, InputNotFoundError
from stf_depth.evaluation.predictions import open_prediction
from stf_depth.export import export_result
from stf_depth.perception.depth.map_files import open_maps
from stf_depth.result import DepthResult
from stf_depth.synthetic import SyntheticClip


def read(path: Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    with OpenEXR.File(str(path), separate_channels=True) as file:
        return dict(file.header()), {name: channel.pixels.copy() for name, channel in file.channels().items()}


def test_z_is_the_depth_to_the_last_bit_and_says_what_it_is(tiny_result: Path, tmp_path: Path) -> None:
    result = DepthResult(tiny_result)
    files = export_result(result, "exr", tmp_path)["exr"]
    assert len(files) == len(result)
    for index in (0, 7):
        header, channels = read(files[index])
        assert channels["Z"].dtype == np.float32
        np.testing.assert_array_equal(channels["Z"], result.depth[index])
        assert header["ambiguity"] == "metric"
        assert header["unit"] == "1/m"
        assert header["stfDepthZ"] == "disparity, larger is nearer"
        assert header["stfDepthPtsSeconds"] == pytest.approx(result.pts_seconds[index])


def test_view_is_visible_and_steady(tiny_result: Path, tmp_path: Path) -> None:
    files = export_result(DepthResult(tiny_result), "exr", tmp_path)["exr"]
    pictures = [read(path)[1] for path in files]
    for channels in pictures:
        assert {channels[name].dtype for name in "RGBA"} == {np.dtype(np.float16)}
        assert channels["R"].max() <= 1
        assert channels["A"].min() == 1
    assert pictures[0]["R"].max() > 0.7
    z = np.stack([channels["Z"] for channels in pictures]).ravel()
    grey = np.stack([channels["R"] for channels in pictures]).ravel().astype(np.float32)
    order = np.argsort(z)
    assert (np.diff(grey[order]) > -2e-3).all()  # one mapping for all frames: brightness follows Z


def test_distance_codes_infinity_and_unknown(
    make_result: Callable[..., Path], room_clip: SyntheticClip, tmp_path: Path
) -> None:
    depth = room_clip.depth.copy()
    depth[:, :6] = np.inf
    result = DepthResult(make_result(replace(room_clip, depth=depth)))
    header, channels = read(export_result(result, "exr", tmp_path / "z", quantity="z")["exr"][0])
    assert np.isposinf(channels["Z"][:6]).all()
    np.testing.assert_allclose(channels["Z"][6:], depth[0, 6:], rtol=1e-6)
    assert header["unit"] == "m"
    unknown = DepthResult(make_result(replace(room_clip, depth=depth), representation="z_depth"))
    channels = read(export_result(unknown, "exr", tmp_path / "unknown")["exr"][0])[1]
    assert np.isnan(channels["Z"][:6]).all()
    assert (channels["A"][:6] == 0).all()
    assert (channels["A"][6:] == 1).all()


@pytest.mark.parametrize(("unknown", "view"), [("nan", True), ("nan", False), ("zero", True), ("zero", False)])
def test_unknown_zero_and_infinite_come_back_apart(
    make_result: Callable[..., Path], tmp_path: Path, unknown: str, view: bool
) -> None:
    result = DepthResult(make_result(ambiguity="scale"))
    group = zarr.open_group(result.folder / "depth.zarr", mode="r+")
    group["depth"][0, :10] = 0.0
    group["depth"][0, 20:30] = 0.0
    group["valid"][0, 20:30] = False
    files = export_result(result, "exr", tmp_path, unknown=unknown, view=view)["exr"]
    z = read(files[0])[1]["Z"]
    assert (z[:10] == 0).all()
    assert (np.isnan(z[20:30]) if unknown == "nan" else z[20:30] == 0).all()
    values = open_maps(files[0].parent).read(0)[0]
    assert (values[:10] == 0).all()
    assert np.isnan(values[20:30]).all()
    np.testing.assert_array_equal(values[30:], result.depth[0][30:])
    prediction = open_prediction(files[0].parent).read([0])[0]
    assert (prediction[:10] == 0).all()
    assert np.isnan(prediction[20:30]).all()


def test_distance_of_affine_disparity_is_refused(make_result: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(AmbiguityError, match="unknown offset"):
        export_result(DepthResult(make_result(ambiguity="affine")), "exr", tmp_path, quantity="z")


def test_ids_are_whole_numbers_with_names(
    tiny_result: Path, make_result: Callable[..., Path], room_clip: SyntheticClip, tmp_path: Path
) -> None:
    header, channels = read(export_result(DepthResult(tiny_result), "exr", tmp_path, ids=True)["exr"][3])
    assert channels["id"].dtype == np.uint32
    np.testing.assert_array_equal(channels["id"], room_clip.labels[3])
    assert "floor" in str(header["stfDepthIds"])
    folder = make_result()
    (folder.parent / "working" / "panoptic" / "complete.json").unlink()
    with pytest.raises(InputNotFoundError, match="segments"):
        export_result(DepthResult(folder), "exr", tmp_path, ids=True)


def test_only_z_when_no_view_is_wanted(tiny_result: Path, tmp_path: Path) -> None:
    channels = read(export_result(DepthResult(tiny_result), "exr", tmp_path, view=False)["exr"][0])[1]
    assert set(channels) == {"Z", "A"}
    with pytest.raises(ConfigError, match="colormap"):
        export_result(DepthResult(tiny_result), "exr", tmp_path, colourmap="gray")


@pytest.mark.parametrize("name", ["exr", "png16"])
def test_infinite_distance_is_scored_as_infinitely_far(
    make_result: Callable[..., Path], room_clip: SyntheticClip, tmp_path: Path, name: str
) -> None:
    result = DepthResult(make_result(representation="z_depth"))
    group = zarr.open_group(result.folder / "depth.zarr", mode="r+")
    group["depth"][0, :10] = np.inf
    group["valid"][0, :10] = True
    group["valid"][0, 20:30] = False
    folder = export_result(result, name, tmp_path)[name][0].parent
    disparity = open_prediction(folder).read([0])[0]
    assert (disparity[:10] == 0).all()
    assert np.isnan(disparity[20:30]).all()
    np.testing.assert_allclose(disparity[30:], 1 / room_clip.depth[0, 30:], rtol=1e-3)
