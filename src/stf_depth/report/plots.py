"""Plots as inline SVG: colours and fonts come from the page, so they follow its light and dark themes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from stf_depth.types import CameraPath, Float64Array

__all__ = ["Series", "camera_plot", "line_plot", "nice_ticks"]

_WIDTH, _HEIGHT = 640, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 34
_CAMERA_WIDTH, _CAMERA_HEIGHT, _CAMERA_PAD = 640, 360, 40
_MAX_POSITIONS = 400
_VIEWS = 16


@dataclass(frozen=True)
class Series:
    """A line over time; NaN breaks it. key: its colour's class in the style sheet."""

    key: str
    title: str
    values: Float64Array


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers at steps of 1, 2 or 5 times a power of ten that cover [low, high].

    >>> nice_ticks(0, 9.3)
    [0.0, 2.5, 5.0, 7.5, 10.0]
    """
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * count >= span * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    last = max(last, first + 1)
    return [round(i * step, 10) for i in range(first, last + 1)]


def line_plot(name: str, title: str, unit: str, seconds: Float64Array, series: Sequence[Series]) -> str:
    """Values over seconds, the vertical axis from a tick at or below 0 to one above all values.

    The ``line`` of class ``cursor`` and the ``data-`` attributes let the page mark the shown time.
    """
    known = np.concatenate([one.values[np.isfinite(one.values)] for one in series])
    ticks = nice_ticks(min(0.0, float(known.min())), max(float(known.max()), 1e-3))
    start, stop = float(seconds[0]), max(float(seconds[-1]), float(seconds[0]) + 1e-3)
    x = _LEFT + (seconds - start) / (stop - start) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_grid(y(tick), f"{tick:g}") for tick in ticks]
    parts += [_time_label(tick, start, stop) for tick in nice_ticks(start, stop, 6) if start <= tick <= stop]
    for one in series:
        parts += [_polyline(run, one.key) for run in _runs(x, [y(float(v)) for v in one.values])]
    parts.append(f'<line class="cursor" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
    frame = f'data-left="{_LEFT}" data-right="{_WIDTH - _RIGHT}" data-start="{start:.4f}" data-stop="{stop:.4f}"'
    return (
        f'<figure class="plot"><figcaption>{escape(title)} ({escape(unit)}) {_legend(series)}</figcaption>'
        f'<svg id="{escape(name)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}" {frame}>'
        f"{''.join(parts)}</svg></figure>"
    )


def camera_plot(name: str, path: CameraPath, unit: str) -> str:
    """Solved camera positions from above: right is right of the first camera, up is forward. Equal scales."""
    solved = np.flatnonzero(path.solved)
    kept = solved[np.linspace(0, len(solved) - 1, min(len(solved), _MAX_POSITIONS)).round().astype(int)]
    from_first = np.linalg.inv(path.world_from_cam[solved[0]]) @ path.world_from_cam[kept]
    centres, forward = from_first[:, [0, 2], 3], from_first[:, [0, 2], 2]
    low, high = centres.min(axis=0), centres.max(axis=0)
    room = np.array([_CAMERA_WIDTH - 2 * _CAMERA_PAD, _CAMERA_HEIGHT - 2 * _CAMERA_PAD])
    scale = float((room / np.maximum(high - low, 1e-6 + 0.02 * float((high - low).max()))).min())
    middle = np.array([_CAMERA_WIDTH / 2, _CAMERA_HEIGHT / 2])
    xy = middle + (centres - (low + high) / 2) * scale * np.array([1, -1])
    views = np.linspace(0, len(kept) - 1, min(len(kept), _VIEWS)).round().astype(int)
    parts = [_view(xy[i], forward[i] * np.array([1, -1])) for i in views]
    parts.append(_polyline([(float(px), float(py)) for px, py in xy], "fused"))
    parts.append(f'<circle class="start" cx="{xy[0, 0]:.1f}" cy="{xy[0, 1]:.1f}" r="5"/>')
    parts.append(f'<circle class="end" cx="{xy[-1, 0]:.1f}" cy="{xy[-1, 1]:.1f}" r="5"/>')
    parts.append(_scale_bar(scale, unit))
    return (
        f'<svg id="{escape(name)}" class="camera" viewBox="0 0 {_CAMERA_WIDTH} {_CAMERA_HEIGHT}" role="img" '
        f'aria-label="Camera path from above">{"".join(parts)}</svg>'
    )


def _view(xy: Float64Array, direction: Float64Array) -> str:
    end = xy + 22 * direction / max(float(np.hypot(*direction)), 1e-9)
    return f'<line class="view" x1="{xy[0]:.1f}" y1="{xy[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'


def _scale_bar(pixels_per_unit: float, unit: str) -> str:
    length = nice_ticks(0, 120 / pixels_per_unit, 1)[1]
    width = min(length * pixels_per_unit, _CAMERA_WIDTH - 2 * _CAMERA_PAD)
    y = _CAMERA_HEIGHT - 14
    line = f'<line class="bar" x1="14" y1="{y}" x2="{14 + width:.1f}" y2="{y}"/>'
    return f'{line}<text x="{20 + width:.1f}" y="{y + 4}">{length:g} {escape(unit)}</text>'


def _grid(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="right" x="{_LEFT - 8}" y="{y + 4:.1f}">{label}</text>'


def _time_label(tick: float, start: float, stop: float) -> str:
    x = _LEFT + (tick - start) / (stop - start) * (_WIDTH - _LEFT - _RIGHT)
    anchor = "right" if x > _WIDTH - 30 else "middle"
    return f'<text class="{anchor}" x="{x:.1f}" y="{_HEIGHT - 12}">{tick:g} s</text>'


def _legend(series: Sequence[Series]) -> str:
    return "".join(f'<span class="key {escape(one.key)}">{escape(one.title)}</span>' for one in series)


def _runs(x: Float64Array, y: Sequence[float]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for px, py in zip(x.tolist(), y, strict=True):
        if math.isfinite(py):
            runs[-1].append((px, py))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _polyline(points: Sequence[tuple[float, float]], key: str) -> str:
    if len(points) == 1:
        return f'<circle class="{escape(key)}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>'
    text = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    return f'<polyline class="{escape(key)}" points="{text}"/>'
