"""Stacks of depth maps on disk, read one map at a time so that memory does not grow with their number."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import InputError, InputNotFoundError, MissingExtraError, SequenceError, ShapeError
from stf_depth.ordering import files_in_order, places_in_numbering
from stf_depth.perception.weights import file_digest
from stf_depth.result import MANIFEST
from stf_depth.types import BoolArray, Float32Array, Float64Array

__all__ = ["MapSource", "open_maps", "tree_digest"]

# What a 16-bit PNG means when nothing says otherwise: the convention of RGB-D recordings.
MILLIMETRES = {"representation": "z_depth", "ambiguity": "metric", "unit_m": "0.001"}
EXR_METRES = {"representation": "z_depth", "ambiguity": "metric"}
STATED_KEYS = ("representation", "ambiguity", "unit_m")
EXR_WORDS = ("representation", "ambiguity", "stfDepthZ")
SUFFIXES = (".png", ".exr", ".npy")
NUMBER_KINDS = "buif"  # NumPy's letters of bool, unsigned, signed and floating
NAMED = 8  # names in a message at most


class MapSource(Protocol):
    """A stack of maps. stated: what the files say of their meaning. assumed: what is taken where they are silent."""

    stated: Mapping[str, str]
    assumed: Mapping[str, str]
    pts_seconds: Float64Array | None
    places: Sequence[int] | None  # where names are numbered

    def __len__(self) -> int: ...

    def read(self, number: int) -> tuple[Float32Array, BoolArray | None]:
        """Map ``number``: values (h, w) and, where the files have it, validity."""
        ...

    def digest(self) -> str:
        """Identity of the content, for cache keys."""
        ...


def open_maps(path: Path) -> MapSource:
    """Open a file or folder of maps.

    Raises InputNotFoundError, and InputError for something that holds no maps.
    """
    if not path.exists():
        raise InputNotFoundError("no precomputed maps", where=path)
    if (path / "depth.zarr").is_dir():
        path = path / "depth.zarr"
    if path.is_dir() and any((path / name).exists() for name in ("zarr.json", ".zgroup")):
        return ZarrStack(path)
    if path.is_dir():
        return MapFolder(path)
    if path.suffix == ".npz":
        return NpzStack(path)
    if path.suffix == ".npy":
        return NpyStack(path)
    expected = ".npz, .npy, a result folder, or a folder of .png, .exr or .npy"
    raise InputError("not precomputed depth", where=path, expected=expected)


class _Stack:
    """Maps in one array."""

    assumed: Mapping[str, str]
    places: Sequence[int] | None = None

    def __init__(self, path: Path, depth: Any, valid: Any, pts_seconds: Any, stated: Mapping[str, str]) -> None:
        self._path, self._depth, self._valid = path, depth, valid
        self.stated, self.assumed = stated, {}
        if len(depth.shape) != 3 or 0 in depth.shape:
            raise ShapeError("precomputed depth must be a stack", where=path, expected="(T, h, w)", got=depth.shape)
        if valid is not None and valid.shape != depth.shape:
            what = "validity must match depth"
            raise ShapeError(what, where=path, expected=depth.shape, got=valid.shape)
        arrays = [array for array in (depth, valid, pts_seconds) if array is not None]
        if any(np.dtype(array.dtype).kind not in NUMBER_KINDS for array in arrays):
            raise InputError("not numbers", where=path, got=", ".join(str(array.dtype) for array in arrays))
        self.pts_seconds = None if pts_seconds is None else np.asarray(pts_seconds, np.float64)

    def __len__(self) -> int:
        return int(self._depth.shape[0])

    def read(self, number: int) -> tuple[Float32Array, BoolArray | None]:
        valid = None if self._valid is None else np.asarray(self._valid[number], bool)
        return np.asarray(self._depth[number], np.float32), valid


class NpyStack(_Stack):
    """A .npy file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _load_npy(path), None, None, {})

    def digest(self) -> str:
        return f"sha256:{file_digest(self._path)}"


class NpzStack(_Stack):
    """A .npz file; its arrays are unpacked to a temporary file, not to memory."""

    def __init__(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                names = _wanted_arrays(archive, path)
                arrays = {name.removesuffix(".npy"): _unpack(archive, name, path) for name in names}
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:  # the last: encrypted
            raise InputError("damaged .npz file", where=path, got=error) from error
        words: dict[str, str] = {key: str(arrays[key]) for key in STATED_KEYS if key in arrays}
        super().__init__(path, arrays["depth"], arrays.get("valid"), arrays.get("pts_seconds"), words)

    def digest(self) -> str:
        return f"sha256:{file_digest(self._path)}"


class ZarrStack(_Stack):
    """The ``depth.zarr`` of a result folder."""

    def __init__(self, path: Path) -> None:
        import zarr

        try:
            group: Any = zarr.open_group(path, mode="r")
            arrays = {name: group[name] for name in ("depth", "valid", "pts_seconds") if name in group}
            stated = {key: str(group.attrs[key]) for key in ("representation", "ambiguity") if key in group.attrs}
            pts_seconds = arrays["pts_seconds"][:] if "pts_seconds" in arrays else None
        except Exception as error:  # zarr may raise anything at all for a damaged store
            raise InputError("damaged Zarr store", where=path, got=repr(error)[:200]) from error
        others = [array for name, array in arrays.items() if name != "depth"]
        if not all(isinstance(array, zarr.Array) for array in (arrays.get("depth"), *others)):
            raise InputError("no depth in Zarr store", where=path, expected="an array 'depth' (T, h, w)")
        super().__init__(path, arrays["depth"], arrays.get("valid"), pts_seconds, stated)

    def read(self, number: int) -> tuple[Float32Array, BoolArray | None]:
        self._refuse_missing_chunk(number)
        try:
            return super().read(number)
        except Exception as error:  # as above
            raise InputError("damaged Zarr store", where=self._path, got=repr(error)[:200]) from error

    def _refuse_missing_chunk(self, number: int) -> None:
        """Zarr gives zeros for a chunk without a file, which other writers may leave out; a result has them all."""
        if not (self._path.parent / MANIFEST).is_file():
            return
        chunk = number // self._depth.chunks[0]
        file = self._path / "depth" / self._depth.metadata.encode_chunk_key((chunk, 0, 0))
        if not file.is_file():
            raise InputError("damaged Zarr store", where=self._path, got=f"chunk {chunk} of depth is missing")

    def digest(self) -> str:
        return tree_digest(sorted(path for path in self._path.rglob("*") if path.is_file()), self._path)


class MapFolder:
    """One file a frame, sorted by the numbers in their names."""

    pts_seconds: Float64Array | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = {suffix: files_in_order(folder, (suffix,)) for suffix in SUFFIXES}
        kinds = [suffix for suffix, paths in found.items() if paths]
        if len(kinds) != 1:
            got = ", ".join(kinds) or "none of them"
            raise SequenceError("a folder of maps needs one kind of file", where=folder, expected=SUFFIXES, got=got)
        self._paths = found[kinds[0]]
        self.places: Sequence[int] | None = places_in_numbering([path.stem for path in self._paths])
        self.stated = _STATED[kinds[0]](self._paths[0])
        self.assumed: Mapping[str, str] = {".png": MILLIMETRES, ".exr": {}, ".npy": {}}[kinds[0]]
        self._read = _READERS[kinds[0]]
        self._codes_unknown = _CODES_UNKNOWN[kinds[0]](self._paths[0])

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, number: int) -> tuple[Float32Array, BoolArray | None]:
        path = self._paths[number]
        values = self._read(path)
        if values.ndim != 2:
            raise ShapeError("a depth map has two axes", where=path, got=values.shape)
        if values.dtype.kind not in NUMBER_KINDS:
            raise InputError("not numbers", where=path, got=values.dtype)
        values = np.asarray(values, np.float32)
        # Where unknown has a code of its own, infinity is a value: the sky.
        return values, ~np.isnan(values) if self._codes_unknown else None

    def digest(self) -> str:
        return tree_digest(self._paths, self._folder)


def tree_digest(paths: list[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root)}\0{file_digest(path)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _wanted_arrays(archive: zipfile.ZipFile, path: Path) -> list[str]:
    """Names of the arrays that are read; raises InputError without depth, or for more than fits on the disk."""
    kinds = {"depth", "valid", "pts_seconds", *STATED_KEYS}
    wanted = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in kinds]
    if not any(info.filename.removesuffix(".npy") == "depth" for info in wanted):
        got = ", ".join(sorted(archive.namelist())[:NAMED])
        raise InputError("no depth in .npz file", where=path, expected="an array 'depth' (T, h, w)", got=got)
    # The reader stops at the size that the archive states, so this bounds what a few hostile bytes can grow to.
    size, room = sum(info.file_size for info in wanted), shutil.disk_usage(tempfile.gettempdir()).free // 2
    if size > room:
        raise InputError("no room to unpack", where=path, expected=f"at most {room} bytes", got=size)
    return [info.filename for info in wanted]


def _unpack(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    with archive.open(name) as source, tempfile.TemporaryFile() as unpacked:
        shutil.copyfileobj(source, unpacked)
        unpacked.seek(0)
        try:
            return _mapped(unpacked, f"{path}: {name}")
        except InputError:
            raise
        except Exception as error:  # a damaged header may make NumPy raise anything at all
            raise InputError("damaged .npz file", where=f"{path}: {name}", got=repr(error)[:200]) from error


def _mapped(unpacked: IO[bytes], where: str) -> NDArray[Any]:
    version = np.lib.format.read_magic(unpacked)
    read_header = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(unpacked)
    if dtype.hasobject:
        raise InputError("refused to unpickle", where=where, expected="plain arrays", got=dtype)
    if 0 in shape or shape == ():
        return np.frombuffer(unpacked.read(dtype.itemsize if shape == () else 0), dtype).reshape(shape)
    order = "F" if is_fortran else "C"
    return np.memmap(unpacked, dtype, "r", unpacked.tell(), shape, order)  # type: ignore[call-overload,no-any-return]


def _load_npy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header may make NumPy raise anything at all
        raise InputError("damaged .npy file", where=path, got=repr(error)[:200]) from error
    return array


def _read_png(path: Path) -> NDArray[Any]:
    try:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # more pixels than OpenCV takes
        image = None
    if image is None or image.dtype != np.uint16 or image.ndim != 2:
        got = "nothing readable" if image is None else f"{image.dtype} {image.shape}"
        raise SequenceError("not a depth image", where=path, expected="16-bit greyscale PNG", got=got)
    try:
        return _decoded(image, _png_text(path))
    except ValueError as error:
        raise SequenceError("unusable metadata of a depth image", where=path, got=error) from error


def _decoded(code: NDArray[Any], text: Mapping[str, str]) -> Float32Array:
    """value = scale code + offset, where the code is none of the two special ones."""
    values = code * np.float64(float(text.get("scale", 1))) + np.float64(float(text.get("offset", 0)))
    if "unknown_code" in text:
        values[code == int(text["unknown_code"])] = np.nan
    if "infinite_code" in text:
        values[code == int(text["infinite_code"])] = 0 if text.get("representation") == "disparity" else np.inf
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _png_text(path: Path) -> Mapping[str, str]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            words: Mapping[str, str] = getattr(image, "text", {})
            return dict(words)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SequenceError("unusable metadata of a depth image", where=path, got=error) from error


class _Exr(NamedTuple):
    """An OpenEXR file: EXR_WORDS that it has, as text, and pixels (h, w), or (h, w, 4) where colours come as one."""

    header: Mapping[str, str]
    channels: Mapping[str, NDArray[Any]]


def _exr(path: Path) -> _Exr:
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingExtraError.of("OpenEXR", "export") from error
    try:
        file = OpenEXR.File(str(path))
        header = file.header()
        words = {key: str(header[key]) for key in EXR_WORDS if key in header}
        return _Exr(words, {name: channel.pixels for name, channel in file.channels().items()})
    except Exception as error:  # OpenEXR may raise anything at all, as for text that is no UTF-8
        raise SequenceError("damaged EXR file", where=path, got=repr(error)[:200]) from error


def _exr_channel(file: _Exr, path: Path) -> tuple[str, NDArray[Any]]:
    channels = file.channels
    for name, pixels in channels.items():
        if len(channels) == 1 or name.split(".")[-1] in ("Z", "depth", "disparity"):
            return name, pixels
    raise SequenceError("which channel is depth?", where=path, expected="Z, depth or disparity", got=list(channels))


def _read_exr(path: Path) -> NDArray[Any]:
    file = _exr(path)
    values = _exr_channel(file, path)[1]
    validity = _alpha(file)
    if "stfDepthZ" not in file.header or validity is None:
        return values
    if validity.shape != values.shape:
        raise ShapeError("validity must match depth", where=path, expected=values.shape, got=validity.shape)
    # Our own files: A says which pixels are known, whatever stands in the others.
    return np.where(validity > 0, values, np.float32(np.nan))


def _alpha(file: _Exr) -> NDArray[Any] | None:
    if "RGBA" in file.channels:  # read together, the colours come as one array
        return file.channels["RGBA"][..., 3]
    return file.channels.get("A")


def _exr_stated(path: Path) -> Mapping[str, str]:
    file = _exr(path)
    stated = {key: value for key, value in file.header.items() if key in STATED_KEYS}
    name = _exr_channel(file, path)[0].split(".")[-1]
    return {**(EXR_METRES if name == "Z" else {}), **stated}


def _png_stated(path: Path) -> Mapping[str, str]:
    return {key: value for key, value in _png_text(path).items() if key in STATED_KEYS}


def _npy_stated(path: Path) -> Mapping[str, str]:
    """What our export writes beside the maps."""
    beside = path.with_name("meaning.json")
    try:
        content = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
        return {key: str(content[key]) for key in STATED_KEYS if key in content}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise SequenceError("unusable meaning of depth maps", where=beside, got=repr(error)[:200]) from error


_READERS = {".png": _read_png, ".exr": _read_exr, ".npy": _load_npy}
_STATED = {".png": _png_stated, ".exr": _exr_stated, ".npy": _npy_stated}
_CODES_UNKNOWN: dict[str, Callable[[Path], bool]] = {
    ".png": lambda path: "unknown_code" in _png_text(path),
    ".exr": lambda path: "stfDepthZ" in _exr(path).header,
    ".npy": lambda path: bool(_npy_stated(path)),
}
