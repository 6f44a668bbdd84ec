import inspect

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import roc_auc_score

from lis_lightning.errors import LogError, NonFiniteError, ShapeError
from lis_lightning.functional.auc import auroc
from lis_lightning.functional.grouped_auc import grouped_auroc_influence


def gauc(scores, labels, groups):
    return grouped_auroc_influence(scores, labels, groups, int(groups.max(initial=-1)) + 1)[0]


def grouped_case(seed, size=90, num_groups=8):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, size).astype(float), rng.random(size) < 0.4, rng.integers(0, num_groups, size)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_gauc_equals_a_loop_of_sklearn(seed):
    scores, labels, groups = grouped_case(seed)
    total, expected = 0.0, 0.0
    for group in np.unique(groups):
        inside = groups == group
        if 0 < labels[inside].sum() < inside.sum():
            total += inside.sum()
            expected += inside.sum() * roc_auc_score(labels[inside], scores[inside])
    assert gauc(scores, labels, groups) == pytest.approx(expected / total, abs=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_gauc_ignores_the_order_of_events_the_names_of_groups_and_shifts_within_them(seed):
    scores, labels, groups = grouped_case(seed)
    expected = gauc(scores, labels, groups)
    order = np.random.default_rng(seed).permutation(scores.size)
    assert gauc(scores[order], labels[order], groups[order]) == pytest.approx(expected, abs=1e-14)
    assert gauc(scores, labels, 1000 - 7 * groups) == pytest.approx(expected, abs=1e-14)
    assert gauc(scores + 2.5 * groups, labels, groups) == expected


def test_one_group_is_the_plain_auc():
    scores, labels, groups = grouped_case(0)
    assert gauc(scores, labels, np.zeros_like(groups)) == auroc(scores, labels)


def test_grouped_influence_is_a_bootstrap_over_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), rng.integers(2, 30, 200))
    labels = rng.random(groups.size) < 0.3
    scores = rng.standard_normal(groups.size) + labels * rng.standard_normal(200)[groups]
    _, influence = grouped_auroc_influence(scores, labels, groups, 200)
    rows = [np.flatnonzero(groups == group) for group in range(200)]
    draws = []
    for _ in range(400):
        chosen = [rows[group] for group in rng.integers(0, 200, 200)]
        fresh = np.repeat(np.arange(200), [part.size for part in chosen])
        every = np.concatenate(chosen)
        draws.append(gauc(scores[every], labels[every], fresh))
    assert np.sqrt(influence @ influence) == pytest.approx(np.std(draws), rel=0.12)


def test_groups_without_an_auc_have_no_influence():
    _, influence = grouped_auroc_influence(
        np.array([1.0, 2, 5, 4, 3]), np.array([0, 1, 0, 1, 1]), np.array([1, 1, 2, 2, 4]), 6
    )
    np.testing.assert_allclose(influence, [0, 0.25, -0.25, 0, 0, 0])


def test_gauc_is_nan_when_no_group_has_both_classes():
    scores, labels, groups = np.array([1.0, 2.0]), np.array([0, 1]), np.array([1, 2])
    value, influence = grouped_auroc_influence(scores, labels, groups, 3)
    assert np.isnan(value)
    assert np.isnan(influence).all()
    assert np.isnan(gauc(scores[:0], labels[:0], groups[:0]))


def test_labels_of_other_values_are_refused_by_name():
    with pytest.raises(LogError, match=r"got \[2, 5\] in 2 of 4 events, the first at index 2"):
        gauc(np.zeros(4), np.array([0, 1, 2, 5]), np.zeros(4, int))


def test_nan_scores_are_refused_with_the_first_index():
    with pytest.raises(NonFiniteError, match="1 of 3 scores are NaN, the first at index 1"):
        gauc(np.array([0.0, np.nan, 1.0]), np.array([0, 1, 1]), np.zeros(3, int))


def test_lengths_that_differ_are_refused():
    # The tests check shapes before the function does; users' calls do not.
    with pytest.raises(ShapeError, match=r"one group per event, shape \(2,\), got \(3,\)"):
        inspect.unwrap(grouped_auroc_influence)(np.zeros(2), np.array([0, 1]), np.ones(3, int), 2)


def test_groups_out_of_range_are_refused():
    with pytest.raises(ShapeError, match=r"in \[0, 2\), got 0 to 2"):
        grouped_auroc_influence(np.zeros(2), np.array([0, 1]), np.array([0, 2]), 2)
