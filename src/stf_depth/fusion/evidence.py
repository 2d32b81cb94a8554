"""How much fusion has to add to a shot: the abstain rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stf_depth.alignment.joint import Alignment
from stf_depth.config import FusionConfig
from stf_depth.fusion.reader import LowFrame

__all__ = ["Evidence", "confidence_of", "confidence_of_input", "weigh_evidence"]

_MAX_GAIN = 60.0
_AGREEMENT = 0.05
_BORDER_PX = 2
_BORDER_STEP = 0.1  # log disparity


@dataclass(frozen=True)
class Evidence:
    """What the shot's own residuals say.

    strength: [0, 1], share of the correction that is applied. anchored: [0, 1], share of it that the alignment with
    anchors has, against the one without. structure_gain: the weight of structure that was seen well, against the
    network's, 0 where the network agrees with the structure as well as the structure with itself.
    completed_gain: the same for all of it. network_noise: spread of log disparity between the aligned network and the
    sure structure. jitter: of the aligned network between frames. contradiction: gap of log disparity between them at
    which the structure is believed by half.
    """

    strength: float = 1.0
    anchored: float = 1.0
    structure_gain: float = 1.0
    completed_gain: float = 1.0
    network_noise: float = 0.1
    jitter: float = 0.0
    contradiction: float = 0.75

    def tolerance(self, least: float, config: FusionConfig) -> float:
        """Gap of log disparity at which a temporal filter lets another frame count half.

        A fixed one takes a restless network's noise for another surface; a wide one smears what moves.
        """
        return max(self.narrowed(least, config), min(config.tolerance_jitter * self.jitter, config.max_tolerance))

    def narrowed(self, tolerance: float, config: FusionConfig, *, grain: float = 0.0) -> float:
        """A tolerance, less where the network is steady: what differs a little is another surface then.

        grain: of log disparity from frame to frame at the size that is filtered.
        """
        restless = max(self.jitter, grain) / config.restless_jitter
        return tolerance * min(1.0, max(config.least_tolerance, restless))

    def structure_weight(self, confidence: Tensor, config: FusionConfig) -> Tensor:
        """g c^p + h c^q, c the structure's confidence, any shape; g and h the gains, p greater than q.

        Its errors grow about as c^-1.6 where it was seen; where it was completed they depend on the scene, not on c.
        """
        seen = self.structure_gain * confidence**config.structure_sure_sharpness
        return seen + self.completed_gain * confidence**config.structure_sharpness

    def bend_share(self, config: FusionConfig) -> float:
        """g^2 / (g^2 + b^2), g the structure's gain: how far the network is bent to the structure's smooth field.

        The field averages noise away but not the structure's own bias, so a network that is nearly as good as the
        structure keeps its own low band.
        """
        gain, half = self.structure_gain, config.structure_bend
        return gain**2 / (gain**2 + half**2)


def weigh_evidence(alignment: Alignment, config: FusionConfig) -> Evidence:
    """Compare the residuals of links and anchors with what a steady and correct input would leave.

    structure_gain = k max(0, (a^2 - s^2) / s^2)^p, a the spread of the anchors after alignment, s the structure's own
    noise; completed_gain the same over the noise s0 of structure in general. Both are limited. p = 1 gives
    inverse-variance weights. A larger p leaves a network that is nearly as good as the structure more of its own say,
    and one that is much worse less: its errors have longer tails than the spread tells. strength goes from 0 to 1 while
    the links' spread goes from the noise of flow to 1.4 times that, while the gain goes from 0 to 1/4, or while the
    spread that alignment by the links alone takes away goes from abstain_jitter to 1.4 times that. The first two ask
    for the alignment with anchors, the last for the one without.
    """
    noise, (before, after) = alignment.anchor_noise, alignment.link_noise
    gain = completed = 0.0
    if noise is not None:
        own, usual = _structure_variance(noise, after, config), config.structure_noise**2
        excess = max(0.0, noise**2 - own)
        gain, completed = (
            min(_MAX_GAIN, config.structure_gain * (excess / variance) ** config.structure_power)
            for variance in (own, usual)
        )
    found = Evidence(1.0, 1.0, gain, completed, noise or 0.0, after, _contradiction(alignment.anchor_tail, config))
    if not config.abstain:
        return found
    wrong = _share((before / config.abstain_noise) ** 2 - 1, 4 * gain)
    taken_away = before**2 - alignment.linked_noise**2
    strength = _share(wrong, taken_away / config.abstain_jitter**2 - 1)
    return replace(found, strength=strength, anchored=wrong / strength if strength > 0 else 1.0)


def _share(*evidence: float) -> float:
    return min(1.0, max(0.0, *evidence))


def _structure_variance(noise: float, after: float, config: FusionConfig) -> float:
    """s^2 = a^2 - k j^2, not above s0^2, j the network's jitter: what flickers in a gap is not the structure's.

    k is above 1, because a network is wrong in what stays, too. after: the links' spread, in which two frames' jitter
    and the noise of flow add up.
    """
    jitter = max(0.0, after**2 - config.abstain_noise**2) / 2
    left = max(noise**2 - config.structure_jitter * jitter, config.structure_noise_least**2)
    return float(min(left, config.structure_noise**2))


def _contradiction(tail: float | None, config: FusionConfig) -> float:
    """structure_contradiction min(1, tail / contradiction_tail)^3, and no less than contradiction_least.

    A network that the sure structure confirms nearly everywhere is a judge of the rest: what it contradicts, moves by
    itself. One that is contradicted far and wide is wrong.
    """
    share = 1.0 if tail is None else min(1.0, tail / config.contradiction_tail)
    return max(config.structure_contradiction * share**3, config.contradiction_least)


def confidence_of(value: Tensor, weight: Tensor, low: LowFrame, evidence: Evidence) -> Tensor:
    """Confidence in [0, 1] that ranks errors: how much evidence stands behind a value, and whether it agrees.

    b w / (w + k) (1 + s exp(-|u - q| / n)) / 2 with w the filter's sum of weights, q the structure, s its
    confidence, n the network's noise and b less than 1 close behind a border. All (1, 1, h, w).
    """
    scale = 0.05 + evidence.network_noise
    agreement = torch.exp(-(value - low.structure).abs() / scale)
    sure = low.structure_confidence
    return weight / (weight + 4) * (0.5 + 0.5 * sure * agreement) * low.valid * _before_steps(value)


def _before_steps(value: Tensor) -> Tensor:
    """1 / (1 + (r / step)^2), r how much nearer something beside a pixel is: there, flow and matches go astray."""
    near = torch.nn.functional.max_pool2d(value, 2 * _BORDER_PX + 1, stride=1, padding=_BORDER_PX)
    return 1 / (1 + ((near - value) / _BORDER_STEP) ** 2)


def confidence_of_input(low: LowFrame) -> Tensor:
    """Confidence in [0, 1] where the input is returned as it is: 1/4 + 3/4 c exp(-|u - q| / n).

    u is the input, q the structure, c its confidence, n a relative gap of a twentieth; (1, 1, h, w). One half
    everywhere without any structure.
    """
    if not bool((low.structure_confidence > 0).any()):
        return 0.5 * low.valid
    agreement = torch.exp(-(low.log_disparity - low.structure).abs() / _AGREEMENT)
    return (0.25 + 0.75 * low.structure_confidence * agreement) * low.valid
