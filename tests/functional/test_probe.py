import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from lis_lightning.functional.probe import PENALTIES, ProbeInputs, best_penalty, fit_probe


def test_probe_equals_ridge_by_an_optimiser():
    rng = np.random.default_rng(1)
    num, k = 600, 3
    inputs = ProbeInputs(*(torch.from_numpy(rng.standard_normal((num, width))) for width in (k, k, 4)))
    base = torch.from_numpy(rng.standard_normal(num))
    truth = inputs.profile[:, 0] * inputs.target[:, 0]
    labels = torch.from_numpy((rng.random(num) < torch.sigmoid(base + truth).numpy()).astype(float))
    groups = torch.from_numpy(np.where(np.arange(num) < 400, np.arange(num) % 12, -1))
    fit = fit_probe(inputs, base, labels, groups)
    train = (groups >= 0).numpy()
    design = inputs.design(torch.arange(num)).numpy()
    design = (design - design[train].mean(0)) / design[train].std(0)
    design[:, -4:] *= 3
    residual = (labels - torch.sigmoid(base)).numpy()

    def ridge(rows, penalty):
        def objective(w):
            error = residual[rows] - design[rows] @ w
            return error @ error + penalty * w @ w, -2 * design[rows].T @ error + 2 * penalty * w

        return minimize(objective, np.zeros(design.shape[1]), jac=True, tol=1e-12).x

    errors = []
    for penalty in PENALTIES:
        total = 0.0
        for fold in range(4):
            held = train & (groups.numpy() % 4 == fold)
            error = residual[held] - design[held] @ ridge(train & ~held, penalty)
            total += error @ error
        errors.append(total)
    assert np.argmin(errors) == 0
    assert fit.penalty == pytest.approx(PENALTIES[0])
    test = ~train
    expected = design[test] @ ridge(train, fit.penalty)
    np.testing.assert_allclose(fit.score.numpy()[test], fit.slope * expected, rtol=1e-3, atol=1e-5)
    for group in (0, 7):
        expected = design[test] @ ridge(train & (groups.numpy() != group), fit.penalty)
        np.testing.assert_allclose(fit.leave_group_out.numpy()[:, group], fit.slope * expected, rtol=1e-3, atol=1e-5)


def test_the_penalty_is_the_vertex_of_a_parabola_within_what_is_offered():
    grid = np.log(PENALTIES)
    rng = np.random.default_rng(0)
    places = rng.uniform(grid[0] - 2, grid[-1] + 2, size=50)
    errors = torch.from_numpy((grid[:, None] - places) ** 2 * rng.uniform(0.1, 9, size=50) + 5)
    best = best_penalty(errors, PENALTIES).log().numpy()
    np.testing.assert_allclose(best, places.clip(grid[0], grid[-1]), atol=1e-9)
    errors = torch.from_numpy(rng.standard_normal((len(PENALTIES), 50)))
    best = best_penalty(errors, PENALTIES).log().numpy()
    assert (np.abs(best - grid[errors.argmin(0)]) <= grid[1] - grid[0] + 1e-9).all()
    rising = torch.from_numpy(np.sqrt(np.arange(len(PENALTIES), dtype=float)))[:, None]  # bends down everywhere
    assert float(best_penalty(rising, PENALTIES)) == pytest.approx(PENALTIES[0])
    assert float(best_penalty(rising.flip(0), PENALTIES)) == pytest.approx(PENALTIES[-1])


def test_probe_of_features_without_variance_adds_nothing():
    zeros = torch.zeros(40, 2, dtype=torch.float64)
    labels = torch.arange(40).remainder(2).double()
    folds = torch.where(torch.arange(40) < 30, torch.arange(40) % 4, -1)
    fit = fit_probe(ProbeInputs(zeros, zeros, zeros), torch.zeros(40, dtype=torch.float64), labels, folds)
    assert fit.slope == 0.0
    assert not fit.score.any()
