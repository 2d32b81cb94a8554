"""Array formats: npz, zarr, npy, pkl, png16; each read back by a reader of its own."""

from __future__ import annotations

import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from stf_depth.errors import AmbiguityError, ConfigError, OutputError, ShapeError, SpecError
from stf_depth.export import FORMATS, export_result, parse_formats
from stf_depth.export import reading as reading_module
from stf_depth.export.png16 import INFINITE_CODE, METADATA_KEY, UNKNOWN_CODE, Mapping16, decode, encode
from stf_depth.result import DepthResult


@pytest.fixture(scope="module")
def result(tiny_result: Path) -> DepthResult:
    return DepthResult(tiny_result)


@pytest.fixture
def chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two frames a chunk, so that a clip of twelve frames is written in six parts."""
    monkeypatch.setattr(reading_module, "_CHUNK_BYTES", 2 * 96 * 64 * 4)


def test_npz_keeps_the_contract(result: DepthResult, tmp_path: Path, chunked: None) -> None:
    (path,) = export_result(result, "npz", tmp_path)["npz"]
    assert path == tmp_path / "depth.npz"
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive.files) == {"depth", "valid", "pts_seconds", "representation", "ambiguity"}
        assert archive["depth"].dtype == np.float32
        assert archive["valid"].dtype == np.bool_
        assert archive["pts_seconds"].dtype == np.float64
        np.testing.assert_array_equal(archive["depth"], result.depth[:])
        np.testing.assert_array_equal(archive["valid"], result.valid[:])
        np.testing.assert_array_equal(archive["pts_seconds"], result.pts_seconds)
        assert (str(archive["representation"]), str(archive["ambiguity"])) == ("disparity", "metric")
    assert zipfile.ZipFile(path).testzip() is None


def test_npz_is_the_same_file_twice(result: DepthResult, tmp_path: Path) -> None:
    first = export_result(result, "npz", tmp_path / "a")["npz"][0].read_bytes()
    assert export_result(result, "npz", tmp_path / "b")["npz"][0].read_bytes() == first


def test_compressed_npz_reads_the_same(result: DepthResult, tmp_path: Path) -> None:
    (path,) = export_result(result, "npz", tmp_path, compress=True)["npz"]
    np.testing.assert_array_equal(np.load(path, allow_pickle=False)["depth"], result.depth[:])
    assert path.stat().st_size < 4 * np.prod(result.depth.shape)


def test_zarr_and_npy_and_pickle_hold_the_same_depth(result: DepthResult, tmp_path: Path, chunked: None) -> None:
    files = export_result(result, ["zarr", "npy", "pkl"], tmp_path)
    depth = np.asarray(result.depth[:])
    group = zarr.open_group(files["zarr"][0], mode="r")
    np.testing.assert_array_equal(group["depth"][:], depth)
    assert dict(group.attrs)["unit"] == "1/m"
    np.testing.assert_array_equal(np.stack([np.load(path) for path in files["npy"][:-1]]), depth)
    content = pickle.loads(files["pkl"][0].read_bytes())
    np.testing.assert_array_equal(content["depth"], depth)
    np.testing.assert_array_equal(content["valid"], result.valid[:])
    assert content["depth"].flags.writeable
    assert content["ambiguity"] == "metric"
    assert set(content) >= {"pts_seconds", "representation", "unit", "shots", "cameras"}


def test_npy_marks_unknown_pixels(make_result: Callable[..., Path], tmp_path: Path) -> None:
    result = DepthResult(make_result(representation="z_depth"))
    group = zarr.open_group(result.folder / "depth.zarr", mode="r+")
    group["valid"][3, 10:20] = False
    files = export_result(result, "npy", tmp_path)["npy"]
    frame = np.load(files[3])
    assert np.isnan(frame[10:20]).all()
    assert json.loads(files[-1].read_text())["unit"] == "m"


@pytest.mark.parametrize("range_over", ["clip", "shot"])
def test_png16_decodes_to_the_depth_within_half_a_step(result: DepthResult, tmp_path: Path, range_over: str) -> None:
    files = export_result(result, "png16", tmp_path, range_over=range_over, full_range=True)["png16"]
    mappings = json.loads(files[-1].read_text())
    for index, path in enumerate(files[:-1]):
        meta = json.loads(Image.open(path).text[METADATA_KEY])
        assert meta == mappings[path.stem]
        code = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert code.dtype == np.uint16
        depth = np.asarray(result.depth[index])
        finite = depth > 0
        values = meta["offset"] + meta["step"] * code.astype(np.float64)
        assert np.abs(values - depth)[finite].max() <= meta["step"] * 0.51
        assert (code[~finite] == meta["infinite_code"]).all()


def test_png16_uses_one_mapping_for_the_clip_and_ignores_a_broken_pixel(
    make_result: Callable[..., Path], tmp_path: Path
) -> None:
    result = DepthResult(make_result())
    before = json.loads(export_result(result, "png16", tmp_path / "a")["png16"][-1].read_text())
    group = zarr.open_group(result.folder / "depth.zarr", mode="r+")
    group["depth"][5, 30, 40] = 1e6
    after = json.loads(export_result(result, "png16", tmp_path / "b")["png16"][-1].read_text())
    assert len({entry["step"] for entry in after.values()}) == 1
    assert after["000000"]["step"] <= 1.6 * before["000000"]["step"]


def test_png16_in_millimetres_needs_metric_depth(make_result: Callable[..., Path], tmp_path: Path) -> None:
    result = DepthResult(make_result(representation="z_depth"))
    path = export_result(result, "png16", tmp_path, millimetres=True)["png16"][0]
    code, depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.asarray(result.depth[0])
    valid = np.asarray(result.valid[0])
    assert np.abs(code[valid] - depth[valid] * 1000.0).max() <= 0.51
    assert (code[~valid] == UNKNOWN_CODE).all()
    with pytest.raises(AmbiguityError, match="millimetres"):
        export_result(DepthResult(make_result(ambiguity="affine")), "png16", tmp_path, millimetres=True)


def test_png16_in_millimetres_says_unknown_where_its_codes_end(
    make_result: Callable[..., Path], tmp_path: Path
) -> None:
    result = DepthResult(make_result(representation="disparity"))
    group = zarr.open_group(result.folder / "depth.zarr", mode="r+")
    z_m = np.array([60, 65.534, 65.5344, 65.536, 100, 300, np.inf])
    group["depth"][0, 0, : len(z_m)] = (1 / z_m).astype(np.float32)
    path = export_result(result, "png16", tmp_path, millimetres=True)["png16"][0]
    code = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert code[0, : len(z_m)].tolist() == [60000, 65534, 65534, 0, 0, 0, 0]
    mapping = Mapping16(0.0, 0.001)
    assert decode(code, mapping)[1][0, : len(z_m)].tolist() == [True, True, True, False, False, False, False]


@pytest.mark.parametrize(("name", "tolerance"), [("png16", 1e-4), ("exr", 0), ("npz", 0), ("npy", 0)])
def test_exports_come_back_as_precomputed_depth(
    make_result: Callable[..., Path], tmp_path: Path, name: str, tolerance: float
) -> None:
    from stf_depth.perception.depth.map_files import open_maps

    result = DepthResult(make_result(ambiguity="affine"))
    files = export_result(result, name, tmp_path, **({"full_range": True} if name == "png16" else {}))[name]
    maps = open_maps(files[0] if name == "npz" else files[0].parent)
    assert len(maps) == len(result)
    if name != "npy":
        assert (maps.stated["representation"], maps.stated["ambiguity"]) == ("disparity", "affine")
    np.testing.assert_allclose(maps.read(5)[0], result.depth[5], rtol=tolerance)


def test_precomputed_png_keeps_unknown_and_sky_apart(make_result: Callable[..., Path], tmp_path: Path) -> None:
    from stf_depth.perception.depth.map_files import open_maps

    result = DepthResult(make_result(ambiguity="scale"))
    group = zarr.open_group(result.folder / "depth.zarr", mode="r+")
    group["depth"][0, :10] = 0.0
    group["valid"][0, 20:30] = False
    files = export_result(result, "png16", tmp_path)["png16"]
    values = open_maps(files[0].parent).read(0)[0]
    assert (values[:10] == 0).all()
    assert np.isnan(values[20:30]).all()
    assert np.isfinite(values[30:]).all()


VALUES = arrays(np.float32, (4, 5), elements=st.floats(-1e6, 1e6, width=32))
FLAGS = arrays(np.bool_, (4, 5))


@settings(deadline=None, max_examples=200)
@given(depth=VALUES, valid=FLAGS, endless=FLAGS, bounds=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)))
@example(np.eye(4, 5, dtype=np.float32), np.ones((4, 5), bool), np.zeros((4, 5), bool), (0.0, sys.float_info.min))
def test_mapping_keeps_values_codes_and_order(
    depth: np.ndarray, valid: np.ndarray, endless: np.ndarray, bounds: tuple[float, float]
) -> None:
    low, high = sorted(bounds)
    mapping = Mapping16.over(low, high)
    code = encode(depth, valid, endless, mapping)
    values, known, far = decode(code, mapping)
    np.testing.assert_array_equal(known, valid)
    np.testing.assert_array_equal(far, valid & endless)
    used = valid & ~endless
    assert (code[used] > UNKNOWN_CODE).all()
    assert (code[used] < INFINITE_CODE).all()
    clipped = np.clip(depth[used].astype(np.float64), low, high)
    slack = 0.5 * mapping.step + 1e-6 * max(abs(low), abs(high), 1e-30)
    assert (np.abs(values[used] - clipped) <= slack).all()
    order = np.argsort(depth[used], kind="stable")
    assert (np.diff(code[used][order].astype(int)) >= 0).all()


def test_mapping_refuses_a_reversed_range() -> None:
    with pytest.raises(ShapeError, match="low <= high"):
        Mapping16.over(2.0, 1.0)


def test_unknown_names_get_the_closest_one(result: DepthResult, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Did you mean 'png16'"):
        parse_formats("png15")
    with pytest.raises(ConfigError, match="Did you mean 'full_range'"):
        export_result(result, "png16,npz", tmp_path, full_rang=True)
    with pytest.raises(ConfigError, match="range_over"):
        export_result(result, "png16", tmp_path, range_over="film")
    with pytest.raises(ConfigError, match="chunk_frames"):
        export_result(result, "zarr", tmp_path, chunk_frames=0)
    assert not list(tmp_path.iterdir())


def test_existing_targets_are_kept_skipped_or_replaced(result: DepthResult, tmp_path: Path) -> None:
    target = tmp_path / "depth_npy"
    target.mkdir()
    export_result(result, "npy", tmp_path)
    (target / "000000.npy").rename(target / "old.npy")
    with pytest.raises(OutputError, match="exists"):
        export_result(result, "npy", tmp_path, existing="error")
    assert target / "old.npy" in export_result(result, "npy", tmp_path, existing="skip")["npy"]
    export_result(result, "npy", tmp_path, existing="overwrite")
    assert not (target / "old.npy").exists()
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["depth_npy"]


def test_failure_in_the_middle_leaves_nothing(
    result: DepthResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stf_depth.export import npz

    chunks = reading_module.depth_chunks

    def broken(source: DepthResult):
        yield next(chunks(source))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(npz, "depth_chunks", broken)
    (tmp_path / "depth.npz").write_bytes(b"the old one")
    with pytest.raises(OutputError, match="No space left"):
        export_result(result, "npz", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["depth.npz"]
    assert (tmp_path / "depth.npz").read_bytes() == b"the old one"


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_is_described_and_loads(name: str) -> None:
    form = FORMATS[name]
    assert form.summary
    assert form.target
    assert set(form.fixed) <= set(form.options_type().model_fields)
    assert callable(form.exporter())
