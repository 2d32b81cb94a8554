"""Network depth bent to triangulated depth where that is sure, and blended with it by confidence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stf_depth.config import FusionConfig
from stf_depth.fusion.resampling import resize

__all__ = ["belief", "bend_to_structure", "blend_structure", "contradiction_gap"]


def belief(gap: Tensor, contradiction: float) -> Tensor:
    """1 / (1 + (r / contradiction)^8), r the gap of log disparity between structure and network.

    What moves along the camera's own direction fits the epipolar geometry at a wrong depth: a car ahead is triangulated
    at infinity, an oncoming one at half its distance.
    """
    return 1 / (1 + (gap / contradiction) ** 8)


def contradiction_gap(
    log_disparity: Tensor, valid: Tensor, structure: Tensor, confidence: Tensor, config: FusionConfig
) -> Tensor:
    """What the structure says the network lacks beyond a smooth field, for ``belief``; all (1, 1, h, w).

    A network is wrong by fields, over a good part of the picture; what moves is a place of its own.
    """
    trust, cells = confidence**config.structure_sharpness, config.contradiction_cells
    spread, damping = config.structure_spread, config.structure_damping
    bent = bend_to_structure(log_disparity, valid, structure, trust, spread=spread, cells=cells, damping=damping)
    return structure - bent


def bend_to_structure(
    log_disparity: Tensor,
    valid: Tensor,
    structure: Tensor,
    trust: Tensor,
    *,
    spread: float,
    cells: Sequence[int],
    damping: float,
) -> Tensor:
    """u + R, R the smooth field of what the structure says the network lacks, coarse to fine.

    At each scale R grows by G(w r) / (G(w) + e), r = structure - u - R, G the mean over a cell of the scale, w the
    trust divided by 1 + (r / spread)^2, e the damping. Where no structure is near, e holds the finer scales at zero and
    R is that of the coarse ones. All (1, 1, h, w), log disparity. cells: how many along the long side, scale by scale.
    """
    field = torch.zeros_like(log_disparity)
    weight = trust * valid
    for count in cells:
        left = structure - log_disparity - field
        robust = weight / (1 + (left / spread) ** 2)
        size = _cell_size(log_disparity, count)
        mass = resize(robust, size)
        mean = resize(robust * left, size) / (mass + damping)
        field = field + torch.nn.functional.interpolate(
            _smooth(mean), size=log_disparity.shape[-2:], mode="bilinear", align_corners=False
        )
    return log_disparity + field


def _cell_size(like: Tensor, cells: int) -> tuple[int, int]:
    height, width = like.shape[-2:]
    side = max(height, width) / cells
    return max(1, round(height / side)), max(1, round(width / side))


def _smooth(values: Tensor) -> Tensor:
    """Binomial 3x3, border replicated."""
    padded = torch.nn.functional.pad(values, (1, 1, 1, 1), mode="replicate")
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16


def blend_structure(
    network: Tensor, valid: Tensor, structure: Tensor, trust: Tensor, network_trust: float
) -> tuple[Tensor, Tensor]:
    """(n u + c q) / (n + c) and its weight n + c; the network's share n is 0 where it is invalid."""
    share = network_trust * valid
    weight = share + trust
    blended = (share * network + trust * structure) / weight.clamp(min=1e-6)
    return torch.where(weight > 1e-6, blended, network), weight
