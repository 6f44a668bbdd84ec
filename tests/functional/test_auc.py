import inspect
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from lis_lightning.errors import LogError, NonFiniteError, ShapeError
from lis_lightning.functional.auc import auroc, auroc_influence


def cases(min_size=2):
    """Scores with many ties, labels of both classes, and weights of which some are zero."""
    return st.integers(min_size, 60).flatmap(
        lambda size: st.tuples(
            hnp.arrays(np.float64, size, elements=st.integers(-4, 4).map(float)),
            hnp.arrays(bool, size).filter(lambda y: 0 < y.sum() < y.size),
            hnp.arrays(np.float64, size, elements=st.sampled_from([0.0, 0.25, 1.0, 3.7])),
        )
    )


events = cases().map(lambda case: case[:2])
weighted = cases().filter(lambda case: case[2][case[1]].any() and case[2][~case[1]].any())


def brute_force(scores, labels, weights):
    wins = total = 0.0
    for p in np.flatnonzero(labels):
        for n in np.flatnonzero(~labels):
            wins += weights[p] * weights[n] * ((scores[p] > scores[n]) + 0.5 * (scores[p] == scores[n]))
            total += weights[p] * weights[n]
    return wins / total


# --- the number -----------------------------------------------------------------------------------------------------


@given(events)
def test_auroc_equals_a_double_loop_with_ties(case):
    scores, labels = case
    assert auroc(scores, labels) == pytest.approx(brute_force(scores, labels, np.ones(scores.size)), abs=1e-12)


@given(events)
def test_auroc_equals_sklearn_and_scipy(case):
    scores, labels = case
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    wins = mannwhitneyu(scores[labels], scores[~labels], method="asymptotic").statistic
    assert auroc(scores, labels) == wins / (labels.sum() * (~labels).sum())


@given(weighted)
def test_weighted_auroc_equals_a_double_loop_and_sklearn(case):
    scores, labels, weights = case
    got = auroc(scores, labels, weights)
    assert got == pytest.approx(brute_force(scores, labels, weights), abs=1e-12)
    assert got == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-12)


@given(weighted)
def test_weights_scale_freely_and_ones_change_nothing(case):
    scores, labels, weights = case
    assert auroc(scores, labels, 1024.0 * weights) == auroc(scores, labels, weights)
    assert auroc(scores, labels, np.ones(scores.size)) == pytest.approx(auroc(scores, labels), abs=1e-15)


@given(events, st.integers(0, 3))
def test_a_whole_weight_is_that_many_rows(case, extra):
    scores, labels = case
    weights = 1 + np.arange(scores.size) % (extra + 1)
    repeated = auroc(np.repeat(scores, weights), np.repeat(labels, weights))
    assert auroc(scores, labels, weights) == pytest.approx(repeated, abs=1e-15)


def test_auroc_keeps_the_order_of_logits_that_a_sigmoid_would_saturate():
    assert auroc(np.array([20.0, 30.0, 40.0, -1.0]), np.array([0, 1, 1, 0])) == 1.0


def test_auroc_keeps_the_order_of_integers_beyond_float64():
    assert auroc(np.array([2**53, 2**53 + 1]), np.array([0, 1])) == 1.0


def test_infinite_scores_have_an_order():
    assert auroc(np.array([-np.inf, 0.0, np.inf]), np.array([0, 0, 1])) == 1.0


@given(weighted)
def test_equal_scores_are_one_half_to_the_bit(case):
    scores, labels, weights = case
    for chosen in (None, weights):
        auc, influence = auroc_influence(np.full(scores.size, 0.3), labels, chosen)
        assert auc == auroc(np.full(scores.size, 0.3), labels, chosen) == 0.5
        assert not influence.any()


# --- invariances ----------------------------------------------------------------------------------------------------


@given(weighted, st.randoms(use_true_random=False))
def test_auroc_ignores_the_order_of_events(case, random):
    scores, labels, weights = case
    order = np.array(random.sample(range(scores.size), scores.size))
    assert auroc(scores[order], labels[order]) == auroc(scores, labels)
    shuffled, given_order = (auroc_influence(scores[o], labels[o], weights[o]) for o in (order, np.arange(scores.size)))
    assert shuffled[0] == pytest.approx(given_order[0], abs=1e-14)
    np.testing.assert_allclose(shuffled[1], given_order[1][order], atol=1e-14)


@given(events)
def test_auroc_ignores_monotone_transforms_and_duplicated_rows(case):
    scores, labels = case
    assert auroc(np.exp(scores), labels) == auroc(3 * scores - 7, labels) == auroc(scores, labels)
    assert auroc(np.tile(scores, 2), np.tile(labels, 2)) == auroc(scores, labels)


@given(weighted)
def test_swapped_labels_and_negated_scores_mirror_the_auc(case):
    scores, labels, weights = case
    for chosen in (None, weights):
        mirrored = 1 - auroc(scores, labels, chosen)
        assert auroc(scores, ~labels, chosen) == pytest.approx(mirrored, abs=1e-14)
        assert auroc(-scores, labels, chosen) == pytest.approx(mirrored, abs=1e-14)


# --- influence ------------------------------------------------------------------------------------------------------


@given(weighted)
def test_influence_is_the_centred_share_of_pairs_in_order(case):
    scores, labels, weights = case
    auc, influence = auroc_influence(scores, labels, weights)
    for event, label in enumerate(labels):
        opposite = labels != label
        wins = (scores[event] > scores[opposite]) + 0.5 * (scores[event] == scores[opposite])
        placement = np.average(wins if label else 1 - wins, weights=weights[opposite])
        expected = weights[event] * (placement - auc) / weights[~opposite].sum()
        assert influence[event] == pytest.approx(expected, abs=1e-12)


@given(weighted)
def test_influence_sums_to_zero_within_each_class(case):
    scores, labels, weights = case
    for chosen in (None, weights):
        auc, influence = auroc_influence(scores, labels, chosen)
        assert auc == auroc(scores, labels, chosen)
        assert influence[labels].sum() == pytest.approx(0.0, abs=1e-12)
        assert influence[~labels].sum() == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=30)
@given(weighted)
def test_influence_is_the_derivative_by_the_weight_of_an_event(case):
    scores, labels, weights = case
    _, influence = auroc_influence(scores, labels, weights)
    step = 1e-5
    for event in range(scores.size):
        up, down = weights.copy(), weights.copy()
        up[event] *= 1 + step
        down[event] *= 1 - step
        slope = (auroc(scores, labels, up) - auroc(scores, labels, down)) / (2 * step)
        assert influence[event] == pytest.approx(slope, abs=1e-7)


# --- many events ----------------------------------------------------------------------------------------------------


def counted(scores, labels, levels):
    """The AUC of whole scores from histograms, as an exact fraction."""
    positives, negatives = (np.bincount(scores[part], minlength=levels).tolist() for part in (labels, ~labels))
    below = double_wins = 0
    for p, n in zip(positives, negatives, strict=True):
        double_wins += p * (2 * below + n)
        below += n
    return Fraction(double_wins, 2 * sum(positives) * sum(negatives))


@pytest.mark.parametrize("size", [100_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_the_auc_of_many_tied_events_is_rounded_once(size):
    rng = np.random.default_rng(0)
    labels = rng.random(size) < 0.4
    scores = np.where(labels, rng.integers(50, 1000, size), rng.integers(0, 950, size))
    expected = float(counted(scores, labels, 1000))
    assert auroc(scores, labels) == expected
    assert auroc(scores.astype(np.float32), labels) == expected
    assert auroc_influence(scores, labels)[0] == expected


@pytest.mark.slow
def test_a_million_events_equal_sklearn():
    rng = np.random.default_rng(0)
    labels, weights = rng.random(1_000_000) < 0.1, rng.exponential(size=1_000_000)
    scores = np.round(rng.standard_normal(1_000_000) + labels, 3)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-11)
    assert auroc(scores, labels, weights) == pytest.approx(
        roc_auc_score(labels, scores, sample_weight=weights), abs=1e-11
    )


# --- bad input ------------------------------------------------------------------------------------------------------


def test_one_class_is_refused_with_its_counts():
    for function in (auroc, auroc_influence):
        with pytest.raises(LogError, match="3 positives among 3 events"):
            function(np.zeros(3), np.ones(3, int))
    with pytest.raises(LogError, match="0 positives among 0 events"):
        auroc(np.zeros(0), np.zeros(0, int))


@pytest.mark.parametrize("values", [[0, 1, 2, 5], [0.0, 1.0, 2.0, 5.0]], ids=["int", "float"])
def test_labels_of_other_values_are_refused_by_name(values):
    for function in (auroc, auroc_influence):
        with pytest.raises(LogError, match=r"got \[2(\.0)?, 5(\.0)?\] in 2 of 4 events, the first at index 2"):
            function(np.zeros(4), np.array(values))
    with pytest.raises(LogError, match=r"got \[nan\] in 1 of 2"):
        auroc(np.zeros(2), np.array([np.nan, 1.0]))
    with pytest.raises(LogError, match=r"got \[-1\] in 1 of 2"):
        auroc(np.zeros(2), np.array([-1, 1]))


def test_nan_scores_are_refused_with_the_first_index():
    scores, labels = np.array([0.0, np.nan, 1.0]), np.array([0, 1, 1])
    for function in (auroc, auroc_influence):
        with pytest.raises(NonFiniteError, match="1 of 3 scores are NaN, the first at index 1"):
            function(scores, labels)
        with pytest.raises(NonFiniteError, match="1 of 3 scores are NaN, the first at index 1"):
            function(scores, 1 - labels)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0, np.inf, 1.0], NonFiniteError, "1 of 3 weights are NaN or infinite, the first at index 1"),
        ([1.0, 1.0, -2.5], LogError, r"got -2\.5 at index 2 \(1 of 3 are negative\)"),
        ([2.0, 0.0, 0.0], LogError, r"total of 0\.0 on the positives and 2\.0 on the negatives"),
    ],
    ids=["infinite", "negative", "one class"],
)
def test_weights_that_weigh_nothing_are_refused(weights, error, message):
    for function in (auroc, auroc_influence):
        with pytest.raises(error, match=message):
            function(np.zeros(3), np.array([0, 1, 1]), np.array(weights))


def test_lengths_that_differ_are_refused():
    # The tests check shapes before the functions do; users' calls do not.
    with pytest.raises(ShapeError, match=r"scores \(2,\) and labels \(3,\)"):
        inspect.unwrap(auroc)(np.zeros(2), np.zeros(3, int))
    with pytest.raises(ShapeError, match=r"one weight per event, shape \(2,\), got \(3,\)"):
        inspect.unwrap(auroc)(np.zeros(2), np.array([0, 1]), np.ones(3))
