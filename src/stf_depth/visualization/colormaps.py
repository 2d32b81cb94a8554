"""Colour maps as lookup tables."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from stf_depth.errors import ConfigError, ShapeError
from stf_depth.types import BoolArray, Float32Array, Uint8Array

__all__ = ["COLORMAPS", "INVALID_RGB", "colorize", "lookup_table"]

# Offered by name; each is matplotlib's map of that name, near at the bright or warm end.
COLORMAPS = ("inferno", "Spectral_r", "turbo", "magma", "viridis", "plasma", "cividis", "gray")
# Outside every map above, so that "unknown" cannot be read as a distance.
INVALID_RGB = (46, 52, 64)
# Finer than matplotlib's 256 steps: a slow ramp keeps its gradation until the final rounding to 8 bits.
_STEPS = 1024


@lru_cache(maxsize=len(COLORMAPS))
def lookup_table(name: str) -> Uint8Array:
    """(1024, 3) uint8 RGB samples of a colour map, far end first.

    Raises ConfigError for a name outside ``COLORMAPS``.

    >>> lookup_table("gray")[[0, -1]].tolist()
    [[0, 0, 0], [255, 255, 255]]
    """
    if name not in COLORMAPS:
        raise ConfigError(f"unknown colour map '{name}'", hint=f"Known colour maps: {', '.join(COLORMAPS)}")
    import matplotlib

    anchors = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3]
    positions = np.linspace(0, 255, _STEPS)
    channels = [np.interp(positions, np.arange(256), anchors[:, channel]) for channel in range(3)]
    table: Uint8Array = np.rint(np.stack(channels, axis=1) * 255).astype(np.uint8)
    table.flags.writeable = False
    return table


def colorize(nearness: Float32Array, valid: BoolArray, name: str = "inferno") -> Uint8Array:
    """rgb[...] = map(nearness[...]) where valid, ``INVALID_RGB`` elsewhere.

    nearness: (..., H, W) float32 in [0, 1], 1 nearest. valid: bool of the same shape. Returns (..., H, W, 3)
    uint8. Raises ShapeError when the shapes differ, ConfigError for an unknown map.

    >>> import numpy as np
    >>> ramp = np.linspace(0, 1, 4, dtype=np.float32)[None]
    >>> colorize(ramp, np.ones((1, 4), bool), "gray")[0, :, 0].tolist()
    [0, 85, 170, 255]
    """
    if nearness.shape != valid.shape:
        raise ShapeError("nearness and validity must match", expected=nearness.shape, got=valid.shape)
    table = lookup_table(name)
    known = np.where(valid, nearness, np.float32(0))
    steps = np.rint(np.clip(known, 0, 1) * (_STEPS - 1)).astype(np.int32)
    rgb: Uint8Array = np.take(table, steps, axis=0)
    rgb[~valid] = INVALID_RGB
    return rgb
