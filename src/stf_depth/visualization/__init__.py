"""Images of depth and segments that people look at: colour maps, steady ranges, overlays and panels."""

from __future__ import annotations

from stf_depth.visualization.colormaps import COLORMAPS, INVALID_RGB, colorize
from stf_depth.visualization.images import write_depth_image, write_rgb_image, write_segment_image
from stf_depth.visualization.panels import comparison_panel, segment_overlay, xt_slice
from stf_depth.visualization.range import DisplayRange, RangeSketch, shot_range

__all__ = [
    "COLORMAPS",
    "INVALID_RGB",
    "DisplayRange",
    "RangeSketch",
    "colorize",
    "comparison_panel",
    "segment_overlay",
    "shot_range",
    "write_depth_image",
    "write_rgb_image",
    "write_segment_image",
    "xt_slice",
]
