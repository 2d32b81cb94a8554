"""A pipeline with a network whose every call is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from stf_depth.config import RunConfig, preset
from stf_depth.perception.base import BackendInfo, DepthFromGeometry, FlowBackend, Licence, SegmentBackend
from stf_depth.perception.registry import create
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.plan import VideoFolders
from stf_depth.pipeline.process import Delivery, Outcome, process_video
from stf_depth.pipeline.progress import Reporter, SilentReporter
from stf_depth.types import Ambiguity, DepthMaps, Representation, Role, SegmentInfo, SegmentMaps, Uint8Array
from stf_depth.video.discover import discover

LICENCE = Licence("none", True)


@dataclass
class CountedDepth:
    """Disparity = brightness at half size; remembers how many frames it saw."""

    digest: str = "1"
    frames: int = 0

    @property
    def info(self) -> BackendInfo:
        return BackendInfo("counted", "depth", LICENCE, "", self.digest, 0, Representation.DISPARITY, Ambiguity.AFFINE)

    def infer(self, rgb: Uint8Array) -> DepthMaps:
        self.frames += len(rgb)
        return DepthMaps.of(rgb[:, ::2, ::2].mean(axis=-1) / 255 + 0.1, "disparity", "affine")


@dataclass
class CountedSegments:
    """Two halves, the upper one sky; remembers how many frames it saw."""

    frames: int = 0
    info: BackendInfo = field(default=BackendInfo("halves", "semantic", LICENCE, weights_digest="1"))

    def infer(self, rgb: Uint8Array) -> SegmentMaps:
        self.frames += len(rgb)
        ids = np.ones(rgb.shape[:3], np.int32)
        ids[:, ids.shape[1] // 2 :] = 2
        table = {1: SegmentInfo("sky", Role.SKY), 2: SegmentInfo("road", Role.GROUND)}
        return SegmentMaps(ids, (table,) * len(rgb))


@dataclass
class Bench:
    """Runs one video through the pipeline under a temporary folder."""

    root: Path
    depth: CountedDepth | DepthFromGeometry = field(default_factory=CountedDepth)
    semantic: SegmentBackend | None = field(default_factory=CountedSegments)
    delivery: Delivery = Delivery(visualize=False, standard=False)  # noqa: RUF009
    reporter: Reporter = field(default_factory=SilentReporter)

    def config(self, **options: object) -> RunConfig:
        """A quick configuration: no camera solve unless asked for."""
        quick = {"geometry.enabled": False, "video.working_long_side_px": 96}
        return preset("offline").with_values({**quick, **options})

    def run(self, video: Path, name: str = "a", **options: object) -> Outcome:
        """Process ``video`` into ``root/name``."""
        flow: FlowBackend | None = create("flow", "dis")
        if flow is None:
            raise RuntimeError("no flow backend")
        backends = Backends(self.depth, self.semantic, None, flow)
        folders = VideoFolders(self.root / name / "working", self.root / name / "output")
        config = self.config(**options)
        return process_video(discover([video])[0], config, backends, folders, self.delivery, self.reporter)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def data_files() -> Callable[[Path], dict[str, bytes]]:
    """Content of every file of a depth store, by relative path."""

    def read(output: Path) -> dict[str, bytes]:
        store = output / "depth.zarr"
        return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}

    return read


@pytest.fixture(scope="session")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty frames of two shots, 96x64, as a video."""
    from stf_depth.synthetic import render_clip, scene, write_video

    clip = render_clip(scene("two_shots"), frames=40, wh=(96, 64))
    return write_video(clip, tmp_path_factory.mktemp("long") / "two shots.mp4")
