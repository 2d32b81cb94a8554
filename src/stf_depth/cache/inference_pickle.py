"""``infer_result.pkl``, the inference cache of the original interface.

Content: a dict of builtins and NumPy arrays (docs/result-format.md). It is written frame by frame, so that memory
does not grow with the video, and read by an unpickler that builds nothing but arrays and builtins.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stf_depth.cache.files import atomic_path
from stf_depth.errors import UntrustedPickleError

__all__ = ["read_inference_pickle", "write_inference_pickle"]

# Protocol 3 has no frames and knows bytes, and without a memo every value stands alone: so the pickle of a long
# list is the concatenation of its items' pickles.
_PROTOCOL = 3


def _empty_array(*_arguments: Any) -> NDArray[Any]:
    # What NumPy's _reconstruct is asked for, at whatever size: the array's state, which follows, brings the true one.
    return np.ndarray((0,), np.int8)


def _scalar(dtype: Any, data: bytes) -> Any:
    # NumPy's own makes a value of any stated size out of nothing.
    if dtype.hasobject or len(data) != dtype.itemsize:
        raise ValueError(f"{len(data)} bytes for a {dtype}")
    return np.frombuffer(data, dtype)[0]


# What a pickle may name -> what it gets.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _empty_array,
    ("numpy", "dtype"): np.dtype,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "scalar"): _scalar,
}


def write_inference_pickle(path: Path, header: Mapping[str, Any], frames: Mapping[str, Iterable[NDArray[Any]]]) -> None:
    """Write ``{**header, name: [array of frame 0, array of frame 1, ...]}`` in constant memory.

    header: builtins and small arrays; an iterator, also within dicts, becomes a list. frames: for each name, the arrays
    of the frames in order.
    """
    stacks = {name: map(np.ascontiguousarray, arrays) for name, arrays in frames.items()}
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(pickle.PROTO + bytes([_PROTOCOL]))
        _write_value(file, {**header, **stacks})
        file.write(pickle.STOP)


def _write_value(file: BinaryIO, value: Any) -> None:
    if isinstance(value, Iterator):
        file.write(pickle.EMPTY_LIST + pickle.MARK)
        for item in value:
            _write_value(file, item)
        file.write(pickle.APPENDS)
    elif isinstance(value, dict):
        file.write(pickle.EMPTY_DICT + pickle.MARK)
        for key, item in value.items():
            _write_value(file, key)
            _write_value(file, item)
        file.write(pickle.SETITEMS)
    else:
        _write_whole(file, value)


def _write_whole(file: BinaryIO, value: Any) -> None:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, _PROTOCOL)
    pickler.fast = True
    pickler.dump(value)
    file.write(buffer.getvalue()[2:-1])  # without PROTO and STOP


# The one written in Python: the other reserves memory for as many values as a few bytes of a file may state.
class _ArrayUnpickler(pickle._Unpickler):
    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UntrustedPickleError(
                "refused to load a pickle",
                where=self._path,
                expected="NumPy arrays and builtins only",
                got=f"{module}.{name}",
                hint="Delete the file to compute it again",
            )
        return _ALLOWED[module, name]


def read_inference_pickle(path: Path) -> dict[str, Any]:
    """Read what ``write_inference_pickle`` wrote.

    Raises UntrustedPickleError for anything but a dict of builtins and NumPy arrays, and for damaged files.
    """
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, path).load()
    except UntrustedPickleError:
        raise
    except Exception as error:  # a damaged pickle may raise anything at all
        hint = "Delete the file to compute it again"
        raise UntrustedPickleError(
            "damaged inference cache", where=path, got=type(error).__name__, hint=hint
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UntrustedPickleError("not an inference cache", where=path, expected="a dict", got=type(content).__name__)
    return content
