import numpy as np
import pytest
import torch

from lis_lightning.functional.probe import PENALTIES, ProbeInputs, best_penalty, fit_probe


def events(rng, num=600, k=3):
    """Return inputs whose first product of profile and target explains the labels, with base, labels and groups."""
    inputs = ProbeInputs(*(torch.from_numpy(rng.standard_normal((num, width))) for width in (k, k, 4, 1, 0)))
    base = torch.from_numpy(rng.standard_normal(num))
    truth = 2 * inputs.profile[:, 0] * inputs.target[:, 0] + inputs.attention[:, 1]
    labels = torch.from_numpy((rng.random(num) < torch.sigmoid(base + truth).numpy()).astype(float))
    groups = torch.from_numpy(np.where(np.arange(num) < 2 * num // 3, np.arange(num) % 12, -1))
    return inputs, base, labels, groups


def bilinear(inputs, residual, rows, train, penalty):
    """Return the predictions for all events of the ridge regression with a Kronecker-factored Gram matrix."""
    factors = [factor.numpy() - factor.numpy()[train].mean(0) for factor in (inputs.profile, inputs.target)]
    seconds = [factor[train].T @ factor[train] / train.sum() for factor in factors]
    design = np.einsum("ei,ej->eij", *factors).reshape(len(residual), -1)
    gram = rows.sum() * np.kron(*seconds)
    scale = np.outer(*(np.linalg.eigvalsh(second) for second in seconds)).mean()
    weights = np.linalg.solve(gram + penalty * scale * np.eye(len(gram)), design[rows].T @ residual[rows])
    return design @ weights * (1 + penalty / rows.sum())


def columns_ridge(columns, residual, rows, train, penalty):
    """Return the predictions for all events of an ordinary ridge regression on standardised columns."""
    design = (
        (columns - columns[train].mean(0)) / columns[train].std(0) * np.array([20, 3, 3, 3, 3, 1, 1 / 3, 1 / 3, 1 / 3])
    )
    gram = design[rows].T @ design[rows] + penalty * np.eye(design.shape[1])
    return design @ np.linalg.solve(gram, design[rows].T @ residual[rows])


def test_probe_equals_two_ridge_regressions_with_explicit_gram_matrices():
    inputs, base, labels, groups = events(np.random.default_rng(1))
    fit = fit_probe(inputs, base, labels, groups)
    residual, group = (labels - torch.sigmoid(base)).numpy(), groups.numpy()
    train, test = group >= 0, group < 0

    def stacked(penalty, without=()):
        first = bilinear(inputs, residual, train & ~np.isin(group, without), train, penalty)
        for fold in range(4):
            held_out = train & (group % 4 == fold)
            first[held_out] = bilinear(inputs, residual, train & ~held_out & ~np.isin(group, without), train, penalty)[
                held_out
            ]
        return np.concatenate([first[:, None], inputs.columns.numpy()], axis=1)

    columns, grid = stacked(fit.penalty), np.geomspace(1e3, 1e7, 400)
    candidates = [columns_ridge(columns, residual, train, train, penalty)[test] for penalty in grid]
    expected = fit.score.numpy()[test] / fit.slope
    errors = [np.abs(candidate - expected).max() for candidate in candidates]
    assert min(errors) < 0.01 * np.abs(expected).max()  # the second penalty is near to one of a fine grid


def test_the_first_penalty_has_the_least_cross_validated_error_at_its_best_scale():
    inputs, base, labels, groups = events(np.random.default_rng(2))
    fit = fit_probe(inputs, base, labels, groups)
    residual, group = (labels - torch.sigmoid(base)).numpy(), groups.numpy()
    train = group >= 0

    def error(penalty):
        predictions = np.zeros(len(residual))
        for fold in range(4):
            held_out = train & (group % 4 == fold)
            predictions[held_out] = bilinear(inputs, residual, train & ~held_out, train, penalty)[held_out]
        scale = max(0.0, predictions[train] @ residual[train]) / (predictions[train] @ predictions[train])
        return ((residual[train] - scale * predictions[train]) ** 2).sum()

    errors = [error(penalty) for penalty in PENALTIES]
    nearest = np.abs(np.log(PENALTIES) - np.log(fit.penalty)).argmin()
    assert abs(nearest - np.argmin(errors)) <= 1


def test_training_events_are_scored_by_weights_that_never_saw_their_fold():
    inputs, base, labels, groups = events(np.random.default_rng(3))
    group = groups.numpy()
    own = np.flatnonzero(group == 1)
    flipped = labels.clone()
    flipped[own] = 1 - flipped[own]  # penalties and slope change with them, the direction of the weights must not
    fixed = {"penalties": (1e4, 1e4 * 1.0001, 1e4 * 1.0002)}
    first, second = (fit_probe(inputs, base, target, groups, **fixed) for target in (labels, flipped))
    assert first.slope > 0
    assert second.slope > 0
    scores = [fit.score.numpy()[own] / fit.slope for fit in (first, second)]
    assert np.corrcoef(*scores)[0, 1] > 0.999


def test_a_jackknife_fit_leaves_out_one_group():
    inputs, base, labels, groups = events(np.random.default_rng(4))
    fixed = {"penalties": (1e4, 1e4 * 1.0001, 1e4 * 1.0002)}
    fit = fit_probe(inputs, base, labels, groups, **fixed)
    remaining = torch.where(groups == 5, -1, groups)
    expected = fit_probe(inputs, base, labels, remaining, **fixed)
    test = (groups < 0).numpy()
    held_out = fit.leave_group_out.numpy()[test, 5] / fit.slope
    assert np.corrcoef(held_out, expected.score.numpy()[test])[0, 1] > 0.999
    assert np.corrcoef(held_out, fit.score.numpy()[test])[0, 1] < 0.9999


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
    fit = fit_probe(ProbeInputs(zeros, zeros, zeros, zeros, zeros), torch.zeros(40, dtype=torch.float64), labels, folds)
    assert fit.slope == 0.0
    assert not fit.score.any()
