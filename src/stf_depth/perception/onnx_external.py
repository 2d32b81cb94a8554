"""Files beside an ONNX network that hold its weights: found in its protobuf, without the package ``onnx``."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path

from stf_depth.errors import WeightsError
from stf_depth.perception.weights import file_digest

__all__ = ["external_files", "network_digest"]

# Messages of onnx.proto and their fields that lead to a tensor: field number -> message behind it.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2
_VARINT, _BYTES = 0, 2
_FIXED_SIZE = {1: 8, 5: 4}  # wire type -> bytes
# Flatbuffers of the runtime's own format say so here; they hold their weights themselves.
_ORT_MARK = slice(4, 8), b"ORTM"


def network_digest(path: Path) -> str:
    """SHA-256 of an ONNX file and of the files that its tensors lie in; of the file alone where there are none.

    Raises WeightsError for a file that cannot be parsed.
    """
    whole = file_digest(path)
    files = {name: path.parent / name for name in external_files(path)}
    if not files:
        return f"sha256:{whole}"
    digest = hashlib.sha256(whole.encode())
    for name, file in files.items():
        # The runtime opens a network without the data of tensors that nothing reads.
        digest.update(f"\n{name}\0{file_digest(file) if file.is_file() else 'missing'}".encode())
    return f"sha256:{digest.hexdigest()}"


def external_files(path: Path) -> list[str]:
    """Locations of external data that a file names, relative to its folder, sorted.

    Raises WeightsError for a file that cannot be parsed.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            is_flat = data[_ORT_MARK[0]] == _ORT_MARK[1]
            return [] if is_flat else sorted(set(_locations(data, 0, len(data), "model")))
    except (IndexError, ValueError, RecursionError) as error:
        raise WeightsError("damaged ONNX file", where=path, got=repr(error)) from error


def _locations(data: mmap.mmap, start: int, stop: int, message: str) -> Iterator[str]:
    """Values of every external-data entry ``location`` inside one message."""
    inner = _FIELDS[message]
    for field, first, last in _fields(data, start, stop):
        if inner.get(field) == "entry":
            parts = {key: data[begin:end] for key, begin, end in _fields(data, first, last)}
            if parts.get(_KEY) == b"location" and _VALUE in parts:
                yield parts[_VALUE].decode()
        elif field in inner:
            yield from _locations(data, first, last, inner[field])


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Length-delimited fields of one message: number, first byte, byte behind the last."""
    position = start
    while position < stop:
        tag, position = _varint(data, position)
        field, wire = tag >> 3, tag & 7
        if wire == _BYTES:
            length, position = _varint(data, position)
            yield field, position, position + length
            position += length
        elif wire == _VARINT:
            position = _varint(data, position)[1]
        elif wire in _FIXED_SIZE:
            position += _FIXED_SIZE[wire]
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
    if position != stop:
        raise ValueError(f"a message ends at byte {position} instead of {stop}")


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """An integer, seven bits a byte, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
