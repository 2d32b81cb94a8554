"""Per-frame scale, shift and coarse log-disparity grid of a whole shot, solved together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy import sparse

from stf_depth.alignment.corrections import Corrections, shift_term
from stf_depth.alignment.links import Anchors, Links, LinkSampler
from stf_depth.alignment.solve import GridBasis, Rows, solve_rows
from stf_depth.config import AlignmentConfig
from stf_depth.types import Float32Array, Float64Array, Int32Array

__all__ = ["Alignment", "ShotAligner", "align_shot"]

Samples = TypeVar("Samples", Links, Anchors)

_SURE = 0.55  # anchors above this weight are taken at their word
_MIN_SURE = 200
_TAIL_PERCENTILE = 95
_BULK_PERCENTILE = 80
_LONGEST_TAIL = 3.2  # times the bulk: a longer one is that of another thing, not of the network's errors
_KEPT_GAPS = 1 << 19
_PRIORS = ("scale_prior", "shift_prior", "grid_prior")


@dataclass(frozen=True)
class Alignment:
    """Corrections of a shot, and what they leave.

    anchored: from links and anchors. linked: from links alone, the same where there are no anchors. level: median
    log disparity of the shot's first stretch. link_noise: robust spread of the links' log-disparity differences before
    alignment and after it. linked_noise: after that by the links alone. anchor_noise: robust spread of what the surest
    anchors lack, after alignment. anchor_tail: what 95 % of them lack at most, and no more than a few times what most
    of them do. Both None with too few of them.
    """

    anchored: Corrections
    linked: Corrections
    level: float
    link_noise: tuple[float, float]
    linked_noise: float
    anchor_noise: float | None
    anchor_tail: float | None


def align_shot(links: Links, anchors: Anchors, frame_count: int, aspect: float, config: AlignmentConfig) -> Alignment:
    """Solve all frames' corrections so that linked points agree and anchored points meet their targets.

    First scale and shift of every frame at once; then, in blocks of frames that overlap by the longest span, the grids.
    Priors hold every unknown near zero: without anchors, only what varies faster than the prior's period is corrected,
    so true changes of distance are kept. aspect: image width / height.
    """
    aligner = ShotAligner(frame_count, aspect, config)
    aligner.solve(links, anchors, range(frame_count))
    return aligner.alignment()


class ShotAligner:
    """``align_shot`` in stretches of a long shot, so that no more than one stretch's links are held at a time.

    A stretch is solved together with ``stretch_margin_frames`` on either side, several times as far as links and priors
    usually carry a correction; a shot that fits into a stretch and one margin is solved whole. In half of the margin
    before it, its solution fades in over the one of the stretch before: what is left of a difference, as where the
    picture stands still and little holds the scale, makes no step.
    """

    def __init__(self, frame_count: int, aspect: float, config: AlignmentConfig) -> None:
        self._config, self._count = config, frame_count
        self._basis = _basis(aspect, config)
        shape = frame_count, self._basis.rows, self._basis.columns
        self._anchored, self._linked = Corrections.none(*shape), Corrections.none(*shape)
        self._level: float | None = None
        self._next = 0
        self._gaps, self._lacking = _Sample(3), _Sample(1)

    def take(self, sampler: LinkSampler, seen: int) -> None:
        """Solve what the first ``seen`` frames suffice for, and let the sampler forget what no later stretch needs."""
        config = self._config
        margin = config.stretch_margin_frames
        while self._next < self._count:
            stop = self._next + config.stretch_frames
            is_last = self._count <= stop + margin
            if seen < (self._count if is_last else stop + margin):
                return
            frames = range(self._next, self._count if is_last else stop)
            self.solve(sampler.links(), sampler.anchors(), frames)
            self._next = frames.stop
            sampler.forget(frames.stop - margin)

    def solve(self, links: Links, anchors: Anchors, frames: range) -> None:
        """Corrections of ``frames`` from the links and anchors of these frames and of those around them."""
        if self._level is None:
            self._level = float(np.median(links.log_disparity)) if len(links) else 0.0
        config = self._config
        if not config.enabled:
            config = config.model_copy(update={"affine": False, "grid": False})
        if _is_still(links, config):
            config = config.model_copy(update={name: config.still_prior * getattr(config, name) for name in _PRIORS})
        margin = config.stretch_margin_frames
        low, high = max(0, frames.start - margin), min(self._count, frames.stop + margin)
        links, anchors = links.within(low, high), anchors.within(low, high)
        stretch = _Stretch(_from_frame(links, low), _from_frame(anchors, low), high - low, self._level)
        self._solve_stretch(stretch, low, frames, config)

    def _solve_stretch(self, stretch: _Stretch, low: int, frames: range, config: AlignmentConfig) -> None:
        fade = min(frames.start, config.stretch_margin_frames // 2)
        start, stop = frames.start - low, frames.stop - low
        wanted = range(start - fade, stop)
        anchored = _solve_corrections(stretch, wanted, self._basis, config)
        before, after = (part.within(start, stop) for part in (stretch, _corrected(stretch, anchored, self._basis)))
        gaps = [_link_gaps(before.links), _link_gaps(after.links)]
        linked, last = anchored, gaps[1]
        if len(stretch.anchors.frame) and _spread(gaps[0]) < config.anchored_noise:
            free = replace(stretch, anchors=Anchors.none())
            linked = _solve_corrections(free, wanted, self._basis, config)
            last = _link_gaps(_corrected(free, linked, self._basis).within(start, stop).links)
        self._gaps.add(np.stack([*gaps, last]))
        sure = after.anchors.weight > _SURE
        self._lacking.add((after.anchors.target - after.anchors.log_disparity)[None, sure])
        for kept, solved in ((self._anchored, anchored), (self._linked, linked)):
            kept.fade_in(slice(frames.start - fade, frames.stop), solved.of(slice(wanted.start, wanted.stop)), fade)

    def alignment(self) -> Alignment:
        """What was solved, when every frame was."""
        before, after, linked = map(_spread, self._gaps.values())
        noise, tail = _anchor_spread(self._lacking.values()[0])
        return Alignment(self._anchored, self._linked, self._level or 0.0, (before, after), linked, noise, tail)


@dataclass(frozen=True)
class _Stretch:
    """Links and anchors of frames 0 to ``frame_count``. level: of the shot."""

    links: Links
    anchors: Anchors
    frame_count: int
    level: float

    def within(self, start: int, stop: int) -> _Stretch:
        """Those that lie in frames ``start`` to ``stop``."""
        return replace(self, links=self.links.within(start, stop), anchors=self.anchors.within(start, stop))


class _Sample:
    """Columns picked at random from what was added: so few that an hour's are small, and enough for a median.

    At random, for points come row by row, and every n-th may be one column of the picture.
    """

    def __init__(self, rows: int) -> None:
        self._random = np.random.default_rng(0)
        self._share = 1.0
        self._kept: Float32Array = np.zeros((rows, 0), np.float32)
        self._draws: Float32Array = np.zeros(0, np.float32)

    def add(self, values: Float32Array) -> None:
        self._kept = np.concatenate([self._kept, values], 1)
        self._draws = np.concatenate([self._draws, self._random.random(values.shape[1], np.float32)])
        self._keep()
        while len(self._draws) > _KEPT_GAPS:
            self._share /= 2
            self._keep()

    def _keep(self) -> None:
        kept = self._draws < self._share
        self._kept, self._draws = self._kept[:, kept], self._draws[kept]

    def values(self) -> Float32Array:
        return self._kept


def _from_frame(samples: Samples, first: int) -> Samples:
    """The same with frames counted from ``first``."""
    return replace(samples, frame=samples.frame - np.int32(first))


def _is_still(links: Links, config: AlignmentConfig) -> bool:
    """Whether most of the picture stays where it is, so that its distances cannot have changed."""
    if not len(links):
        return False
    span = links.frame[:, 1] - links.frame[:, 0]
    longest = int(span.max())  # not that of the configuration in a short shot
    moved = np.abs(links.xy[span == longest, 1] - links.xy[span == longest, 0]).max(1)
    return bool(np.median(moved) * max(config.spans) < config.still_motion * longest)


def _basis(aspect: float, config: AlignmentConfig) -> GridBasis:
    columns = config.grid_columns if aspect >= 1 else max(2, round(config.grid_columns * aspect))
    rows = max(2, round(config.grid_columns / aspect)) if aspect >= 1 else config.grid_columns
    return GridBasis(columns, rows)


def _solve_corrections(stretch: _Stretch, wanted: range, basis: GridBasis, config: AlignmentConfig) -> Corrections:
    """Scale and shift of all frames, then the grids of those wanted, zero elsewhere."""
    links, anchors, count, level = stretch.links, stretch.anchors, stretch.frame_count, stretch.level
    log_scale, shift = _solve_affine(links, anchors, count, level, config)
    affine = Corrections(log_scale, shift, np.zeros((count, basis.rows, basis.columns), np.float32))
    if not config.grid:
        return affine
    left = _corrected(stretch, affine, basis)
    grid = _solve_grid(left.links, left.anchors, wanted, count, basis, config)
    return replace(affine, grid=grid.reshape(affine.grid.shape).astype(np.float32))


def _solve_affine(
    links: Links, anchors: Anchors, frame_count: int, level: float, config: AlignmentConfig
) -> tuple[Float32Array, Float32Array]:
    if not config.affine:
        return np.zeros(frame_count, np.float32), np.zeros(frame_count, np.float32)
    ends = [
        (links.frame[:, end], np.stack([np.ones(len(links)), shift_term(links.log_disparity[:, end], level)], 1))
        for end in (0, 1)
    ]
    at = (anchors.frame, np.stack([np.ones(len(anchors.frame)), shift_term(anchors.log_disparity, level)], 1))
    rows = _rows(links, anchors, ends, at, 2, frame_count, config)
    prior = sparse.diags(np.tile([config.scale_prior, config.shift_prior], frame_count), format="csr")
    solution = _solve(rows, prior, 2, config).reshape(frame_count, 2).astype(np.float32)
    return solution[:, 0], solution[:, 1]


def _solve_grid(
    links: Links, anchors: Anchors, frames: range, frame_count: int, basis: GridBasis, config: AlignmentConfig
) -> Float64Array:
    """Grids of ``frames``, zero elsewhere."""
    grid = np.zeros((frame_count, basis.size))
    margin = max(config.spans)
    for start in range(frames.start, frames.stop, config.block_frames):
        stop = min(frames.stop, start + config.block_frames)
        low, high = max(0, start - margin), min(frame_count, stop + margin)
        solved = _solve_block(links.within(low, high), anchors.within(low, high), low, high - low, basis, config)
        grid[start:stop] = solved[start - low : stop - low]
    return grid


def _solve_block(
    links: Links, anchors: Anchors, first: int, count: int, basis: GridBasis, config: AlignmentConfig
) -> Float64Array:
    ends = [(links.frame[:, end] - first, basis.weights(links.xy[:, end])) for end in (0, 1)]
    dense = [(frame, _spread_weights(*weights, basis.size)) for frame, weights in ends]
    at = (anchors.frame - first, _spread_weights(*basis.weights(anchors.xy), basis.size))
    rows = _rows(links, anchors, dense, at, basis.size, count, config)
    smooth = basis.smoothness()
    one = config.grid_smoothness * (smooth.T @ smooth) + config.grid_prior * sparse.identity(basis.size)
    prior = sparse.kron(sparse.identity(count), one / basis.size, format="csr")
    return _solve(rows, prior, basis.size, config).reshape(count, basis.size)


def _solve(rows: Rows, prior: sparse.csr_matrix, unknowns: int, config: AlignmentConfig) -> Float64Array:
    bandwidth = min((max(config.spans) + 1) * unknowns, prior.shape[0]) - 1
    return solve_rows(rows, prior, bandwidth, scale_floor=config.robust_scale_floor, iterations=config.iterations)


def _spread_weights(index: Int32Array, weight: Float32Array, size: int) -> sparse.csr_matrix:
    row = np.repeat(np.arange(len(index)), index.shape[1])
    return sparse.csr_matrix((weight.ravel().astype(np.float64), (row, index.ravel())), (len(index), size))


def _rows(
    links: Links,
    anchors: Anchors,
    ends: list[tuple[Int32Array, Float64Array]] | list[tuple[Int32Array, sparse.csr_matrix]],
    at: tuple[Int32Array, Float64Array] | tuple[Int32Array, sparse.csr_matrix],
    unknowns: int,
    frame_count: int,
    config: AlignmentConfig,
) -> Rows:
    """Stack B_j theta_j - B_i theta_i = u_i - u_j of the links over B theta = target - u of the anchors."""
    first, second = (_placed(frame, basis, unknowns, frame_count) for frame, basis in ends)
    anchored = _placed(at[0], at[1], unknowns, frame_count)
    matrix = sparse.vstack([second - first, anchored], format="csr")
    link_target = links.log_disparity[:, 0] + links.change - links.log_disparity[:, 1]
    target = np.concatenate([link_target, anchors.target - anchors.log_disparity]).astype(np.float64)
    per_frame = config.sample_columns**2
    weight = np.concatenate([links.weight, config.anchor_weight * anchors.weight]).astype(np.float64) / per_frame
    return Rows(matrix, target, weight)


def _placed(
    frame: Int32Array, basis: Float64Array | sparse.csr_matrix, unknowns: int, frame_count: int
) -> sparse.csr_matrix:
    part = sparse.coo_matrix(basis)
    column = frame[part.row].astype(np.int64) * unknowns + part.col
    return sparse.csr_matrix((part.data, (part.row, column)), (len(frame), unknowns * frame_count))


def _corrected(stretch: _Stretch, found: Corrections, basis: GridBasis) -> _Stretch:
    links, anchors = stretch.links, stretch.anchors
    handles = found.grid.reshape(stretch.frame_count, basis.size)

    def moved(u: Float32Array, frame: Int32Array, xy: Float32Array) -> Float32Array:
        index, weight = basis.weights(xy)
        affine = found.log_scale[frame] + found.shift[frame] * shift_term(u, stretch.level)
        result: Float32Array = (u + affine + (handles[frame[:, None], index] * weight).sum(1)).astype(np.float32)
        return result

    ends = [moved(links.log_disparity[:, end], links.frame[:, end], links.xy[:, end]) for end in (0, 1)]
    value = moved(anchors.log_disparity, anchors.frame, anchors.xy)
    return replace(
        stretch,
        links=replace(links, log_disparity=np.stack(ends, 1)),
        anchors=replace(anchors, log_disparity=value),
    )


def _link_gaps(links: Links) -> Float32Array:
    gaps: Float32Array = np.abs(links.log_disparity[:, 1] - links.log_disparity[:, 0] - links.change)
    return gaps


def _spread(gaps: Float32Array) -> float:
    return float(1.48 * np.median(gaps)) if len(gaps) else 0.0


def _anchor_spread(lacking: Float32Array) -> tuple[float | None, float | None]:
    if len(lacking) < _MIN_SURE:
        return None, None
    gaps = np.abs(lacking - np.median(lacking))
    bulk, tail = np.percentile(gaps, (_BULK_PERCENTILE, _TAIL_PERCENTILE))
    return _spread(gaps), float(min(tail, _LONGEST_TAIL * bulk))
