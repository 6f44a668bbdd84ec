import inspect

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.metrics import roc_auc_score

from lis_lightning.errors import ShapeError
from lis_lightning.functional.attribution import auroc_shares, group_totals
from lis_lightning.functional.auc import auroc_influence


def events(seed, num=300):
    rng = np.random.default_rng(seed)
    labels = np.r_[0, 1, rng.integers(0, 2, num - 2)]
    return rng.integers(0, 40, num) / 8 + labels, labels, rng.integers(0, 12, num), rng.integers(0, 25, num)


@given(st.integers(0, 2**31))
def test_contributions_add_up_to_the_auc(seed):
    scores, labels, _, _ = events(seed)
    auc, influence = auroc_influence(scores, labels)
    assert auroc_shares(influence, auc, labels).sum() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_a_contribution_is_half_the_pairs_in_order_over_all_pairs():
    scores, labels, _, _ = events(0, 30)
    auc, influence = auroc_influence(scores, labels)
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    expected = np.zeros(30)
    for p in positive:
        for n in negative:
            won = (scores[p] > scores[n]) + 0.5 * (scores[p] == scores[n])
            expected[[p, n]] += 0.5 * won / (positive.size * negative.size)
    np.testing.assert_allclose(auroc_shares(influence, auc, labels), expected, atol=1e-15)


def test_totals_and_errors_equal_sums_over_pairs_of_group_and_user():
    rng = np.random.default_rng(1)
    shares, (_, _, groups, users) = rng.standard_normal(300), events(1)
    totals, errors = group_totals(shares, groups, users, 14)
    for group in range(14):
        of_users = [shares[(groups == group) & (users == user)].sum() for user in range(25)]
        assert totals[group] == pytest.approx(sum(of_users))
        assert errors[group] == pytest.approx(np.sqrt(np.square(of_users).sum()))


def test_errors_equal_a_bootstrap_over_users():
    rng = np.random.default_rng(2)
    num, num_users = 4000, 400
    users, groups = rng.integers(0, num_users, num), rng.integers(0, 3, num)
    shares = rng.standard_normal(num) + rng.standard_normal(num_users)[users]
    _, errors = group_totals(shares, groups, users, 3)
    of_user = np.stack([np.bincount(users, shares * (groups == group), num_users) for group in range(3)], 1)
    draws = np.stack([of_user[rng.integers(0, num_users, num_users)].sum(0) for _ in range(2000)])
    np.testing.assert_allclose(errors, draws.std(0), rtol=0.08)


def test_lengths_and_groups_out_of_range_are_refused():
    ones = np.ones(3)
    # The tests check shapes before the functions do; users' calls do not.
    with pytest.raises(ShapeError, match=r"\(3,\), got \(2,\)"):
        inspect.unwrap(auroc_shares)(ones, 0.5, np.array([0, 1]))
    with pytest.raises(ShapeError, match=r"\(3,\), \(2,\) and \(3,\)"):
        inspect.unwrap(group_totals)(ones, np.array([0, 1]), np.array([0, 1, 2]), 4)
    with pytest.raises(ShapeError, match=r"\[0, 2\), got 0 to 2"):
        group_totals(ones, np.array([0, 1, 2]), np.array([0, 1, 2]), 2)
