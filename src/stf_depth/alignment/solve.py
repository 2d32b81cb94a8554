"""Joint robust alignment of all frames: one sparse least-squares problem over links and anchors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import solveh_banded

from stf_depth.types import Float32Array, Float64Array, Int32Array

__all__ = ["GridBasis", "Rows", "solve_rows"]


@dataclass(frozen=True)
class GridBasis:
    """Bilinear handles: B(x, y) gives each position the weights of its four surrounding handles, summing to one."""

    columns: int
    rows: int

    @property
    def size(self) -> int:
        """Number of handles."""
        return self.columns * self.rows

    def weights(self, xy: Float32Array) -> tuple[Int32Array, Float32Array]:
        """xy (N, 2) as fractions of the image -> handle indices (N, 4) int32 and their weights (N, 4) float32."""
        gx = np.clip(xy[:, 0], 0, 1) * (self.columns - 1)
        gy = np.clip(xy[:, 1], 0, 1) * (self.rows - 1)
        x0 = np.minimum(gx.astype(np.int32), max(self.columns - 2, 0))
        y0 = np.minimum(gy.astype(np.int32), max(self.rows - 2, 0))
        fx, fy = gx - x0, gy - y0
        x1, y1 = np.minimum(x0 + 1, self.columns - 1), np.minimum(y0 + 1, self.rows - 1)
        index = np.stack(
            [y0 * self.columns + x0, y0 * self.columns + x1, y1 * self.columns + x0, y1 * self.columns + x1]
        )
        weight = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])
        return index.T.astype(np.int32), weight.T.astype(np.float32)

    def smoothness(self) -> sparse.csr_matrix:
        """Differences of neighbouring handles, one row each."""
        index = np.arange(self.size).reshape(self.rows, self.columns)
        pairs = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:])]
        first = np.concatenate([a.ravel() for a, _ in pairs])
        second = np.concatenate([b.ravel() for _, b in pairs])
        row = np.arange(len(first))
        ones = np.ones(len(first))
        shape = (len(first), self.size)
        difference = sparse.coo_matrix((ones, (row, second)), shape) - sparse.coo_matrix((ones, (row, first)), shape)
        return sparse.csr_matrix(difference)


@dataclass(frozen=True)
class Rows:
    """Equations A theta = target with weights; ``matrix`` (N, U) sparse, ``target``, ``weight`` (N,) float64."""

    matrix: sparse.csr_matrix
    target: Float64Array
    weight: Float64Array


def solve_rows(
    robust: Rows, prior: sparse.csr_matrix, bandwidth: int, *, scale_floor: float, iterations: int
) -> Float64Array:
    """argmin_x sum_n w_n s^2 log(1 + (A_n x - y_n)^2 / s^2) + x^T P x, by iteratively reweighted least squares.

    robust: the N equations. prior: (U, U) positive definite. bandwidth: how far from the diagonal A^T A and P reach;
    the normal equations are solved by a banded Cholesky factorisation, so the time is linear in U. The Cauchy scale s
    is 1.48 times the weighted median of the absolute residuals, and not below ``scale_floor``.
    """
    solution = np.zeros(prior.shape[0])
    reweight = np.ones(len(robust.target))
    for _ in range(iterations):
        weight = robust.weight * reweight
        scaled = sparse.csr_matrix(sparse.diags(weight) @ robust.matrix)
        normal = (robust.matrix.T @ scaled + prior).tocoo()
        solution = _solve_banded(normal, scaled.T @ robust.target, bandwidth)
        residual = np.abs(robust.matrix @ solution - robust.target)
        scale = max(scale_floor, 1.48 * _weighted_median(residual, robust.weight))
        reweight = 1 / (1 + (residual / scale) ** 2)
    return solution


def _solve_banded(normal: sparse.coo_matrix, right: Float64Array, bandwidth: int) -> Float64Array:
    below = normal.row >= normal.col
    row, col, value = normal.row[below], normal.col[below], normal.data[below]
    band = np.zeros((bandwidth + 1, normal.shape[0]))
    band[row - col, col] = value
    solution: Float64Array = solveh_banded(band, right, lower=True, overwrite_ab=True, check_finite=False)
    return solution


def _weighted_median(values: Float64Array, weight: Float64Array) -> float:
    if not len(values):
        return 0.0
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])]) if total[-1] > 0 else 0.0
