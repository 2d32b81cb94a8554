"""A stage store gives back what was written, and nothing that was written halfway."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from stf_depth.cache.sequential import SequentialWriter
from stf_depth.cache.store import DamagedChunkError, StageStore, forget_chunk
from stf_depth.errors import CacheError, ShapeError


@pytest.fixture
def frames(rng: np.random.Generator) -> np.ndarray:
    values = rng.random((10, 5, 6)).astype(np.float32)
    values[9] = 0  # Zarr leaves chunks of zeros out unless told otherwise
    return values


def fill(folder: Path, frames: np.ndarray, key: str = "key") -> StageStore:
    store = StageStore(folder, key, chunk_frames=4)
    for chunk in range(3):
        part = frames[4 * chunk : 4 * chunk + 4]
        store.write(chunk, {"depth": part, "count": np.arange(len(part))}, extra={"chunk": chunk})
    store.finish(len(frames), {"unit": "m"})
    return store


def chunk_file(folder: Path, chunk: int) -> Path:
    return folder / "data.zarr" / "depth" / "c" / str(chunk) / "0" / "0"


def test_round_trip(tmp_path: Path, frames: np.ndarray) -> None:
    fill(tmp_path / "s", frames)
    again = StageStore(tmp_path / "s", "key", chunk_frames=4)
    view = again.frames("depth", kept_chunks=1)
    assert again.frame_count == 10
    assert view.shape == (10, 5, 6)
    np.testing.assert_array_equal(view[:], frames)
    np.testing.assert_array_equal(view[-1], frames[-1])
    np.testing.assert_array_equal(view[3:9:2], frames[3:9:2])
    assert again.extra(2) == {"chunk": 2}


def test_index_outside_raises(tmp_path: Path, frames: np.ndarray) -> None:
    view = fill(tmp_path / "s", frames).frames("depth")
    with pytest.raises(IndexError):
        view[10]
    with pytest.raises(IndexError):
        view[-11]


def test_unfinished_store_is_not_read(tmp_path: Path, frames: np.ndarray) -> None:
    store = StageStore(tmp_path / "s", "key", chunk_frames=4)
    store.write(0, {"depth": frames[:4]})
    assert not store.is_complete
    with pytest.raises(CacheError):
        store.frames("depth")


def test_another_key_starts_empty(tmp_path: Path, frames: np.ndarray) -> None:
    fill(tmp_path / "s", frames)
    other = StageStore(tmp_path / "s", "other", chunk_frames=4)
    assert not other.has(0)
    assert not StageStore(tmp_path / "s", "key", chunk_frames=4).has(0)


@pytest.mark.parametrize("harm", ["truncate", "remove", "empty"])
def test_incomplete_file_is_a_miss(tmp_path: Path, frames: np.ndarray, harm: str) -> None:
    fill(tmp_path / "s", frames)
    file = chunk_file(tmp_path / "s", 1)
    if harm == "remove":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-3] if harm == "truncate" else b"")
    store = StageStore(tmp_path / "s", "key", chunk_frames=4)
    assert [store.has(chunk) for chunk in range(3)] == [True, False, True]
    assert not store.is_complete
    store.write(1, {"depth": frames[4:8], "count": np.arange(4)})
    np.testing.assert_array_equal(store.frames("depth")[:], frames)


@pytest.mark.parametrize("content", ["", "{", '{"files": {}}x', "\x00\x00"])
def test_damaged_marker_is_a_miss(tmp_path: Path, frames: np.ndarray, content: str) -> None:
    fill(tmp_path / "s", frames)
    (tmp_path / "s" / "done" / "000001.json").write_text(content)
    store = StageStore(tmp_path / "s", "key", chunk_frames=4)
    assert not store.has(1)
    assert store.has(0)


def test_flipped_bit_is_found_when_read(tmp_path: Path, frames: np.ndarray) -> None:
    fill(tmp_path / "s", frames)
    file = chunk_file(tmp_path / "s", 1)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    store = StageStore(tmp_path / "s", "key", chunk_frames=4)
    view = store.frames("depth")
    np.testing.assert_array_equal(view[0], frames[0])
    with pytest.raises(DamagedChunkError) as caught:
        view[5]
    forget_chunk(caught.value.folder, caught.value.chunk)
    assert not StageStore(tmp_path / "s", "key", chunk_frames=4).has(1)


def test_a_chunk_without_a_file_is_not_read_as_zeros(tmp_path: Path, frames: np.ndarray) -> None:
    fill(tmp_path / "s", frames)
    view = StageStore(tmp_path / "s", "key", chunk_frames=4).frames("depth")
    chunk_file(tmp_path / "s", 1).unlink()
    np.testing.assert_array_equal(view[0], frames[0])
    with pytest.raises(DamagedChunkError) as caught:
        view[5]
    assert (caught.value.folder, caught.value.chunk) == (tmp_path / "s", 1)


def test_same_input_gives_same_bytes(tmp_path: Path, frames: np.ndarray) -> None:
    for name in ("a", "b"):
        fill(tmp_path / name, frames)
    files = [sorted((tmp_path / name / "data.zarr").rglob("*")) for name in ("a", "b")]
    contents = [[path.read_bytes() for path in paths if path.is_file()] for paths in files]
    assert contents[0] == contents[1]


def test_changed_frame_shape_is_refused(tmp_path: Path, frames: np.ndarray) -> None:
    store = StageStore(tmp_path / "s", "key", chunk_frames=4)
    store.write(0, {"depth": frames[:4]})
    with pytest.raises(ShapeError):
        store.write(1, {"depth": frames[:4, :3]})


@pytest.mark.parametrize("lengths", [[1] * 10, [10], [3, 7], [4, 4, 2], [9, 1]])
def test_sequential_writer_fills_chunks_from_any_batches(
    tmp_path: Path, frames: np.ndarray, lengths: list[int]
) -> None:
    store = StageStore(tmp_path / "s", "key", chunk_frames=4)
    writer = SequentialWriter(store, len(frames))
    first = 0
    for length in lengths:
        writer.append({"depth": frames[first : first + length]}, extra=first)
        first += length
    store.finish(len(frames))
    np.testing.assert_array_equal(store.frames("depth")[:], frames)


@pytest.mark.parametrize("length", [1, 3, 4, 10])
def test_markers_do_not_depend_on_the_length_of_the_batches(tmp_path: Path, frames: np.ndarray, length: int) -> None:
    # A run that resumes cuts its batches elsewhere than an undisturbed one.
    store = StageStore(tmp_path / "s", "key", chunk_frames=4)
    writer = SequentialWriter(store, len(frames))
    for first in range(0, len(frames), length):
        writer.append({"depth": frames[first : first + length]}, extra=[0, "scale"])
    assert [store.extra(chunk) for chunk in range(3)] == [[[0, "scale"]]] * 3


def test_sequential_writer_continues_at_the_first_gap(tmp_path: Path, frames: np.ndarray) -> None:
    store = fill(tmp_path / "s", frames)
    store.forget(1)
    assert SequentialWriter(store, 10).position == 4


def test_chunks_of_another_store_are_taken_over(tmp_path: Path, frames: np.ndarray) -> None:
    whole = fill(tmp_path / "whole", frames)
    part = StageStore(tmp_path / "part", "key", chunk_frames=4)
    part.write(2, {"depth": frames[8:], "count": np.arange(2)}, extra={"chunk": 2})
    part.write(0, {"depth": frames[:4] + 1, "count": np.arange(4)})
    store = StageStore(tmp_path / "s", "key", chunk_frames=4)
    store.write(0, {"depth": frames[:4], "count": np.arange(4)}, extra={"chunk": 0})
    assert store.adopt(part) == [2]
    assert store.adopt(part) == []
    assert store.adopt(whole) == [1]
    again = StageStore(tmp_path / "s", "key", chunk_frames=4)
    again.finish(len(frames), {"unit": "m"})
    np.testing.assert_array_equal(again.frames("depth")[:], frames)
    assert [again.extra(chunk) for chunk in range(3)] == [{"chunk": chunk} for chunk in range(3)]
    files = [{p.relative_to(s.data): p.read_bytes() for p in s.data.rglob("*") if p.is_file()} for s in (again, whole)]
    assert files[0] == files[1]


@pytest.mark.parametrize("links", [True, False])
def test_a_store_that_was_adopted_from_may_change_or_go(
    tmp_path: Path, frames: np.ndarray, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    part = StageStore(tmp_path / "part", "key", chunk_frames=4)
    part.write(0, {"depth": frames[:4]})
    store = StageStore(tmp_path / "s", "key", chunk_frames=4)
    store.adopt(part)
    part.write(0, {"depth": frames[:4] + 1})
    part.finish(4)
    shutil.rmtree(part.folder)
    store.finish(4)
    np.testing.assert_array_equal(store.frames("depth")[:], frames[:4])


def test_chunks_of_another_shape_are_left(tmp_path: Path, frames: np.ndarray) -> None:
    store = StageStore(tmp_path / "s", "key", chunk_frames=4)
    store.write(0, {"depth": frames[:4]})
    part = StageStore(tmp_path / "part", "key", chunk_frames=4)
    part.write(1, {"depth": frames[4:8, :, :3]})
    assert store.adopt(part) == []
    assert not store.has(1)


def test_a_writer_may_begin_and_end_within_a_stage(tmp_path: Path, frames: np.ndarray) -> None:
    store = StageStore(tmp_path / "s", "key", chunk_frames=4)
    writer = SequentialWriter(store, 8, first=4)
    assert writer.position == 4
    writer.append({"depth": frames[4:8]})
    assert store.chunks() == [1]
    assert SequentialWriter(store, 10, first=4).position == 8


def test_what_lies_beside_the_chunks_stays_on_the_disk(tmp_path: Path) -> None:
    """Segment tables take kilobytes a frame: a store that is open must not hold those of a whole video."""
    chunks, beside = 40, 100_000
    tracemalloc.start()
    try:
        written = StageStore(tmp_path / "s", "key", chunk_frames=1)
        for chunk in range(chunks):
            written.write(chunk, {"ids": np.zeros((1, 2, 2), np.int32)}, ["x" * beside])
        written.finish(chunks)
        opened = StageStore(tmp_path / "s", "key", chunk_frames=1)
        assert [len(opened.extra(chunk)[0]) for chunk in opened.chunks()] == [beside] * chunks
        held = sum(one.size for one in tracemalloc.take_snapshot().statistics("lineno") if one.size > beside // 2)
    finally:
        tracemalloc.stop()
    assert held < 4 * beside


def test_a_marker_lost_since_the_store_was_opened_is_a_damaged_chunk(tmp_path: Path, frames: np.ndarray) -> None:
    store = fill(tmp_path / "s", frames)
    assert store.extra(0) == {"chunk": 0}
    forget_chunk(tmp_path / "s", 1)
    with pytest.raises(DamagedChunkError, match="chunk 1"):
        store.extra(1)
    store.write(0, {"depth": frames[:4], "count": np.arange(4)}, {"chunk": "again"})
    assert store.extra(0) == {"chunk": "again"}
