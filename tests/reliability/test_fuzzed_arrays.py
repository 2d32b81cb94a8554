"""Functions on arrays, with whatever shapes and values hypothesis finds: an error of ours, or a right answer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stf_depth.cache.sequential import SequentialWriter
from stf_depth.cache.store import StageStore
from stf_depth.errors import StfDepthError
from stf_depth.export.png16 import Mapping16, decode, encode
from stf_depth.pipeline.fuse import _in_representation, _resized
from stf_depth.pipeline.views import as_disparity, merge_roles
from stf_depth.types import DepthMaps, Representation
from stf_depth.video.resize import resize_area, working_wh

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz.py"
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
MAPS = hnp.arrays(np.float32, SHAPES, elements=FLOATS)


@given(MAPS, st.sampled_from(["disparity", "z_depth"]), st.sampled_from(["affine", "scale", "metric"]))
def test_depth_maps_of_any_values_are_finite_where_valid(depth: np.ndarray, kind: str, ambiguity: str) -> None:
    try:
        maps = DepthMaps.of(depth, kind, ambiguity)
    except StfDepthError:
        return
    assert np.isfinite(maps.depth).all()
    assert maps.valid.shape == depth.shape
    if (kind, ambiguity) != ("z_depth", "affine"):
        disparity = maps.as_disparity()
        assert np.isfinite(disparity.depth[disparity.valid]).all()


@given(MAPS)
def test_representations_of_any_values_divide_without_warning(depth: np.ndarray) -> None:
    with np.errstate(all="raise", under="ignore", over="ignore"):
        values = _in_representation(np.nan_to_num(depth, posinf=0, neginf=0), Representation.Z_DEPTH)
    assert not np.isnan(values).any()


@given(MAPS, st.integers(1, 20), st.integers(1, 20))
def test_resizing_keeps_the_number_of_frames(depth: np.ndarray, width: int, height: int) -> None:
    finite = np.nan_to_num(depth, posinf=1, neginf=-1)
    assert _resized(finite, (width, height), 1).shape == (len(depth), height, width)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))), st.integers(2, 64))
def test_working_size_has_the_long_side_and_the_range(image: np.ndarray, long_side: int) -> None:
    size = working_wh((image.shape[1], image.shape[0]), long_side)
    small = resize_area(image, size)
    assert small.shape == (size[1], size[0], 3)
    assert max(size) <= max(long_side, *image.shape[:2])
    assert small.min() >= image.min() and small.max() <= image.max()


@given(MAPS, st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_sixteen_bits_are_off_by_half_a_step_at_most(depth: np.ndarray, low: float, spread: float) -> None:
    mapping = Mapping16.over(low, low + spread)
    valid = np.isfinite(depth)
    code = encode(depth, valid, np.zeros_like(valid), mapping)
    values, known, _ = decode(code, mapping)
    assert np.array_equal(known, valid)
    inside = valid & (depth >= low) & (depth <= low + spread)
    error = np.abs(values.astype(np.float64) - depth)[inside]
    bound = mapping.step / 2 + 1e-6 * (abs(low) + spread) + 1e-9
    assert (error <= bound).all()


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)), elements=st.integers(0, 5))
)
def test_roles_complete_each_other(roles: np.ndarray) -> None:
    merged = merge_roles(roles, roles[:, ::-1])
    assert merged is not None
    first = np.asarray(merged[0])
    assert first.shape == roles[0].shape
    assert np.array_equal(first[roles[0] != 0], roles[0][roles[0] != 0])


@given(MAPS, st.sampled_from(list(Representation)))
def test_views_as_disparity_never_warn(depth: np.ndarray, representation: Representation) -> None:
    values = np.nan_to_num(depth, posinf=0, neginf=0)
    seen = np.asarray(as_disparity(values, representation)[0])
    assert seen.shape == depth[0].shape and not np.isnan(seen).any()


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 23), st.integers(1, 3), st.integers(1, 3)), elements=FLOATS),
    st.lists(st.integers(1, 9), max_size=8),
    st.integers(1, 6),
)
def test_frames_come_back_from_a_store_bit_by_bit(depth: np.ndarray, lengths: list[int], chunk: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = StageStore(Path(folder) / "s", "key", chunk_frames=chunk)
        writer = SequentialWriter(store, len(depth))
        while writer.position < len(depth):
            length = lengths.pop() if lengths else 4
            writer.append({"depth": depth[writer.position : writer.position + length]})
        store.finish(len(depth))
        again = StageStore(Path(folder) / "s", "key", chunk_frames=chunk).frames("depth")
        assert np.asarray(again[:]).tobytes() == depth.tobytes()


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    """The fuzzing script as a module."""
    spec = importlib.util.spec_from_file_location("fuzz_targets", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REGRESSIONS: dict[str, list[bytes]] = {
    "specs": [b"precomputed:~nobody-of-this-name", b"onnx:" + b"x" * 5000, b"hf:a\x00b", b"onnx:\xff?a=b"],
    "names": ["1²2.png\0²\0٣.png".encode(), b"..\0.\0CON\0a/b", b"\xff\xfe.png"],
    "roles": [b"[" * 100_000, b'{"1":{"role":"sky","name":[]}}', b"\xff"],
    "exr": [b"\xff\xfe", b"-\xc0\xfb", b"", b"z" * 4096],
    "weights": [
        b'\x3a\0\0\0\0\0\0\0{"a":{"data_offsets":[0,"x"]},"b":{"data_offsets":[0,9]}}',
        b'\x1e\0\0\0\0\0\0\0{"a":{"data_offsets":[0,1e999]}}',
        b'{"architectures":5}',
        b'{"architectures":[[1]]}',
        b'{"weight_map":[1]}',
        b'{"weight_map":{"a":1}}',
        b'{"weight_map":{"a":"' + b"x" * 3000 + b'"}}',
        b"\xff" * 8,
        (9).to_bytes(8, "little") + b"[" * 9,
        b'\x1a\0\0\0\0\0\0\0{"a":{"data_offsets":[0]}}',
    ],
    "manifest": [b"[]", b"null", b"[" * 100_000, b'{"input":1,"config":1,"models":1,"shots":1}'],
    "store": [
        b"[]",
        b"{}",
        b"null",
        b'{"files":{},"extra":1}',
        b'{"files":[1],"extra":1}',
        b'{"frames":"9"}',
        b"[" * 9999,
    ],
    "pickle": [b"", b".", b"\x80\x04\x95", b"cnumpy\nndarray\n(tR.", b"cos\nsystem\n(S'true'\ntR."],
    "npz": [
        b"",
        b"PK\x05\x06",
        b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3, 4), }".ljust(118),
        b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<U999999999', 'fortran_order': False, 'shape': (), }".ljust(118),
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }".ljust(118)
        + b"xxxx",
        b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9, 9, 9), }".ljust(118),
        b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (2**99, 9, 9), }".ljust(118),
    ],
    "png16": [b"scale\0abc", b"unknown_code\0x", b"", b"offset\0nan", b"infinite_code\x001e9"],
    "config": [
        b"fusion.mode",
        b"=",
        b"video=1",
        b"video..x=1",
        b"video.output_wh=[1]",
        b"video.cut_threshold=nan",
        b"[" * 9999,
    ],
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_what_fuzzing_found_stays_fixed(name: str, fuzzer: ModuleType) -> None:
    fuzzer.replay(name, [*fuzzer.SEEDS[name], *REGRESSIONS[name]])


def test_every_target_has_regressions(fuzzer: ModuleType) -> None:
    assert set(fuzzer.TARGETS) == set(REGRESSIONS)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is not None, reason="atheris is installed")
def test_without_atheris_the_fuzzer_says_how_to_get_it() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "specs"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "pip install atheris" in done.stderr
