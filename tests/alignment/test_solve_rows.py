"""The banded robust solver against dense least squares, and the basis of the grids."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import least_squares

from stf_depth.alignment.solve import GridBasis, Rows, solve_rows


def band_problem(rng: np.random.Generator, unknowns: int = 12, rows: int = 90) -> Rows:
    matrix = np.zeros((rows, unknowns))
    first = rng.integers(0, unknowns - 2, rows)
    for row, column in enumerate(first):
        matrix[row, column : column + 3] = rng.normal(size=3)
    weight = rng.uniform(0.05, 4, rows)
    return Rows(sparse.csr_matrix(matrix), rng.normal(size=rows), weight)


def test_one_step_equals_weighted_lstsq_with_prior(rng: np.random.Generator) -> None:
    rows = band_problem(rng)
    prior = sparse.diags(rng.uniform(0.1, 1, 12), format="csr")
    found = solve_rows(rows, prior, 2, scale_floor=0.1, iterations=1)
    root = np.sqrt(rows.weight)
    design = np.vstack([rows.matrix.toarray() * root[:, None], np.sqrt(prior.toarray())])
    right = np.concatenate([rows.target * root, np.zeros(12)])
    np.testing.assert_allclose(found, np.linalg.lstsq(design, right, rcond=None)[0], atol=1e-10)


def test_many_steps_reach_the_minimum_of_the_cauchy_objective(rng: np.random.Generator) -> None:
    rows = band_problem(rng)
    prior = sparse.diags(np.full(12, 0.01), format="csr")
    # A floor above every residual's spread fixes the scale, so that an outside optimiser minimises the same function.
    found = solve_rows(rows, prior, 2, scale_floor=50.0, iterations=30)

    def residuals(x: np.ndarray) -> np.ndarray:
        gap = rows.matrix @ x - rows.target
        robust = 50.0 * np.sqrt(rows.weight * np.log1p((gap / 50.0) ** 2))
        return np.concatenate([robust, 0.1 * x])

    outside = least_squares(residuals, np.zeros(12), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    np.testing.assert_allclose(found, outside.x, atol=1e-5)


def test_outliers_do_not_move_the_solution(rng: np.random.Generator) -> None:
    truth = rng.normal(size=8)
    design = np.repeat(np.eye(8), 30, axis=0)
    target = design @ truth + 0.01 * rng.normal(size=240)
    target[::5] += 7
    rows = Rows(sparse.csr_matrix(design), target, np.ones(240))
    found = solve_rows(rows, sparse.identity(8, format="csr") * 1e-9, 0, scale_floor=0.01, iterations=20)
    np.testing.assert_allclose(found, truth, atol=0.03)


def test_weights_of_zero_leave_a_row_out(rng: np.random.Generator) -> None:
    rows = band_problem(rng)
    rows.weight[:10] = 0
    spoiled = Rows(rows.matrix, np.where(np.arange(90) < 10, 1e6, rows.target), rows.weight)
    prior = sparse.identity(12, format="csr")
    settings = {"scale_floor": 0.1, "iterations": 5}
    np.testing.assert_allclose(solve_rows(rows, prior, 2, **settings), solve_rows(spoiled, prior, 2, **settings))


@pytest.mark.parametrize("shape", [(2, 2), (5, 3), (7, 5)])
def test_grid_basis_is_a_partition_and_reproduces_bilinear_functions(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    basis = GridBasis(*shape)
    xy = rng.uniform(-0.1, 1.1, (200, 2)).astype(np.float32)
    index, weight = basis.weights(xy)
    assert index.min() >= 0
    assert index.max() < basis.size
    np.testing.assert_allclose(weight.sum(1), 1, atol=1e-6)
    y, x = np.meshgrid(np.linspace(0, 1, shape[1]), np.linspace(0, 1, shape[0]), indexing="ij")
    handles = (2 * x - 3 * y + 0.5).ravel()
    inside = np.clip(xy, 0, 1)
    expected = 2 * inside[:, 0] - 3 * inside[:, 1] + 0.5
    np.testing.assert_allclose((handles[index] * weight).sum(1), expected, atol=1e-5)


def test_smoothness_is_zero_for_constants_and_counts_every_pair() -> None:
    difference = GridBasis(4, 3).smoothness()
    assert difference.shape == (3 * 3 + 4 * 2, 12)
    assert np.abs(difference @ np.ones(12)).max() == 0
