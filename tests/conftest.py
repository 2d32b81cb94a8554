"""Fixtures that every area shares."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

    from stf_depth.synthetic import SyntheticClip

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_folder() -> Path | None:
    """Folder with the measuring data, None where it is absent."""
    folder = Path(os.environ.get("STF_DEPTH_SHARED", REPOSITORY.parent / "shared"))
    return folder if (folder / "data").is_dir() else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``gpu`` need a CUDA device."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder holding ``data`` and ``models``; the test is skipped, and counted, without it. Mark such tests shared."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("the measuring data is absent (set STF_DEPTH_SHARED)")
    return folder


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def room_clip() -> SyntheticClip:
    """Twelve frames of the synthetic room, 96x64, with parallax."""
    from stf_depth.synthetic import render_clip, scene

    return render_clip(scene("room"), frames=12, wh=(96, 64))


@pytest.fixture(scope="session")
def room_video(room_clip: SyntheticClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``room_clip`` as an mp4 file."""
    from stf_depth.synthetic import write_video

    return write_video(room_clip, tmp_path_factory.mktemp("room") / "room.mp4")


@pytest.fixture(scope="session")
def room_sequence(room_clip: SyntheticClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``room_clip`` as a sequence folder: color, depth, poses, intrinsics."""
    from stf_depth.synthetic import write_sequence

    return write_sequence(room_clip, tmp_path_factory.mktemp("room") / "sequence")


def write_result(
    folder: Path,
    clip: SyntheticClip,
    source: Path,
    *,
    representation: str = "disparity",
    ambiguity: str = "metric",
    kind: str = "parallax",
    working: Path | None = None,
) -> Path:
    """Write a finished result folder of a clip's true depth; returns ``folder``.

    disparity is 1 / z, times 3 under ``scale`` and plus 0.5 under ``affine``; z_depth is z or 3 z. The sky is valid
    disparity 0 (before the offset), or invalid z_depth. working: where the cached per-frame depth goes.
    """
    import json

    import zarr

    from stf_depth.result import camera_to_json
    from stf_depth.types import CameraPath, MotionKind

    depth, valid = _depth_as(clip.depth, representation, ambiguity)
    group = zarr.open_group(folder / "depth.zarr", mode="w")
    confidence = np.full(depth.shape, 0.75, np.float32)
    with zarr.config.set({"array.write_empty_chunks": True}):
        for name, values in {"depth": depth, "valid": valid, "confidence": confidence}.items():
            array = group.create_array(name, shape=values.shape, chunks=(4, *values.shape[1:]), dtype=values.dtype)
            array[:] = values
        group.create_array("pts_seconds", data=np.asarray(clip.pts_seconds, np.float64))
    group.attrs.update({"representation": representation, "ambiguity": ambiguity})
    shots = []
    for shot in clip.shots:
        poses = clip.world_from_cam[shot.start : shot.stop]
        solved, trust = np.full(len(shot), kind == "parallax"), np.ones(len(shot), np.float32)
        camera = CameraPath(MotionKind(kind), clip.intrinsics, poses, solved, trust)
        shots.append({"start": shot.start, "stop": shot.stop, "ambiguity": ambiguity, "camera": camera_to_json(camera)})
    manifest = {
        "input": {"path": str(source), "name": clip.name, "frames": len(clip)},
        "config": {"video": {}},
        "models": {"depth": {"name": "truth", "licence": "none"}},
        "stages": _write_stages(working, clip, depth, valid, (representation, ambiguity)) if working else {},
        "shots": shots,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _depth_as(z: np.ndarray, representation: str, ambiguity: str) -> tuple[np.ndarray, np.ndarray]:
    factor = 1.0 if ambiguity == "metric" else 3.0
    if representation == "z_depth":
        valid = np.isfinite(z)
        return np.where(valid, z * factor, 0).astype(np.float32), valid
    offset = 0.5 if ambiguity == "affine" else 0.0
    return (factor / z + offset).astype(np.float32), np.ones(z.shape, bool)


def _write_stages(
    working: Path, clip: SyntheticClip, depth: np.ndarray, valid: np.ndarray, meaning: tuple[str, str]
) -> dict[str, dict[str, str]]:
    gain = 1 + 0.2 * (-1.0) ** np.arange(len(depth))  # a network that flickers
    flickering = (depth * gain[:, None, None]).astype(np.float32)
    table = {
        str(number): [info.name, int(info.role), info.is_thing, info.score] for number, info in clip.segments.items()
    }
    disparity = (1 / clip.depth).astype(np.float32)
    stages = {
        "depth": ({"depth": flickering[:, ::2, ::2], "valid": valid[:, ::2, ::2]}, list(meaning)),
        "panoptic": ({"ids": clip.labels, "roles": clip.roles}, table),
        "structure": ({"disparity": disparity, "confidence": np.full(depth.shape, 0.9, np.float32)}, None),
    }
    return {name: _write_stage(working / name, arrays, extra) for name, (arrays, extra) in stages.items()}


def _write_stage(folder: Path, arrays: dict[str, np.ndarray], extra: object) -> dict[str, str]:
    from stf_depth.cache.store import StageStore

    store = StageStore(folder, "test", chunk_frames=8)
    count = len(next(iter(arrays.values())))
    for chunk, start in enumerate(range(0, count, 8)):
        part = {name: values[start : start + 8] for name, values in arrays.items()}
        store.write(chunk, part, [extra] * min(8, count - start))
    store.finish(count)
    return {"key": "test", "path": str(folder)}


@pytest.fixture(scope="session")
def tiny_result(room_clip: SyntheticClip, room_video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished metric result folder of ``room_video`` with its cached per-frame depth."""
    folder = tmp_path_factory.mktemp("results")
    return write_result(folder / "room", room_clip, room_video, working=folder / "working")


@pytest.fixture(scope="session")
def make_result(
    room_clip: SyntheticClip, room_video: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """``write_result`` in a new folder: ``make_result(clip, source, ambiguity=...)``, of the room when left out."""

    def make(clip: SyntheticClip = room_clip, source: Path = room_video, **how: str) -> Path:
        folder = tmp_path_factory.mktemp("results")
        return write_result(folder / "room", clip, source, working=folder / "working", **how)

    return make


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; the test is skipped, and counted, without it."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        yield playwright.chromium.launch(executable_path=executable, args=arguments)
