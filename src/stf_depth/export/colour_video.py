"""``depth.mp4``: colour-mapped depth with the times and the sound of its source."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from stf_depth.config import FrozenConfig
from stf_depth.export.reading import depth_chunks, frame_rate, spans
from stf_depth.export.source import audio_source
from stf_depth.result import DepthResult
from stf_depth.video.writer import VideoWriter
from stf_depth.visualization.colormaps import colorize
from stf_depth.visualization.range import shot_range

__all__ = ["Options", "export"]


class Options(FrozenConfig):
    """colormap: one of ``stf_depth.visualization.COLORMAPS``. range_over: what shares one colour range.

    audio: copy the source's sound. encoding: see ``stf_depth.video.writer.ENCODINGS``.
    """

    colormap: str = "inferno"
    range_over: Literal["clip", "shot"] = "shot"
    audio: bool = True
    encoding: Literal["h264", "h265"] = "h264"


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write depth in colour, near bright; unknown pixels are slate grey and do not take part in the range."""
    _, height, width = result.depth.shape
    audio = audio_source(result) if options.audio else None
    rate = frame_rate(result.pts_seconds)
    with VideoWriter(
        target, wh=(width, height), frame_rate=rate, encoding=options.encoding, audio_from=audio
    ) as writer:
        for span in spans(result, options.range_over):
            shown = shot_range(result.depth, result.valid, span, result.representation, result.ambiguity)
            for start, maps in depth_chunks(result, span):
                rgb = colorize(shown.nearness(maps.depth), maps.valid, options.colormap)
                writer.write(rgb, np.asarray(result.pts_seconds[start : start + len(maps)]))
    return [target]
