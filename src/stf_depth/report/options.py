"""What a report looks like and how large it may become."""

from __future__ import annotations

from pydantic import Field

from stf_depth.config import FrozenConfig

__all__ = ["ReportOptions"]


class ReportOptions(FrozenConfig):
    """colormap: one of ``stf_depth.visualization.COLORMAPS``.

    max_frames, long_side_px: the pictures of the viewer, fewer and smaller where ``max_megabytes``, the limit of all
    pictures together, asks for it. slice_frames: consecutive frames in the space-time slices. max_pairs: neighbour
    pairs in the plots.
    """

    colormap: str = "inferno"
    max_frames: int = Field(60, ge=1, le=600)
    long_side_px: int = Field(480, ge=64, le=1920)
    max_megabytes: float = Field(10.0, gt=0.5)
    slice_frames: int = Field(240, ge=2, le=2000)
    max_pairs: int = Field(60, ge=1, le=1000)
