"""``depth.npz``: one NumPy archive that loads without pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import FrozenConfig
from stf_depth.export.files import aside
from stf_depth.export.reading import depth_chunks
from stf_depth.result import DepthResult

__all__ = ["Options", "export"]

# Zip members carry a time; a fixed one keeps equal results equal as files.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


class Options(FrozenConfig):
    """compress: deflate the members; slower, and it saves little on depth."""

    compress: bool = False


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write ``depth`` (T, H, W) float32, ``valid`` bool, ``pts_seconds`` float64, ``representation``, ``ambiguity``.

    The members are written a few frames at a time: memory does not grow with the video.
    """
    kind = zipfile.ZIP_DEFLATED if options.compress else zipfile.ZIP_STORED
    shape = tuple(result.depth.shape)
    with aside(target) as partial, zipfile.ZipFile(partial, "w", kind) as archive:
        _add(archive, "depth", np.dtype(np.float32), shape, (maps.depth for _, maps in depth_chunks(result)))
        _add(archive, "valid", np.dtype(np.bool_), shape, (maps.valid for _, maps in depth_chunks(result)))
        for name, value in (
            ("pts_seconds", np.asarray(result.pts_seconds, np.float64)),
            ("representation", np.array(result.representation.value)),
            ("ambiguity", np.array(result.ambiguity.value)),
        ):
            _add(archive, name, value.dtype, value.shape, [value])
    return [target]


def _add(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[np.generic],
    shape: tuple[int, ...],
    parts: Iterable[NDArray[np.generic]],
) -> None:
    member = zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH)
    member.compress_type = archive.compression
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(member, "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).tobytes())
