import inspect
import math

import numpy as np
import pytest

from lis_lightning.errors import ShapeError
from lis_lightning.functional.auroc import auroc, auroc_influence
from lis_lightning.functional.intervals import (
    Z95,
    Estimate,
    cluster_interval,
    fieller_ratio,
    paired_difference,
    user_sums,
)


@pytest.fixture(scope="module")
def clustered():
    """Events of 300 users whose scores and labels share a user effect: iid variances are too small here."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(300), 12)
    taste = rng.standard_normal(300)[users]
    labels = rng.random(users.size) < 1 / (1 + np.exp(-taste))
    scores = 0.5 * taste + rng.standard_normal(users.size)
    return scores, labels, users


def test_cluster_interval_equals_a_bootstrap_over_users(clustered):
    scores, labels, users = clustered
    auc, influence = auroc_influence(scores, labels)
    interval = cluster_interval(auc, user_sums(influence, users, 300))
    rng = np.random.default_rng(1)
    rows = np.arange(users.size).reshape(300, 12)
    draws = []
    for _ in range(600):
        chosen = rows[rng.integers(0, 300, 300)].ravel()
        draws.append(auroc(scores[chosen], labels[chosen]))
    assert interval.se == pytest.approx(np.std(draws), rel=0.1)
    iid = math.sqrt(float(influence @ influence))
    assert interval.se > 1.1 * iid


def test_cluster_interval_of_a_worked_case():
    interval = cluster_interval(0.5, np.array([0.1, -0.1]))
    assert interval.se == pytest.approx(0.2)
    assert interval.low == pytest.approx(0.5 - Z95 * 0.2)
    assert interval.z == pytest.approx(2.5)


def test_z_of_nothing_is_nan():
    assert math.isnan(Estimate(value=math.nan, se=math.nan, low=math.nan, high=math.nan).z)


def test_one_user_has_an_infinite_interval():
    assert cluster_interval(0.1, np.array([0.0])).low == -math.inf


def test_paired_difference_of_a_result_with_itself_is_exact():
    influence = np.array([0.1, -0.3, 0.2])
    difference = paired_difference(0.4, influence, 0.4, influence)
    assert (difference.value, difference.se, difference.z) == (0.0, 0.0, 0.0)


def test_paired_difference_needs_the_same_users():
    unchecked = inspect.unwrap(paired_difference)  # the tests check shapes before the function does
    with pytest.raises(ShapeError, match=r"\(2,\) and \(3,\)"):
        unchecked(0.4, np.zeros(2), 0.4, np.zeros(3))


def test_fieller_interval_covers_the_true_ratio():
    rng = np.random.default_rng(0)
    truth, hits, rounds = 0.4, 0, 400
    for _ in range(rounds):
        shared = rng.standard_normal(200)
        a = 0.04 + 0.1 * (0.6 * shared + rng.standard_normal(200))
        b = 0.10 + 0.1 * shared
        ratio = fieller_ratio(a.mean(), (a - a.mean()) / 200, b.mean(), (b - b.mean()) / 200)
        hits += ratio.low <= truth <= ratio.high
    assert 0.92 <= hits / rounds <= 0.98


def test_fieller_interval_is_unbounded_where_the_ceiling_is_unclear():
    ratio = fieller_ratio(0.01, np.array([0.01, -0.01]), 0.001, np.array([0.02, -0.02]))
    assert (ratio.low, ratio.high) == (-math.inf, math.inf)


def test_fieller_ratio_to_zero_is_nan():
    assert math.isnan(fieller_ratio(0.01, np.zeros(3), 0.0, np.zeros(3)).value)
