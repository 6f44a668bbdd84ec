import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from lis_lightning.errors import LogError, NonFiniteError, ShapeError
from lis_lightning.functional.auroc import auroc, auroc_influence, grouped_auroc


def both_classes(size):
    return hnp.arrays(bool, size).filter(lambda y: 0 < y.sum() < y.size)


events = st.integers(2, 60).flatmap(
    lambda size: st.tuples(hnp.arrays(np.float64, size, elements=st.integers(-4, 4).map(float)), both_classes(size))
)


def brute_force(scores, labels):
    wins = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    return float(np.mean(wins))


@given(events)
def test_auroc_equals_a_double_loop_with_ties(case):
    scores, labels = case
    assert auroc(scores, labels) == pytest.approx(brute_force(scores, labels), abs=1e-12)


@given(events)
def test_auroc_equals_sklearn(case):
    scores, labels = case
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_keeps_the_order_of_logits_that_a_sigmoid_would_saturate():
    assert auroc(np.array([20.0, 30.0, 40.0, -1.0]), np.array([0, 1, 1, 0])) == 1.0


@given(events, st.randoms(use_true_random=False))
def test_auroc_ignores_the_order_of_events(case, random):
    scores, labels = case
    order = np.array(random.sample(range(scores.size), scores.size))
    assert auroc(scores[order], labels[order]) == auroc(scores, labels)


@given(events)
def test_auroc_ignores_monotone_transforms_and_duplicated_rows(case):
    scores, labels = case
    assert auroc(np.exp(scores), labels) == auroc(scores, labels)
    assert auroc(np.tile(scores, 2), np.tile(labels, 2)) == auroc(scores, labels)


@given(events)
def test_influence_sums_to_zero_and_equals_the_placements(case):
    scores, labels = case
    auc, influence = auroc_influence(scores, labels)
    assert auc == pytest.approx(auroc(scores, labels), abs=1e-12)
    assert influence.sum() == pytest.approx(0.0, abs=1e-12)
    event = int(np.flatnonzero(labels)[0])
    placement = np.mean((scores[event] > scores[~labels]) + 0.5 * (scores[event] == scores[~labels]))
    assert influence[event] == pytest.approx((placement - auc) / labels.sum(), abs=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["impressions", "positives"]))
def test_grouped_auroc_equals_a_loop_of_sklearn(seed, weight):
    rng = np.random.default_rng(seed)
    groups, scores, labels = rng.integers(0, 8, 90), rng.integers(0, 5, 90).astype(float), rng.random(90) < 0.4
    total, expected = 0.0, 0.0
    for group in np.unique(groups):
        inside = groups == group
        if 0 < labels[inside].sum() < inside.sum():
            mass = inside.sum() if weight == "impressions" else labels[inside].sum()
            total += mass
            expected += mass * roc_auc_score(labels[inside], scores[inside])
    assert grouped_auroc(scores, labels, groups, weight=weight) == pytest.approx(expected / total, abs=1e-12)


def test_grouped_auroc_is_nan_when_no_group_has_both_classes():
    assert np.isnan(grouped_auroc(np.array([1.0, 2.0]), np.array([0, 1]), np.array([1, 2])))


def test_one_class_is_refused_with_its_counts():
    with pytest.raises(LogError, match="3 positives among 3 events"):
        auroc(np.zeros(3), np.ones(3, int))


def test_nan_scores_are_refused_with_the_first_index():
    with pytest.raises(NonFiniteError, match="1 of 3 scores are NaN, the first at index 1"):
        auroc(np.array([0.0, np.nan, 1.0]), np.array([0, 1, 1]))


def test_lengths_that_differ_are_refused():
    unchecked = inspect.unwrap(auroc)  # the tests check shapes before the function does; users' calls do not
    with pytest.raises(ShapeError, match=r"scores \(2,\) and labels \(3,\)"):
        unchecked(np.zeros(2), np.zeros(3, int))
