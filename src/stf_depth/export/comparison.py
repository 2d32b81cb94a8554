"""``comparison.mp4``: the frame, the network's depth of that frame alone, and the fused depth, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.export.reading import frame_rate, spans
from stf_depth.export.source import StageDepth, audio_source, per_frame_depth, rgb_frames
from stf_depth.result import DepthResult
from stf_depth.types import BoolArray, Float32Array, Frames, Shot, Uint8Array
from stf_depth.video.writer import VideoWriter
from stf_depth.visualization.colormaps import colorize
from stf_depth.visualization.panels import comparison_panel
from stf_depth.visualization.range import DisplayRange, shot_range

__all__ = ["Options", "export"]


class Options(FrozenConfig):
    """panel_width_px: largest width of one panel. colormap, audio: as for ``depth.mp4``."""

    panel_width_px: int = Field(640, ge=64)
    colormap: str = "inferno"
    audio: bool = True
    encoding: Literal["h264", "h265"] = "h264"


@dataclass(frozen=True)
class _Panel:
    """A titled depth stack and the range of each shot."""

    title: str
    depth: Frames
    valid: Frames
    ranges: tuple[tuple[Shot, DisplayRange], ...]

    def image(self, index: int, wh: tuple[int, int], colormap: str) -> Uint8Array:
        shown = next(shown for shot, shown in self.ranges if shot.start <= index < shot.stop)
        depth, valid = _resized(np.asarray(self.depth[index]), np.asarray(self.valid[index]), wh)
        return colorize(shown.nearness(depth), valid, colormap)


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write RGB | per frame | fused; the middle panel is left out where the per-frame depth is no longer cached.

    Each depth panel has one range a shot, from its own values: the per-frame panel flickers as its network does.
    Raises InputNotFoundError when the source is gone.
    """
    panels = list(_panels(result))
    wh = _panel_size(result, options.panel_width_px)
    audio = audio_source(result) if options.audio else None
    frames = rgb_frames(result, wh=wh)
    size = _blank_size(len(panels) + 1, wh)
    rate = frame_rate(result.pts_seconds)
    with VideoWriter(target, wh=size, frame_rate=rate, encoding=options.encoding, audio_from=audio) as writer:
        for index, rgb in frames:
            shown = [(panel.title, panel.image(index, wh, options.colormap)) for panel in panels]
            image = comparison_panel([("RGB", rgb), *shown])
            writer.write(image[None], np.asarray(result.pts_seconds[index : index + 1]))
    return [target]


def _panels(result: DepthResult) -> Iterator[_Panel]:
    stage = per_frame_depth(result)
    if stage is not None:
        yield _panel("per frame", stage, result)
    fused = StageDepth(result.depth, result.valid, result.representation, result.ambiguity)
    yield _panel("fused", fused, result)


def _panel(title: str, stage: StageDepth, result: DepthResult) -> _Panel:
    def range_of(shot: Shot) -> DisplayRange:
        return shot_range(stage.depth, stage.valid, shot, stage.representation, stage.ambiguity)

    return _Panel(title, stage.depth, stage.valid, tuple((shot, range_of(shot)) for shot in spans(result, "shot")))


def _panel_size(result: DepthResult, limit_px: int) -> tuple[int, int]:
    _, height, width = result.depth.shape
    scale = min(1.0, limit_px / width)
    return max(2, round(width * scale)), max(2, round(height * scale))


def _blank_size(count: int, wh: tuple[int, int]) -> tuple[int, int]:
    blank = comparison_panel([("", np.zeros((wh[1], wh[0], 3), np.uint8))] * count)
    return blank.shape[1], blank.shape[0]


def _resized(depth: Float32Array, valid: BoolArray, wh: tuple[int, int]) -> tuple[Float32Array, BoolArray]:
    if (depth.shape[1], depth.shape[0]) == wh:
        return depth, valid
    mask = cv2.resize(valid.astype(np.uint8), wh, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    known = np.where(valid, depth, np.float32(0))
    return np.asarray(cv2.resize(known, wh, interpolation=cv2.INTER_LINEAR), np.float32), mask
