"""The finished depth of one video, read lazily from its result folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stf_depth.errors import InputNotFoundError, OutputError, StfDepthError
from stf_depth.types import Ambiguity, CameraPath, Float64Array, Frames, Intrinsics, MotionKind, Representation, Shot

if TYPE_CHECKING:
    import zarr

__all__ = ["DEPTH_STORE", "MANIFEST", "DepthResult"]

DEPTH_STORE = "depth.zarr"
MANIFEST = "manifest.json"
# Markers of the finished chunks of depth.zarr, beside it.
PROGRESS = ".progress"
# Frames are read one by one but stored in chunks: neighbours are decoded once, however often ``depth`` is asked for.
_KEPT_CHUNKS = 2

Parsed = TypeVar("Parsed")
_MANIFEST_PARTS = ("input", "config", "models", "shots")
_REPAIR = "Run the same command again to repair it"


@dataclass(frozen=True)
class DepthResult:
    """A result folder: ``depth.zarr`` and ``manifest.json``, nothing loaded until it is indexed.

    depth: (T, H, W) float32, meaning given by ``representation`` and ``ambiguity``. valid: (T, H, W) bool.
    confidence: (T, H, W) float32 in [0, 1]. pts_seconds: (T,) float64.

    Raises InputNotFoundError where no result lies, OutputError where one is unfinished.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / DEPTH_STORE).is_dir():
            raise InputNotFoundError("no depth result", where=self.folder, hint="Run: stf-depth run INPUT")
        if not (self.folder / MANIFEST).is_file():
            raise OutputError("unfinished depth result", where=self.folder, hint="Run the same command again to resume")

    def __getstate__(self) -> dict[str, Any]:
        # What was opened and decoded stays here: it is opened anew where the result arrives.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Input digest, models with licences, configuration, versions, timings, shots and cameras."""
        path = self.folder / MANIFEST
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise OutputError("damaged depth result", where=path, got=repr(error)[:200], hint=_REPAIR) from error
        missing = [key for key in _MANIFEST_PARTS if not isinstance(content, dict) or key not in content]
        if missing:
            raise OutputError("damaged depth result", where=path, got=f"no {', '.join(missing)}", hint=_REPAIR)
        return dict(content)

    @cached_property
    def _group(self) -> zarr.Group:
        import zarr

        try:
            return zarr.open_group(self.folder / DEPTH_STORE, mode="r")
        except Exception as error:  # zarr may raise anything at all for damaged metadata
            raise self._damaged(error) from error

    @property
    def name(self) -> str:
        """The video's name, which is the folder's."""
        return self.folder.name

    @cached_property
    def depth(self) -> Frames:
        """(T, H, W) float32, lazily read."""
        return self._array("depth")

    @cached_property
    def valid(self) -> Frames:
        """(T, H, W) bool, lazily read."""
        return self._array("valid")

    @cached_property
    def confidence(self) -> Frames:
        """(T, H, W) float32 in [0, 1], lazily read."""
        return self._array("confidence")

    @cached_property
    def pts_seconds(self) -> Float64Array:
        """(T,) float64."""
        return np.asarray(self._array("pts_seconds")[:], np.float64)

    def _array(self, name: str) -> Frames:
        from stf_depth.cache.store import ChunkedFrames

        try:
            array: zarr.Array[Any] = self._group[name]  # type: ignore[assignment]
        except Exception as error:  # as above
            raise self._damaged(error) from error
        store = self.folder / DEPTH_STORE
        return ChunkedFrames(array, int(array.shape[0]), self.folder / PROGRESS, _KEPT_CHUNKS, result=store)

    def _damaged(self, error: Exception) -> OutputError:
        where = self.folder / DEPTH_STORE
        return OutputError("damaged depth result", where=where, got=repr(error)[:200], hint=_REPAIR)

    def __len__(self) -> int:
        return len(self.depth)

    @property
    def representation(self) -> Representation:
        """``disparity`` or ``z_depth``."""
        return self._attribute("representation", Representation)

    @property
    def ambiguity(self) -> Ambiguity:
        """``affine``, ``scale`` or ``metric``."""
        return self._attribute("ambiguity", Ambiguity)

    def _attribute(self, name: str, read: Callable[[str], Parsed]) -> Parsed:
        try:
            return read(str(self._group.attrs[name]))
        except (LookupError, ValueError) as error:
            raise self._damaged(error) from error

    @cached_property
    def shots(self) -> list[Shot]:
        """The shots, in order, covering every frame."""
        return self._parsed(lambda manifest: [Shot(shot["start"], shot["stop"]) for shot in manifest["shots"]])

    @cached_property
    def cameras(self) -> list[CameraPath]:
        """One camera path for each shot, at the size of ``depth``; poses in the unit of the solve, not of ``depth``."""
        return self._parsed(lambda manifest: [camera_from_json(shot["camera"]) for shot in manifest["shots"]])

    @property
    def source(self) -> Path:
        """The video or image-sequence folder that the result was made from."""
        return self._parsed(lambda manifest: Path(manifest["input"]["path"]))

    @property
    def source_wh(self) -> tuple[int, int]:
        """Size of the source's frames, which is that of ``depth`` unless the run was asked for another."""
        _, height, width = self.depth.shape
        width, height = self._parsed(lambda manifest: map(int, manifest["input"].get("size_wh", (width, height))))
        return width, height

    def _parsed(self, read: Callable[[dict[str, Any]], Parsed]) -> Parsed:
        manifest = self.manifest
        try:
            return read(manifest)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, StfDepthError) as error:
            where = self.folder / MANIFEST
            raise OutputError("damaged depth result", where=where, got=repr(error)[:200], hint=_REPAIR) from error

    def stage(self, name: str) -> Path | None:
        """Folder of a cached stage (``frames``, ``depth``, ``semantic``, ``panoptic``...), None when cleared.

        A folder that is not the stage of that key is not opened, whatever the manifest says.
        """
        stages = self.manifest.get("stages")
        entry = stages.get(name) if isinstance(stages, dict) else None
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            return None
        path = Path(entry["path"])
        try:
            identity = json.loads((path / "identity.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return path if isinstance(identity, dict) and identity.get("key") == entry.get("key") else None


def camera_to_json(camera: CameraPath) -> dict[str, Any]:
    """Plain values of a camera path, without its points."""
    k = camera.intrinsics
    return {
        "kind": camera.kind.value,
        "intrinsics": [k.fx_px, k.fy_px, k.cx_px, k.cy_px, k.width_px, k.height_px],
        "world_from_cam": np.asarray(camera.world_from_cam).round(9).tolist(),
        "solved": camera.solved.tolist(),
        "reliability": np.asarray(camera.reliability, np.float64).round(4).tolist(),
        "inlier_fraction": camera.inlier_fraction,
        "triangulation_angle_degrees": camera.triangulation_angle_degrees,
        "reprojection_error_px": camera.reprojection_error_px,
        "reason": camera.reason,
    }


def camera_from_json(values: dict[str, Any]) -> CameraPath:
    """Inverse of ``camera_to_json``."""
    fx, fy, cx, cy, width, height = values["intrinsics"]
    return CameraPath(
        kind=MotionKind(values["kind"]),
        intrinsics=Intrinsics(fx, fy, cx, cy, int(width), int(height)),
        world_from_cam=np.array(values["world_from_cam"], np.float64).reshape(-1, 4, 4),
        solved=np.array(values["solved"], bool),
        reliability=np.array(values["reliability"], np.float32),
        inlier_fraction=values["inlier_fraction"],
        triangulation_angle_degrees=values["triangulation_angle_degrees"],
        reprojection_error_px=values["reprojection_error_px"],
        reason=values["reason"],
    )
