"""Between the input's disparity and log disparity, for each ambiguity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stf_depth.types import Ambiguity

__all__ = ["LogMap"]


@dataclass(frozen=True)
class LogMap:
    """u = log(max(p - offset, floor)) and back.

    offset is 0 where disparity 0 means infinity (scale, metric), the offset found from the structure, or a value
    below the shot's smallest disparity where nothing better is known.
    """

    offset: float
    floor: float
    ambiguity: Ambiguity

    def to_log(self, disparity: Tensor) -> Tensor:
        """u of disparity, any shape."""
        return torch.log(torch.clamp(disparity - self.offset, min=self.floor))

    def from_log(self, log_disparity: Tensor) -> Tensor:
        """Inverse of ``to_log``; the offset stays out where the ambiguity says that it is zero."""
        disparity = torch.exp(log_disparity)
        return disparity + self.offset if self.ambiguity is Ambiguity.AFFINE else disparity

    def corrected(self, disparity: Tensor, correction: Tensor) -> Tensor:
        """from_log(to_log(p) + c) without the floor where the output has the input's zero: (p - offset) e^c + offset.

        A correction of 0 gives the input itself, and what is farther than the floor stays so. Any shape.
        """
        if self.offset and self.ambiguity is not Ambiguity.AFFINE:
            return self.from_log(self.to_log(disparity) + correction)
        changed = (disparity - self.offset) * torch.exp(correction) + self.offset
        return torch.where(correction == 0, disparity, changed)
