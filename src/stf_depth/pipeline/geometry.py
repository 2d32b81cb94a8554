"""Second pass, first half: the camera of each shot, and the depth that its motion triangulates."""

from __future__ import annotations

import signal
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np

from stf_depth.cache.files import atomic_path
from stf_depth.cache.sequential import SequentialWriter
from stf_depth.cache.store import StageStore
from stf_depth.config import GeometryConfig
from stf_depth.geometry.fallback import depth_from_motion
from stf_depth.geometry.solve import CameraSolve, solve_camera
from stf_depth.pipeline.background import WAITING_CHUNKS, Background
from stf_depth.pipeline.perceive import Perceived
from stf_depth.pipeline.plan import VideoPlan
from stf_depth.pipeline.progress import Reporter
from stf_depth.pipeline.views import ShotFrames
from stf_depth.types import Frames

__all__ = ["build_structure", "solve_cameras"]


def _take_back_termination() -> None:
    """Undo that loading COLMAP's library makes SIGTERM print a stack trace; only the main thread may."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


_take_back_termination()


def solve_cameras(
    plan: VideoPlan, name: str, perceived: Perceived, rgb: Frames, roles: Frames | None, reporter: Reporter
) -> list[CameraSolve]:
    """Camera path and tracks of every shot, cached one file a shot."""
    folder = plan.stage_folder("camera")
    config = _at_working_size(plan.config.geometry, perceived.size_wh[0], rgb.shape[2])
    paths = [folder / f"shot_{number:04d}.npz" for number in range(len(perceived.shots))]
    cached = [_cached_solve(path) for path in paths]
    solves = [solve for solve in cached if solve is not None]
    if len(solves) == len(paths):
        return solves
    reporter.stage(name, "camera", perceived.frame_count)
    solves = []
    for shot, path, solve in zip(perceived.shots, paths, cached, strict=True):
        if solve is None:
            masks = None if roles is None else ShotFrames(roles, shot)
            solve = solve_camera(ShotFrames(rgb, shot), roles=masks, config=config)
            with atomic_path(path) as partial, partial.open("wb") as file:
                np.savez(file, **solve.to_arrays())  # type: ignore[arg-type]
        solves.append(solve)
        reporter.advance(len(shot))
    return solves


def _at_working_size(config: GeometryConfig, source_width_px: int, working_width_px: int) -> GeometryConfig:
    """The user's focal length is in pixels of the source; the camera is solved on smaller frames."""
    if config.focal_px is None:
        return config
    return config.model_copy(update={"focal_px": config.focal_px * working_width_px / source_width_px})


def _cached_solve(path: Path) -> CameraSolve | None:
    try:
        with np.load(path, allow_pickle=False) as content:
            return CameraSolve.from_arrays({key: content[key] for key in content.files})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # absent or unreadable: solved again


def build_structure(
    plan: VideoPlan,
    name: str,
    perceived: Perceived,
    rgb: Frames,
    roles: Frames | None,
    solves: list[CameraSolve],
    reporter: Reporter,
) -> StageStore:
    """Triangulated disparity, or its labelled stand-in, and confidence for every frame, cached in chunks."""
    store = plan.store("structure")
    if store.is_complete:
        return store
    reporter.stage(name, "structure", perceived.frame_count)
    with Background(WAITING_CHUNKS) as background:
        writer = SequentialWriter(store, perceived.frame_count, background.submit)
        reporter.advance(writer.position)
        for shot, solve in zip(perceived.shots, solves, strict=True):
            if shot.stop <= writer.position:
                continue
            masks = None if roles is None else ShotFrames(roles, shot)
            start, frames = writer.position - shot.start, ShotFrames(rgb, shot)
            maps = depth_from_motion(frames, solve, config=plan.config.geometry, roles=masks, start=start)
            for disparity, confidence in maps:
                writer.append({"disparity": disparity, "confidence": confidence})
                reporter.advance(len(disparity))
    store.finish(perceived.frame_count)
    return store
