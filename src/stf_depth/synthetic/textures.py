"""Periodic procedural textures with mip levels, rich enough for corner trackers and optical flow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stf_depth.types import Float32Array

__all__ = ["VARIANTS", "sample_texture"]

VARIANTS = 4
TILE_PX = 512
LEVELS = 9


@dataclass(frozen=True)
class _Atlas:
    """texels: (N, 2) float32 in [0, 1]; level ``l`` of variant ``v`` starts at ``offsets[v, l]``, row-major."""

    texels: Float32Array
    offsets: NDArray[np.int64]


def _filtered_noise(rng: np.random.Generator, exponent: float) -> NDArray[np.float64]:
    """White noise with the amplitude spectrum 1 / f^exponent, periodic, unit variance."""
    frequency = np.hypot(np.fft.fftfreq(TILE_PX)[:, None], np.fft.rfftfreq(TILE_PX)[None])
    frequency[0, 0] = np.inf
    # Wavelengths beyond an eighth of the tile would repeat visibly.
    weight = frequency**-exponent * (frequency > 8 / TILE_PX)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((TILE_PX, TILE_PX))) * weight, s=(TILE_PX, TILE_PX))
    return np.asarray(noise / noise.std(), np.float64)


def _tile(variant: int) -> Float32Array:
    """(TILE, TILE, 2): a smooth channel with hard-edged blotches, and a channel that varies the shade."""
    rng = np.random.default_rng([20240, variant])
    smooth, blotches, shade = (_filtered_noise(rng, exponent) for exponent in (1.1, 1.6, 0.8))
    pattern = 0.55 / (1 + np.exp(-1.8 * smooth)) + 0.45 / (1 + np.exp(-9.0 * blotches))
    return np.stack([pattern, 1 / (1 + np.exp(-1.5 * shade))], axis=-1).astype(np.float32)


@lru_cache(maxsize=1)
def _atlas() -> _Atlas:
    parts: list[Float32Array] = []
    offsets = np.zeros((VARIANTS, LEVELS), np.int64)
    start = 0
    for variant in range(VARIANTS):
        level = _tile(variant)
        for index in range(LEVELS):
            offsets[variant, index] = start
            parts.append(level.reshape(-1, 2))
            start += len(parts[-1])
            half = len(level) // 2
            level = level.reshape(half, 2, half, 2, 2).mean((1, 3), dtype=np.float32)
    return _Atlas(np.concatenate(parts), offsets)


def _bilinear(atlas: _Atlas, uv: Float32Array, variant: NDArray[np.int64], level: NDArray[np.int64]) -> Float32Array:
    size = (TILE_PX >> level).astype(np.int32)
    # Texel centres of level l lie at (i + 0.5) * 2^l of level 0.
    position = uv / (1 << level).astype(np.float32) - np.float32(0.5)
    corner = np.floor(position)
    fraction = position - corner
    x0, y0 = corner.astype(np.int32) & (size - 1)
    x1, y1 = (x0 + 1) & (size - 1), (y0 + 1) & (size - 1)
    start = atlas.offsets[variant, level]
    upper, lower = start + y0 * size, start + y1 * size
    fx, fy = fraction[0][:, None], fraction[1][:, None]
    texels = atlas.texels
    top, bottom = texels.take(upper + x0, axis=0), texels.take(lower + x0, axis=0)
    top += fx * (texels.take(upper + x1, axis=0) - top)
    bottom += fx * (texels.take(lower + x1, axis=0) - bottom)
    return np.asarray(top + fy * (bottom - top), np.float32)


def sample_texture(uv_texels: Float32Array, variant: NDArray[np.int64], footprint_texels: Float32Array) -> Float32Array:
    """Trilinear look-up in [0, 1].

    uv_texels: (2, n) in texels of the finest level, any value (the texture repeats). variant: (n,) below VARIANTS.
    footprint_texels: (n,) width of a pixel in texels; it chooses the mip level. Returns (n, 2) float32.
    """
    atlas = _atlas()
    detail = np.clip(np.log2(np.maximum(footprint_texels, 1.0)), 0, LEVELS - 1.001)
    level = detail.astype(np.int64)
    uv = np.mod(uv_texels, TILE_PX).astype(np.float32)
    values = _bilinear(atlas, uv, variant, level)
    blended = detail > level
    blend = (detail - level)[blended].astype(np.float32)[:, None]
    coarser = _bilinear(atlas, uv[:, blended], variant[blended], level[blended] + 1)
    values[blended] += blend * (coarser - values[blended])
    return values
