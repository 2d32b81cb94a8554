"""Images of a run under the working folder: frames, depth, segment, segment_detail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stf_depth.cache.files import output_errors, read_json, remove_tree, write_json
from stf_depth.cache.store import StageStore
from stf_depth.errors import OutputError
from stf_depth.export.stages import segment_table
from stf_depth.pipeline.perceive import Perceived
from stf_depth.pipeline.plan import VideoFolders, VideoPlan
from stf_depth.pipeline.progress import Reporter
from stf_depth.result import DepthResult
from stf_depth.types import Frames
from stf_depth.video.prefetch import prefetched
from stf_depth.video.reader import VideoReader
from stf_depth.visualization import shot_range, write_depth_image, write_rgb_image, write_segment_image

__all__ = ["IMAGE_FOLDERS", "refuse_foreign_images", "write_images"]

IMAGE_FOLDERS = ("frames", "depth", "segment", "segment_detail")


def refuse_foreign_images(folders: VideoFolders, source: Path) -> None:
    """Raise OutputError where images would replace what no run has written, or the input of this one.

    The record of the images says that the folders are a run's own.
    """
    source = source.resolve()
    for folder in (folders.working / name for name in IMAGE_FOLDERS):
        if source.is_relative_to(folder.resolve()):
            what, hint = "the images would replace the input", "Choose another --working-dir, or --no-visualize"
            raise OutputError(what, where=folder, got=source, hint=hint)
        if not folders.images_record.exists() and folder.exists() and not _is_empty(folder):
            what = "the images would replace a folder that no run has written"
            hint = "Choose another --working-dir, move the folder away, or use --no-visualize"
            raise OutputError(what, where=folder, hint=hint)


def _is_empty(folder: Path) -> bool:
    with output_errors(folder):
        return folder.is_dir() and not any(folder.iterdir())


def write_images(
    plan: VideoPlan,
    name: str,
    perceived: Perceived,
    result: DepthResult,
    open_reader: Callable[[], VideoReader],
    reporter: Reporter,
) -> bool:
    """Write one image a frame into each folder; says whether there was anything to do.

    ``segment`` shows the semantic classes and ``segment_detail`` the panoptic segments; where only one kind was
    asked for, both show it. The folders are replaced: see ``refuse_foreign_images``.
    """
    record = plan.folders.images_record
    wanted = {"key": plan.keys["fusion"], "frames": perceived.frame_count}
    if read_json(record) == {**wanted, "files": _sizes(plan)}:
        return False
    # The record stays while the images are written: it says whose they are.
    write_json(record, {})
    for folder in IMAGE_FOLDERS:
        remove_tree(plan.folders.working / folder)
        with output_errors(plan.folders.working):
            (plan.folders.working / folder).mkdir(parents=True)
    reporter.stage(name, "images", perceived.frame_count)
    segments = _segment_sources(plan)
    for index, rgb in enumerate(_frames(open_reader)):
        write_rgb_image(plan.folders.working / "frames", index, rgb)
        for folder, (store, ids) in segments.items():
            table = segment_table(store.extra(index // store.chunk_frames)[index % store.chunk_frames])
            write_segment_image(plan.folders.working / folder, index, rgb, np.asarray(ids[index]), table)
        reporter.advance(1)
    _write_depth(plan, result)
    write_json(record, {**wanted, "files": _sizes(plan)})
    return True


def _sizes(plan: VideoPlan) -> dict[str, list[int]]:
    """Folder -> number and bytes of its images, which change when one is lost or cut short."""
    folders = {name: plan.folders.working / name for name in IMAGE_FOLDERS}
    sizes = {name: [file.stat().st_size for file in folder.glob("*.*")] for name, folder in folders.items()}
    return {name: [len(of), sum(of)] for name, of in sizes.items()}


def _frames(open_reader: Callable[[], VideoReader]) -> Iterator[Any]:
    with open_reader() as reader:
        for batch in prefetched(reader.batches(1), 4):
            yield batch.rgb[0]


def _segment_sources(plan: VideoPlan) -> dict[str, tuple[StageStore, Frames]]:
    """Image folder -> the segmentation that it shows."""
    wishes = {"segment": ("semantic", "panoptic"), "segment_detail": ("panoptic", "semantic")}
    stores = {task: plan.store(task) for task in ("semantic", "panoptic") if task in plan.keys}
    picks = {folder: next((stores[task] for task in tasks if task in stores), None) for folder, tasks in wishes.items()}
    return {folder: (store, store.frames("ids")) for folder, store in picks.items() if store is not None}


def _write_depth(plan: VideoPlan, result: DepthResult) -> None:
    depth, valid = result.depth, result.valid
    for shot in result.shots:
        shown = shot_range(depth, valid, shot, result.representation, result.ambiguity)
        for index in range(shot.start, shot.stop):
            write_depth_image(plan.folders.working / "depth", index, depth[index], valid[index], shown)
