"""A result is opened once, decoded chunk by chunk, and travels without what was decoded."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from stf_depth.cache.store import ChunkedFrames
from stf_depth.result import DepthResult


@pytest.fixture
def result(make_result: Callable[..., Path]) -> DepthResult:
    return DepthResult(make_result())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the chunks that are decoded."""
    numbers: list[int] = []
    decode = ChunkedFrames._decoded

    def counted(self: ChunkedFrames, chunk: int) -> np.ndarray:
        numbers.append(chunk)
        return decode(self, chunk)

    monkeypatch.setattr(ChunkedFrames, "_decoded", counted)
    return numbers


@pytest.mark.parametrize("name", ["depth", "valid", "confidence"])
def test_every_chunk_is_decoded_once(name: str, result: DepthResult, decoded: list[int]) -> None:
    step = getattr(result, name).chunks[0]
    shown = [np.asarray(getattr(result, name)[index]) for index in range(len(result))]
    assert decoded == list(range(-(-len(result) // step)))
    np.testing.assert_array_equal(shown, getattr(DepthResult(result.folder), name)[:])


def test_it_travels_closed(result: DepthResult) -> None:
    before = len(pickle.dumps(result))
    first = np.asarray(result.depth[0])
    sent = pickle.dumps(result)
    assert len(sent) == before
    again = pickle.loads(sent)
    assert again == result
    np.testing.assert_array_equal(again.depth[0], first)


def test_threads_may_share_it(result: DepthResult) -> None:
    frames = ChunkedFrames(result._group["depth"], len(result), result.folder, kept_chunks=1)
    expected = np.asarray(result.depth[:])
    wanted = np.random.default_rng(0).integers(0, len(result), 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: frames[index], wanted))
    np.testing.assert_array_equal(found, expected[wanted])


@pytest.mark.parametrize(
    "index",
    [
        ...,
        [0, 11, 0],
        np.array([3, -1]),
        np.arange(12) % 5 == 0,
        [],
        slice(2, 2),
        -1,
        np.int64(3),
        (..., 5),
        (...,),
        (),
        (2, ..., 5),
        (slice(1, 9, 3), 4),
        ([1, 2], slice(3, 9), 5),
        (7, [1, 2], [3, 4]),
    ],
    ids=str,
)
def test_it_is_indexed_as_an_array_is(index: object, result: DepthResult) -> None:
    np.testing.assert_array_equal(result.depth[index], np.asarray(result.depth[:])[index])


@pytest.mark.parametrize("index", [12, -13, [12], None, "depth", 1.5, ([0, 1], [2, 3]), [[0], [1]]], ids=str)
def test_what_picks_no_frames_is_an_index_error(index: object, result: DepthResult) -> None:
    with pytest.raises(IndexError):
        result.depth[index]
