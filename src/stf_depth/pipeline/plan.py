"""Which stages a video goes through, under which cache keys, in which folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stf_depth.cache.files import output_errors, remove_tree, write_json
from stf_depth.cache.keys import stage_key
from stf_depth.cache.lock import LOCK
from stf_depth.cache.store import StageStore
from stf_depth.config import RunConfig
from stf_depth.errors import ConfigError
from stf_depth.perception.base import BackendInfo, DepthFromGeometry
from stf_depth.perception.specs import parse_spec
from stf_depth.pipeline.backends import Backends
from stf_depth.result import DEPTH_STORE, MANIFEST, PROGRESS
from stf_depth.video.container import MAX_FRAME_PIXELS

__all__ = ["CHUNK_FRAMES", "PROGRESS", "VideoFolders", "VideoPlan"]

CHUNK_FRAMES = 16

# Raised when the output of a stage changes for the same configuration.
_VERSIONS = {
    "frames": 1,
    "shots": 2,
    "depth": 1,
    "semantic": 1,
    "panoptic": 1,
    "camera": 9,
    "structure": 4,
    "fusion": 15,
}


_STAGE = re.compile(rf"({'|'.join(_VERSIONS)})-[0-9a-f]{{16}}(\.json)?")
_WINDOW = "[0-9]" * 8


@dataclass(frozen=True)
class VideoFolders:
    """Where one video's cache, images and results lie.

    The folders may be shared with others: only what a run has written is a stage or a window, and is cleared.
    """

    working: Path
    output: Path

    @property
    def cache(self) -> Path:
        """Stages, one folder for each stage and key."""
        return self.working / "cache"

    @property
    def windows(self) -> Path:
        """Parts of the video that are worked on apart, one folder for each; gone once they are brought together."""
        return self.working / "windows"

    def stages(self) -> list[Path]:
        """What runs have cached: the folder of each stage and key, and files of facts."""
        return sorted(path for path in self.cache.iterdir() if _is_stage(path)) if self.cache.is_dir() else []

    def window_folders(self) -> list[Path]:
        """The parts that there are, in order."""
        return sorted(path for path in self.windows.glob(_WINDOW) if path.is_dir())

    def clear_windows(self) -> None:
        """Remove the parts. Raises OutputError."""
        for folder in self.window_folders():
            VideoFolders(folder, folder).clear_cache()
            with output_errors(folder):
                if {path.name for path in folder.iterdir()} <= {LOCK}:
                    remove_tree(folder)
        _remove_empty(self.windows)

    def clear_cache(self) -> None:
        """Remove the stages and the parts. Raises OutputError."""
        for stage in self.stages():
            if stage.is_dir():
                remove_tree(stage)
            else:
                stage.unlink()
        _remove_empty(self.cache)
        self.clear_windows()

    @property
    def depth_store(self) -> Path:
        """The fused depth."""
        return self.output / DEPTH_STORE

    @property
    def manifest(self) -> Path:
        """Written last: its presence says that the result is whole."""
        return self.output / MANIFEST

    @property
    def inference_pickle(self) -> Path:
        """Inference cache of the original interface."""
        return self.working / "infer_result.pkl"

    @property
    def inference_record(self) -> Path:
        """What the inference cache was made from, and its size: whether it is current and whole."""
        return self.working / "infer_result.json"

    @property
    def images_record(self) -> Path:
        """What the images were made from, and their sizes; where it lies, the folders of images are a run's own."""
        return self.working / "images.json"


def _is_stage(path: Path) -> bool:
    name = _STAGE.fullmatch(path.name)
    if name is None or name[1] in ("shots", "camera"):  # these have no identity
        return name is not None
    return (path / "identity.json").is_file()


def _remove_empty(folder: Path) -> None:
    with output_errors(folder):
        if folder.is_dir() and not any(folder.iterdir()):
            remove_tree(folder)


@dataclass(frozen=True)
class VideoPlan:
    """The stages of one video and their keys."""

    input_digest: str
    config: RunConfig
    backends: Backends
    folders: VideoFolders

    @property
    def depth_from_geometry(self) -> bool:
        """Whether depth is triangulated instead of inferred."""
        return isinstance(self.backends.depth, DepthFromGeometry)

    @property
    def uses_geometry(self) -> bool:
        """Whether the camera is solved: for depth from motion, and for fusing along poses."""
        return self.depth_from_geometry or (self.config.fusion.mode == "full" and self.config.geometry.enabled)

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """Stage name -> cache key, for the stages that this video goes through, in order."""
        video = self.config.video.model_dump()
        cuts = {name: video.pop(name) for name in ("cut_threshold", "min_shot_frames")}
        del video["output_wh"], video["output_long_side_px"]
        keys = {"frames": self._key("frames", video)}
        keys["shots"] = self._key("shots", cuts, keys["frames"])
        # Networks see the decoded frames at source size, so the working size does not concern them.
        range_only = {name: video[name] for name in ("start_seconds", "end_seconds", "max_frames")}
        for task, info in self.backends.infos().items():
            if task != "flow" and not (task == "depth" and self.depth_from_geometry):
                keys[task] = self._network_key(task, info, range_only)
        if self.uses_geometry:
            seen = [keys[name] for name in ("frames", "shots", "semantic", "panoptic") if name in keys]
            keys["camera"] = self._key("camera", self.config.geometry.model_dump(), *seen)
            keys["structure"] = self._key("structure", self.config.geometry.model_dump(), keys["camera"])
        return keys | {"fusion": self._fusion_key(list(keys.values()))}

    @property
    def reading(self) -> dict[str, Any]:
        """Options of ``open_video`` for the frames that are processed."""
        return self.config.video.model_dump(include={"start_seconds", "end_seconds", "max_frames", "allow_gaps"})

    def output_wh(self, source_wh: tuple[int, int]) -> tuple[int, int]:
        """Size of the result for a source of this size; raises ConfigError for more pixels than a source may have."""
        video = self.config.video
        width, height = source_wh
        if video.output_wh is not None:
            width, height = video.output_wh
        elif video.output_long_side_px is not None:
            scale = video.output_long_side_px / max(source_wh)
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
        if width * height > MAX_FRAME_PIXELS:
            limit = f"at most {MAX_FRAME_PIXELS} pixels a frame"
            raise ConfigError("the output is too large", expected=limit, got=f"{width}x{height}", hint="Lower --size")
        return width, height

    def _key(self, stage: str, config: Mapping[str, Any], *upstream: str, weights: str = "") -> str:
        return stage_key(
            stage,
            version=_VERSIONS[stage],
            input_digest=self.input_digest,
            config=config,
            weights_digest=weights,
            upstream=upstream,
        )

    def _network_key(self, task: str, info: BackendInfo, frame_range: Mapping[str, Any]) -> str:
        config = {**frame_range, **self._network(task, info)}
        return self._key(task, config, weights=info.weights_digest)

    def _network(self, task: str, info: BackendInfo) -> dict[str, Any]:
        """What decides a network's output, its weights apart.

        Where weights and maps lie does not count: their digest says what they are.
        """
        spec = parse_spec(getattr(self.config, task))
        return {
            "backend": spec.target if spec.kind == "name" else spec.kind,
            "options": dict(info.options),
            "precision": self.config.precision,
            "version": info.version,
            "representation": info.representation,
            "ambiguity": info.ambiguity,
        }

    def _fusion_key(self, upstream: list[str]) -> str:
        flow = self.backends.flow.info
        config = {
            "fusion": self.config.fusion.model_dump(),
            "alignment": self.config.alignment.model_dump(),
            "output": [self.config.video.output_wh, self.config.video.output_long_side_px],
            "flow": self._network("flow", flow),
        }
        return self._key("fusion", config, *upstream, weights=flow.weights_digest)

    def store(self, stage: str, chunk_frames: int = CHUNK_FRAMES) -> StageStore:
        """The cache of a stage under its key."""
        return StageStore(self.stage_folder(stage), self.keys[stage], chunk_frames=chunk_frames)

    def stage_folder(self, stage: str) -> Path:
        """Folder of a stage under its key."""
        return self.folders.cache / f"{stage}-{self.keys[stage][:16]}"

    def discard(self) -> None:
        """Forget everything that is cached for this video."""
        self.folders.clear_cache()
        remove_tree(self.folders.output / PROGRESS)
        for file in (self.folders.manifest, self.folders.inference_pickle, self.folders.inference_record):
            file.unlink(missing_ok=True)
        if self.folders.images_record.exists():
            write_json(self.folders.images_record, {})
