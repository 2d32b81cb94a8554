"""Chunked, resumable storage of one stage's frames.

A store is a Zarr group whose arrays share the time axis. Frames arrive in chunks; a chunk counts only once its
marker ``done/<chunk>.json``, written after the data has reached the disk, lists the data files and their sizes.
Every chunk carries a CRC-32C, so that damage inside a file is found when it is read.
"""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from stf_depth.cache.files import fsync_path, output_errors, read_json, remove_tree, write_json
from stf_depth.errors import CacheError, ShapeError
from stf_depth.types import Frames

__all__ = ["ChunkedFrames", "DamagedChunkError", "StageStore", "forget_chunk"]

# Length of the time axis until the number of frames is known; Zarr stores only chunks that exist.
_OPEN_END = 2**31 - 1


class DamagedChunkError(CacheError):
    """A chunk without a file or that fails its checksum; ``store.forget(chunk)`` makes it a miss.

    folder: with the markers of the store. result: the depth store of a finished result, where it is one.
    """

    def __init__(self, folder: Path, chunk: int, result: Path | None = None) -> None:
        what = "damaged cache chunk" if result is None else "damaged depth result"
        hint = "Repeat the run of this video to repair it: the rest is kept"
        super().__init__(what, where=f"{result or folder} chunk {chunk}", hint=hint)
        self.folder = folder
        self.chunk = chunk
        self.result = result

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.folder, self.chunk, self.result)


class ChunkedFrames:
    """Lazy time-first array over a store, with a few decoded chunks kept.

    ``frames[i]`` is one frame, ``frames[a:b]`` and ``frames[[i, j]]`` a stack, ``frames[...]`` all of them, as NumPy
    arrays; further indices pick from these. Raises IndexError for anything else. result: as in DamagedChunkError, which
    reading raises.
    """

    def __init__(
        self, array: zarr.Array[Any], count: int, folder: Path, kept_chunks: int = 4, *, result: Path | None = None
    ) -> None:
        self._array = array
        self._count = count
        self._folder = folder
        self._result = result
        self._kept_chunks = kept_chunks
        self._chunks: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._step = int(array.chunks[0])

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._count, *(int(n) for n in self._array.shape[1:]))

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of the pieces that are decoded at once."""
        return (self._step, *self.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self._array.dtype)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        if isinstance(index, tuple):
            first, *within = _spelt_out(index, len(self.shape))
            kept = (slice(None),) if np.ndim(self._numbers(first)) else ()
            return np.asarray(self[first][(*kept, *within)])
        picked = self._numbers(index)
        if np.ndim(picked) == 0:
            return self._frame(int(picked))
        if not len(picked):
            return np.zeros((0, *self.shape[1:]), self._array.dtype)
        return np.stack([self._frame(number) for number in picked.tolist()])

    def _numbers(self, index: Any) -> NDArray[np.int64]:
        """The frame number, or the numbers (N,), that an index of the first axis picks."""
        picked = np.asarray(np.arange(self._count)[index])
        if picked.ndim > 1:
            raise IndexError(f"frames are picked by a number, a slice, a list of numbers or ..., not {index!r:.80}")
        return picked

    def _frame(self, number: int) -> NDArray[Any]:
        return np.asarray(self._chunk(number // self._step)[number % self._step])

    def _chunk(self, chunk: int) -> NDArray[Any]:
        # Taken out and put back, which makes it the last to go: several threads may do so at once.
        data = self._chunks.pop(chunk, None)
        if data is None:
            data = self._decoded(chunk)
        self._chunks[chunk] = data
        if len(self._chunks) > self._kept_chunks:
            self._chunks.popitem(last=False)
        return data

    def _decoded(self, chunk: int) -> NDArray[Any]:
        if not self._chunk_file(chunk).is_file():
            # Zarr would give zeros, which are valid depth; the stores write chunks of zeros too.
            raise DamagedChunkError(self._folder, chunk, self._result)
        start = chunk * self._step
        try:
            data = np.asarray(self._array[start : min(start + self._step, self._count)])
        except (ValueError, RuntimeError, OSError) as error:
            raise DamagedChunkError(self._folder, chunk, self._result) from error
        data.flags.writeable = False
        return data

    def _chunk_file(self, chunk: int) -> Path:
        array: Any = self._array
        key = array.metadata.encode_chunk_key((chunk, *[0] * (array.ndim - 1)))
        return Path(array.store.root, array.path, key)


def _spelt_out(index: tuple[Any, ...], axes: int) -> tuple[Any, ...]:
    """An index of several axes that says something of the first one: what ``...`` stands for at its beginning."""
    if not index or index[0] is Ellipsis:
        index = (*[slice(None)] * max(0, axes - len(index[1:])), *index[1:])
    if np.ndim(index[0]) and any(np.ndim(one) for one in index[1:]):
        raise IndexError("frames and pixels cannot both be picked by lists: pick the frames first")
    return index


def _is_marker(content: Any) -> bool:
    files = content.get("files") if isinstance(content, dict) else None
    return isinstance(files, dict) and bool(files) and "extra" in content


def _without_length(metadata: dict[str, Any]) -> dict[str, Any]:
    return {**metadata, "shape": metadata["shape"][1:]}


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)
        fsync_path(target)
    fsync_path(target.parent)


def forget_chunk(folder: Path, chunk: int) -> None:
    """Make a chunk of the store in ``folder`` a miss."""
    (folder / "done" / f"{chunk:06d}.json").unlink(missing_ok=True)


class StageStore:
    """The frames of one stage under one key.

    folder holds the markers and, unless ``data`` names another place, the Zarr group. Opening a folder that was
    written under another key empties it. Chunks may be written in any order and more than once.
    """

    def __init__(self, folder: Path, key: str, *, chunk_frames: int, data: Path | None = None) -> None:
        self.folder = folder
        self.data = data or folder / "data.zarr"
        self.key = key
        self.chunk_frames = chunk_frames
        self._markers = folder / "done"
        identity = {"key": key, "chunk_frames": chunk_frames}
        if read_json(folder / "identity.json") != identity or not self._has_readable_metadata():
            self._start_empty()
            write_json(folder / "identity.json", identity)
        # Which chunks are there, without what lies beside them: that grows with the video.
        self._done = self._verified_markers()
        self._extra: tuple[int, Any] = (-1, None)  # of the chunk that was asked for last

    def _has_readable_metadata(self) -> bool:
        try:
            group = zarr.open_group(self.data, mode="r")
            return all(isinstance(group[path.name], zarr.Array) for path in self.data.iterdir() if path.is_dir())
        except Exception:  # zarr may raise anything at all for absent or damaged metadata
            return False

    def _start_empty(self) -> None:
        remove_tree(self.folder)
        remove_tree(self.data)
        with output_errors(self.data):
            self._markers.mkdir(parents=True)
            zarr.open_group(self.data, mode="w")

    def _verified_markers(self) -> set[int]:
        done = set()
        for marker in self._markers.glob("[0-9]*.json"):
            content = read_json(marker)
            if marker.stem.isdecimal() and _is_marker(content) and self._intact(content["files"]):
                done.add(int(marker.stem))
        return done

    def _marker(self, chunk: int) -> Path:
        return self._markers / f"{chunk:06d}.json"

    def _content(self, chunk: int) -> dict[str, Any]:
        """A marker's files and extra; raises DamagedChunkError where it has been lost since the store was opened."""
        content = read_json(self._marker(chunk))
        if chunk not in self._done or not _is_marker(content):
            raise DamagedChunkError(self.folder, chunk)
        return dict(content)

    def _intact(self, files: Mapping[str, int]) -> bool:
        paths = ((self.data / name, size) for name, size in files.items())
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)

    @property
    def frame_count(self) -> int | None:
        """Number of frames once the stage is finished, else None."""
        ending = read_json(self.folder / "complete.json")
        if not isinstance(ending, dict) or not isinstance(ending.get("frames"), int):
            return None
        chunks = -(-ending["frames"] // self.chunk_frames)
        return int(ending["frames"]) if all(chunk in self._done for chunk in range(chunks)) else None

    @property
    def is_complete(self) -> bool:
        """Whether every frame is stored."""
        return self.frame_count is not None

    def has(self, chunk: int) -> bool:
        """Whether a chunk is stored."""
        return chunk in self._done

    def chunks(self) -> list[int]:
        """The chunks that are stored, in order."""
        return sorted(self._done)

    def extra(self, chunk: int) -> Any:
        """What was stored beside a chunk's arrays; raises DamagedChunkError where there is nothing."""
        kept, extra = self._extra
        if kept != chunk:
            extra = self._content(chunk)["extra"]
            self._extra = chunk, extra
        return extra

    def write(self, chunk: int, arrays: Mapping[str, NDArray[Any]], extra: Any = None) -> None:
        """Store one chunk: arrays (n, ...) with n the chunk length, less only in the last chunk.

        extra: small JSON values that belong to the chunk. Raises OutputError when the disk is full.
        """
        lengths = {len(array) for array in arrays.values()}
        if len(lengths) != 1 or not 0 < max(lengths) <= self.chunk_frames:
            raise ShapeError("arrays of a chunk must share its length", expected=self.chunk_frames, got=lengths)
        self.forget(chunk)
        with output_errors(self.data):
            files = {}
            for name, data in arrays.items():
                path = self._write_array(name, chunk, data)
                files[str(path.relative_to(self.data))] = path.stat().st_size
        write_json(self._marker(chunk), {"files": files, "extra": extra})
        self._done.add(chunk)

    def _write_array(self, name: str, chunk: int, data: NDArray[Any]) -> Path:
        array = self._array(name, data)
        start = chunk * self.chunk_frames
        array[start : start + len(data)] = data
        path = self.data / name / "/".join(["c", str(chunk), *["0"] * (data.ndim - 1)])
        fsync_path(path)
        fsync_path(path.parent)
        return path

    def _array(self, name: str, data: NDArray[Any]) -> zarr.Array[Any]:
        group = zarr.open_group(self.data, mode="r+")
        if name in group:
            array: zarr.Array[Any] = group[name]  # type: ignore[assignment]
            if array.shape[1:] != data.shape[1:] or array.dtype != data.dtype:
                expected, got = (array.shape[1:], array.dtype), (data.shape[1:], data.dtype)
                raise ShapeError(f"frames of '{name}' changed their shape", expected=expected, got=got)
            # An opened array does not remember this setting; without it a chunk of zeros would get no file.
            return array.with_config({"write_empty_chunks": True})
        array = group.create_array(
            name,
            shape=(_OPEN_END, *data.shape[1:]),
            chunks=(self.chunk_frames, *data.shape[1:]),
            dtype=data.dtype,
            fill_value=0,
            compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
        # Chunks that reach the disk are worth nothing without it.
        fsync_path(self.data / name / "zarr.json")
        fsync_path(self.data / name)
        return array

    def adopt(self, other: StageStore) -> list[int]:
        """Take over the chunks that ``other``, of the same stage and key, has and this store lacks; returns them.

        The files are linked where the file system can, so that this costs no time and no room. ``other`` stays as it
        is, and chunks whose arrays have another shape stay in it.
        """
        wanted = ((chunk, other._content(chunk)) for chunk in other.chunks() if not self.has(chunk))
        return [chunk for chunk, content in wanted if self._adopt(other, chunk, content)]

    def _adopt(self, other: StageStore, chunk: int, content: dict[str, Any]) -> bool:
        if not self._fits(other, content["files"]):
            return False
        with output_errors(self.data):
            for name in content["files"]:
                _link(other.data / name, self.data / name)
        write_json(self._marker(chunk), content)
        self._done.add(chunk)
        return True

    def _fits(self, other: StageStore, files: Mapping[str, int]) -> bool:
        """Whether the arrays of these files are as they are here; those that this store lacks are made."""
        for name in {file.partition("/")[0] for file in files}:
            here, there = self.data / name / "zarr.json", read_json(other.data / name / "zarr.json")
            if not here.exists():
                write_json(here, there)
            # The lengths differ once a stage is finished.
            if _without_length(read_json(here)) != _without_length(there):
                return False
        return True

    def finish(self, frame_count: int, attributes: Mapping[str, Any] | None = None) -> None:
        """Declare the stage whole: its arrays end after ``frame_count`` frames."""
        for metadata in self.data.glob("*/zarr.json"):
            # Zarr's own resize visits every chunk that the old shape could hold.
            content = read_json(metadata)
            write_json(metadata, {**content, "shape": [frame_count, *content["shape"][1:]]})
        with output_errors(self.data):
            zarr.open_group(self.data, mode="r+").attrs.update(dict(attributes or {}))
            fsync_path(self.data / "zarr.json")
        write_json(self.folder / "complete.json", {"frames": frame_count})

    def forget(self, chunk: int) -> None:
        """Make a chunk a miss."""
        forget_chunk(self.folder, chunk)
        self._done.discard(chunk)
        if self._extra[0] == chunk:
            self._extra = (-1, None)

    def frames(self, name: str, *, kept_chunks: int = 4) -> Frames:
        """Lazy view of one array of a finished stage."""
        count = self.frame_count
        if count is None:
            raise CacheError("unfinished cache stage", where=self.folder)
        array: zarr.Array[Any] = zarr.open_group(self.data, mode="r")[name]  # type: ignore[assignment]
        return ChunkedFrames(array, count, self.folder, kept_chunks)
