"""infer_result.pkl: plain to every reader, and read without trusting it."""

from __future__ import annotations

import contextlib
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from stf_depth.cache.inference_pickle import read_inference_pickle, write_inference_pickle
from stf_depth.errors import UntrustedPickleError


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("true",)


@pytest.fixture
def written(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, np.ndarray]:
    depth = rng.random((5, 3, 4)).astype(np.float32)
    path = tmp_path / "infer_result.pkl"
    header = {"format": "x", "pts_seconds": np.arange(5.0), "nested": {"a": iter([1, None, True, "é"]), "b": {}}}
    write_inference_pickle(path, header, {"depth": (frame for frame in depth), "valid": iter([depth[0] > 0.5])})
    return path, depth


def test_plain_pickle_reads_it(written: tuple[Path, np.ndarray]) -> None:
    path, depth = written
    with path.open("rb") as file:
        content = pickle.load(file)
    np.testing.assert_array_equal(np.stack(content["depth"]), depth)
    assert content["nested"] == {"a": [1, None, True, "é"], "b": {}}


def test_restricted_reader_agrees(written: tuple[Path, np.ndarray]) -> None:
    path, depth = written
    content = read_inference_pickle(path)
    np.testing.assert_array_equal(np.stack(content["depth"]), depth)
    np.testing.assert_array_equal(content["pts_seconds"], np.arange(5.0))
    assert content["valid"][0].dtype == bool


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_any_callable_is_refused(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps({"depth": [_Evil()]}, protocol))
    with pytest.raises(UntrustedPickleError, match="system"):
        read_inference_pickle(path)


@pytest.mark.parametrize("value", [[1, 2], {1: 2}, np.zeros(3)])
def test_other_content_is_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(UntrustedPickleError, match="not an inference cache"):
        read_inference_pickle(path)


def test_object_arrays_cannot_smuggle_code(tmp_path: Path) -> None:
    path = tmp_path / "object.pkl"
    path.write_bytes(pickle.dumps({"depth": np.array([_Evil()], dtype=object)}))
    with pytest.raises(UntrustedPickleError):
        read_inference_pickle(path)


@pytest.mark.parametrize("keep", [0, 1, 17, -1])
def test_truncated_file_is_a_clear_error(written: tuple[Path, np.ndarray], keep: int) -> None:
    path, _ = written
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UntrustedPickleError, match="Delete the file"):
        read_inference_pickle(path)


BOMBS = {
    "memo": b"\x80\x03}r\xff\xff\xff\x0f.",
    "scalar": b"\x80\x03cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x0a\0\0\0V400000000\x85R\x85R.",
    "array": b"\x80\x03cnumpy\nndarray\nJ\0\0\0\x10\x85R.",
    "objects": b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nJ\0\0\0\x10\x85X\1\0\0\0OtR.",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_few_bytes_do_not_become_much_memory(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(BOMBS[kind])
    tracemalloc.start()
    try:
        with contextlib.suppress(UntrustedPickleError):
            read_inference_pickle(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("é")])
def test_scalars_come_back(value: np.generic, tmp_path: Path) -> None:
    path = tmp_path / "scalar.pkl"
    path.write_bytes(pickle.dumps({"value": value}))
    assert read_inference_pickle(path)["value"] == value
