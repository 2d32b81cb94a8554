"""``depth.pkl``: a plain dict for programs that read nothing else."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import FrozenConfig
from stf_depth.export.files import aside
from stf_depth.export.geometry import camera_values
from stf_depth.export.reading import depth_chunks, unit_name
from stf_depth.result import DepthResult

__all__ = ["Options", "export"]

_PROTOCOL = 5


class Options(FrozenConfig):
    """No options."""


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:  # noqa: ARG001
    """Write {"depth": (T, H, W) float32, "valid": bool, "pts_seconds", "representation", "ambiguity", ...}.

    ``pickle.load`` gives NumPy arrays and builtins; the arrays are written a few frames at a time.
    """
    shape = tuple(int(n) for n in result.depth.shape)
    with aside(target) as partial, partial.open("wb") as file:
        file.write(pickle.PROTO + bytes([_PROTOCOL]) + pickle.EMPTY_DICT + pickle.MARK)
        for key, value in _small_values(result).items():
            _write(file, key)
            _write(file, value)
        _write(file, "depth")
        _write_array(file, np.dtype(np.float32), shape, (maps.depth for _, maps in depth_chunks(result)))
        _write(file, "valid")
        _write_array(file, np.dtype(np.bool_), shape, (maps.valid for _, maps in depth_chunks(result)))
        file.write(pickle.SETITEMS + pickle.STOP)
    return [target]


def _small_values(result: DepthResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "representation": result.representation.value,
        "ambiguity": result.ambiguity.value,
        "unit": unit_name(result.representation, result.ambiguity),
        "pts_seconds": np.asarray(result.pts_seconds, np.float64),
        "shots": [(shot.start, shot.stop) for shot in result.shots],
        "cameras": [camera_values(result, number) for number in range(len(result.shots))],
    }


def _write(file: BinaryIO, value: Any) -> None:
    # Without a memo each value stands alone, so that pickles can be joined. The first two bytes name the protocol.
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 3)
    pickler.fast = True
    pickler.dump(value)
    file.write(buffer.getvalue()[2:-1])


def _write_array(
    file: BinaryIO, dtype: np.dtype[np.generic], shape: tuple[int, ...], parts: Iterable[NDArray[np.generic]]
) -> None:
    """The calls reshape(frombuffer(<bytes>, dtype), shape) as pickle opcodes, the bytes streamed."""
    size = int(np.prod(shape)) * dtype.itemsize
    file.write(pickle.GLOBAL + b"numpy\nreshape\n" + pickle.MARK)
    file.write(pickle.GLOBAL + b"numpy\nfrombuffer\n" + pickle.MARK)
    file.write(pickle.BYTEARRAY8 + struct.pack("<Q", size))
    for part in parts:
        file.write(np.ascontiguousarray(part).tobytes())
    _write(file, dtype.str)
    file.write(pickle.TUPLE + pickle.REDUCE)
    _write(file, shape)
    file.write(pickle.TUPLE + pickle.REDUCE)
