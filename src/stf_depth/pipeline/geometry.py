"""Second pass, first half: the camera of each shot, and the depth that its motion triangulates."""

from __future__ import annotations

import signal
import threading
import zipfile
import zlib
from itertools import islice
from pathlib import Path

from stf_depth.cache.files import atomic_path
from stf_depth.cache.sequential import SequentialWriter
from stf_depth.cache.store import StageStore
from stf_depth.config import GeometryConfig
from stf_depth.geometry.camera import solve_camera
from stf_depth.geometry.camera_solve import load_solve, save_solve
from stf_depth.geometry.fallback import depth_from_motion
from stf_depth.pipeline.background import WAITING_CHUNKS, Background
from stf_depth.pipeline.perceive import Perceived
from stf_depth.pipeline.plan import CHUNK_FRAMES, VideoPlan
from stf_depth.pipeline.progress import Reporter
from stf_depth.pipeline.views import CountedFrames, ShotFrames
from stf_depth.pipeline.windows import cut_windows
from stf_depth.types import CameraPath, Frames

__all__ = ["build_structure", "fill_structure", "solve_cameras"]


def _take_back_termination() -> None:
    """Undo that loading COLMAP's library makes SIGTERM print a stack trace; only the main thread may."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


_take_back_termination()


def solve_cameras(
    plan: VideoPlan, name: str, perceived: Perceived, rgb: Frames, roles: Frames | None, reporter: Reporter
) -> list[CameraPath]:
    """Camera path of every shot; the whole solves are cached, one file a shot."""
    config = _at_working_size(plan.config.geometry, perceived.size_wh[0], rgb.shape[2])
    files = [_solve_file(plan, number) for number in range(len(perceived.shots))]
    cached = [_cached_path(file) for file in files]
    paths = [path for path in cached if path is not None]
    if len(paths) == len(files):
        return paths
    reporter.stage(name, "camera", perceived.frame_count)
    paths = []
    for shot, file, path in zip(perceived.shots, files, cached, strict=True):
        if path is None:
            masks = None if roles is None else ShotFrames(roles, shot)
            frames = CountedFrames(ShotFrames(rgb, shot), reporter.advance)
            solve = solve_camera(frames, roles=masks, config=config)
            with atomic_path(file) as partial:
                save_solve(partial, solve)
        else:
            reporter.advance(len(shot))
        paths.append(path or solve.path)
    return paths


def _solve_file(plan: VideoPlan, shot_number: int) -> Path:
    return plan.stage_folder("camera") / f"shot_{shot_number:04d}.npz"


def _at_working_size(config: GeometryConfig, source_width_px: int, working_width_px: int) -> GeometryConfig:
    """The user's focal length is in pixels of the source; the camera is solved on smaller frames."""
    if config.focal_px is None:
        return config
    return config.model_copy(update={"focal_px": config.focal_px * working_width_px / source_width_px})


def _cached_path(file: Path) -> CameraPath | None:
    """The path of a cached solve, all of which was read; None where it is absent or damaged and to be made again."""
    try:
        return load_solve(file).path
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def build_structure(
    plan: VideoPlan,
    name: str,
    perceived: Perceived,
    rgb: Frames,
    roles: Frames | None,
    reporter: Reporter,
) -> StageStore:
    """Triangulated disparity, or its labelled stand-in, and confidence for every frame, cached in chunks.

    The cameras must have been solved.
    """
    store = plan.store("structure")
    if store.is_complete:
        return store
    reporter.stage(name, "structure", perceived.frame_count)
    chunks = range(-(-perceived.frame_count // CHUNK_FRAMES))
    gaps = cut_windows([chunk for chunk in chunks if not store.has(chunk)], 1)
    stretches = [(first * CHUNK_FRAMES, min(stop * CHUNK_FRAMES, perceived.frame_count)) for first, stop in gaps]
    reporter.advance(perceived.frame_count - sum(stop - first for first, stop in stretches))
    for first, stop in stretches:
        fill_structure(store, plan, perceived, rgb, roles, reporter, first=first, stop=stop)
    store.finish(perceived.frame_count)
    return store


def fill_structure(
    store: StageStore,
    plan: VideoPlan,
    perceived: Perceived,
    rgb: Frames,
    roles: Frames | None,
    reporter: Reporter,
    *,
    first: int,
    stop: int,
) -> None:
    """The part of ``build_structure`` from frame ``first``, where a chunk begins, to ``stop``, where one ends."""
    with Background(WAITING_CHUNKS) as background:
        writer = SequentialWriter(store, stop, background.submit, first=first)
        reporter.advance(writer.position - first)
        for number, shot in enumerate(perceived.shots):
            if shot.stop <= writer.position or shot.start >= stop:
                continue
            solve = load_solve(_solve_file(plan, number))
            masks = None if roles is None else ShotFrames(roles, shot)
            start, frames = writer.position - shot.start, ShotFrames(rgb, shot)
            maps = depth_from_motion(frames, solve, config=plan.config.geometry, roles=masks, start=start)
            for disparity, confidence in islice(maps, min(stop, shot.stop) - writer.position):
                writer.append({"disparity": disparity, "confidence": confidence})
                reporter.advance(len(disparity))
