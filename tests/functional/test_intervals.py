import inspect
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.special import stdtr
from scipy.stats import t

from lis_lightning.errors import ShapeError
from lis_lightning.functional.auc import auroc, auroc_influence
from lis_lightning.functional.grouped_auc import grouped_auroc_influence
from lis_lightning.functional.intervals import (
    Estimate,
    cluster_interval,
    effective_users,
    fieller_ratio,
    paired_difference,
    user_sums,
)

NUM_USERS, EVENTS = 300, 12


@pytest.fixture(scope="module")
def clustered():
    """Events of 300 users whose scores and labels share a user effect, two arms, and dwell times as weights."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(NUM_USERS), EVENTS)
    taste = rng.standard_normal(NUM_USERS)[users]
    signal = rng.standard_normal(users.size)
    labels = rng.random(users.size) < 1 / (1 + np.exp(-taste - signal))
    base = 0.5 * taste + rng.standard_normal(users.size)
    return {
        "base": base,
        "arm": base + 0.8 * signal,
        "labels": labels,
        "users": users,
        "weights": rng.exponential(size=users.size) * np.exp(0.5 * taste),
    }


def bootstrap(statistic, rounds=500):
    """The standard deviation of a statistic of rows, over users drawn with replacement."""
    rng = np.random.default_rng(1)
    rows = np.arange(NUM_USERS * EVENTS).reshape(NUM_USERS, EVENTS)
    return np.std([statistic(rows[rng.integers(0, NUM_USERS, NUM_USERS)].ravel()) for _ in range(rounds)])


def sums(influence, data):
    return user_sums(influence, data["users"], NUM_USERS)


# --- against a bootstrap over users ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_cluster_interval_equals_a_bootstrap(clustered, weighted):
    scores, labels = clustered["base"], clustered["labels"]
    weights = clustered["weights"] if weighted else None
    auc, influence = auroc_influence(scores, labels, weights)
    interval = cluster_interval(auc, sums(influence, clustered))
    expected = bootstrap(lambda rows: auroc(scores[rows], labels[rows], None if weights is None else weights[rows]))
    assert interval.se == pytest.approx(expected, rel=0.1)
    assert interval.se > 1.1 * math.sqrt(float(influence @ influence))  # what events without clusters would give


@pytest.mark.parametrize("weighted", [False, True])
def test_paired_difference_equals_a_bootstrap_of_the_difference(clustered, weighted):
    base, arm, labels = clustered["base"], clustered["arm"], clustered["labels"]
    weights = clustered["weights"] if weighted else None

    def gain(rows):
        chosen = None if weights is None else weights[rows]
        return auroc(arm[rows], labels[rows], chosen) - auroc(base[rows], labels[rows], chosen)

    (auc, influence), (auc_base, base_influence) = (auroc_influence(s, labels, weights) for s in (arm, base))
    difference = paired_difference(auc, sums(influence, clustered), auc_base, sums(base_influence, clustered))
    assert difference.value == pytest.approx(gain(np.arange(labels.size)), abs=1e-12)
    assert difference.se == pytest.approx(bootstrap(gain), rel=0.1)
    unpaired = math.hypot(*(cluster_interval(0.0, sums(i, clustered)).se for i in (influence, base_influence)))
    assert difference.se < 0.8 * unpaired


def test_the_gain_of_a_per_user_auc_has_an_interval_too(clustered):
    base, arm, labels, users = (clustered[name] for name in ("base", "arm", "labels", "users"))
    (gauc, influence), (gauc_base, base_influence) = (
        grouped_auroc_influence(scores, labels, users, NUM_USERS) for scores in (arm, base)
    )
    gain = paired_difference(gauc, influence, gauc_base, base_influence)
    fresh = np.repeat(np.arange(NUM_USERS), EVENTS)  # a user drawn twice is two users

    def resampled_gain(rows):
        after, before = (grouped_auroc_influence(s[rows], labels[rows], fresh, NUM_USERS)[0] for s in (arm, base))
        return after - before

    assert gain.se == pytest.approx(bootstrap(resampled_gain), rel=0.1)


def test_repeated_rows_say_nothing_new_and_repeated_users_do(clustered):
    scores, labels, users = clustered["base"], clustered["labels"], clustered["users"]
    once = cluster_interval(*_auc_and_sums(scores, labels, users, NUM_USERS))
    twice = [np.tile(values, 2) for values in (scores, labels, users)]
    assert cluster_interval(*_auc_and_sums(*twice, NUM_USERS)).se == pytest.approx(once.se, rel=1e-12)
    strangers = np.concatenate([users, users + NUM_USERS])
    more = cluster_interval(*_auc_and_sums(*twice[:2], strangers, 2 * NUM_USERS))
    assert more.se == pytest.approx(once.se / math.sqrt(2), rel=0.01)


def _auc_and_sums(scores, labels, users, num_users):
    auc, influence = auroc_influence(scores, labels)
    return auc, user_sums(influence, users, num_users)


# --- the interval ---------------------------------------------------------------------------------------------------


def test_cluster_interval_of_a_worked_case():
    interval = cluster_interval(0.5, np.array([0.1, -0.1]))
    assert interval.se == pytest.approx(0.2)
    assert interval.low == pytest.approx(0.5 - t.ppf(0.975, 2) * 0.2)
    assert interval.high == pytest.approx(0.5 + t.ppf(0.975, 2) * 0.2)
    assert interval.z == pytest.approx(2.5)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40), st.randoms(use_true_random=False))
def test_the_order_of_users_does_not_matter_and_the_interval_scales(values, random):
    influence = np.array(values)
    shuffled = np.array(random.sample(values, len(values)))
    first, second = cluster_interval(0.1, influence), cluster_interval(0.1, shuffled)
    assert first.se == pytest.approx(second.se, rel=1e-12)
    assert first.low == pytest.approx(second.low, rel=1e-9)
    assert cluster_interval(0.0, 1024 * influence).high == pytest.approx(1024 * cluster_interval(0.0, influence).high)


@given(st.lists(st.floats(-1e-150, 1e-150), min_size=1, max_size=40))
def test_effective_users_are_between_one_and_all(values):
    assert 1.0 - 1e-9 <= effective_users(np.array(values)) <= len(values) * (1 + 1e-9)


def test_many_equal_users_give_the_normal_interval():
    interval = cluster_interval(0.0, np.tile([1e-4, -1e-4], 50_000))
    assert interval.high / interval.se == pytest.approx(1.96, abs=1e-3)


@pytest.mark.parametrize("heavy", [False, True], ids=["light", "heavy"])
def test_coverage_with_forty_users(heavy):
    """A gain whose truth is 0: both arms are the same noise, of users with few or very uneven numbers of events."""
    rng = np.random.default_rng(0)
    influence_of = inspect.unwrap(auroc_influence)  # a thousand calls
    covered = normal = 0
    for _ in range(1000):
        sizes = np.minimum(6 * (rng.pareto(1.5, 40) + 1), 400).astype(int) if heavy else rng.integers(8, 16, 40)
        users = np.repeat(np.arange(40), sizes)
        effect = 0.5 * rng.standard_normal((3, 40))[:, users]
        labels = rng.random(users.size) < 1 / (1 + np.exp(1 - effect[0]))
        noise = rng.standard_normal((2, users.size)) + effect[1:]
        (auc, influence), (other, other_influence) = (influence_of(arm, labels) for arm in noise)
        interval = cluster_interval(auc - other, np.bincount(users, influence - other_influence, 40))
        covered += interval.low <= 0 <= interval.high
        normal += abs(interval.z) <= 1.96
    assert 930 <= covered <= 970
    assert normal <= covered
    if heavy:
        assert normal < 930  # what a normal quantile would give


def test_z_of_nothing_is_nan():
    assert math.isnan(Estimate(value=math.nan, se=math.nan, low=math.nan, high=math.nan).z)


def test_one_user_has_an_infinite_interval():
    assert cluster_interval(0.1, np.array([0.0])).low == -math.inf
    ratio = fieller_ratio(0.1, np.array([0.0]), 0.2, np.array([0.0]))
    assert (ratio.value, ratio.se, ratio.low, ratio.high) == (0.5, math.inf, -math.inf, math.inf)


def test_paired_difference_of_a_result_with_itself_is_exact():
    influence = np.array([0.1, -0.3, 0.2])
    difference = paired_difference(0.4, influence, 0.4, influence)
    assert (difference.value, difference.se, difference.z) == (0.0, 0.0, 0.0)
    assert (difference.low, difference.high) == (0.0, 0.0)


@pytest.mark.parametrize("pair", [paired_difference, fieller_ratio])
def test_pairs_need_the_same_users(pair):
    unchecked = inspect.unwrap(pair)  # the tests check shapes before the function does
    with pytest.raises(ShapeError, match=r"\(2,\) and \(3,\)"):
        unchecked(0.4, np.zeros(2), 0.4, np.zeros(3))


def test_users_out_of_range_are_refused():
    with pytest.raises(ShapeError, match=r"in \[0, 2\), got 0 to 2"):
        user_sums(np.zeros(2), np.array([0, 2]), 2)


# --- the ratio ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 3.0))
def test_fieller_interval_is_what_a_search_over_ratios_finds(seed, spread):
    rng = np.random.default_rng(seed)
    shared, own = rng.standard_normal((2, 60)) / 60
    numerator, denominator = spread * (0.5 * shared + 0.4 * own), spread * shared
    value, other = rng.uniform(-0.3, 0.6), rng.uniform(0.2, 0.8)
    ratio = fieller_ratio(value, numerator, other, denominator)
    quantile = t.ppf(0.975, effective_users(numerator - ratio.value * denominator))

    def inside(r):
        residual = numerator - r * denominator
        return abs(value - r * other) <= quantile * math.sqrt(60 / 59 * residual @ residual)

    assert inside(ratio.value)
    if math.isinf(ratio.low):
        assert inside(1e9) or inside(-1e9)  # the search would not end either
        return
    for end, outwards in ((ratio.low, -1), (ratio.high, 1)):
        step = 1e-6 * max(1.0, abs(end))
        assert inside(end - outwards * step)
        assert not inside(end + outwards * step)
    assert all(inside(r) for r in np.linspace(ratio.low, ratio.high, 52)[1:-1])


def test_fieller_interval_covers_the_true_ratio():
    rng = np.random.default_rng(0)
    truth, hits, rounds = 0.4, 0, 1000
    for _ in range(rounds):
        shared = rng.standard_normal(200)
        a = 0.04 + 0.1 * (0.6 * shared + rng.standard_normal(200))
        b = 0.10 + 0.1 * shared
        ratio = fieller_ratio(a.mean(), (a - a.mean()) / 200, b.mean(), (b - b.mean()) / 200)
        hits += ratio.low <= truth <= ratio.high
    assert 0.93 <= hits / rounds <= 0.97


def test_a_ratio_without_error_is_a_point():
    ratio = fieller_ratio(0.01, np.zeros(3), 0.03, np.zeros(3))
    assert ratio.low == pytest.approx(1 / 3)
    assert ratio.high == pytest.approx(1 / 3)
    assert ratio.se == 0.0


def test_fieller_interval_is_unbounded_where_the_ceiling_is_unclear():
    ratio = fieller_ratio(0.01, np.array([0.01, -0.01]), 0.001, np.array([0.02, -0.02]))
    assert (ratio.low, ratio.high) == (-math.inf, math.inf)


def test_fieller_ratio_to_zero_is_nan():
    assert math.isnan(fieller_ratio(0.01, np.zeros(3), 0.0, np.zeros(3)).value)


@pytest.mark.parametrize("z", [0.3, 1.9, 2.6])
def test_p_is_below_5_percent_where_the_interval_leaves_out_0(z):
    influence = np.random.default_rng(0).standard_t(3, 60)
    se = cluster_interval(0.0, influence).se
    estimate = cluster_interval(-z * se, influence)
    assert (estimate.p < 0.05) == (estimate.high < 0)
    assert estimate.p == cluster_interval(z * se, influence).p == pytest.approx(2 * stdtr(estimate.degrees, -z))


def test_p_is_unknown_without_a_reference_distribution():
    assert math.isnan(Estimate(value=1.0, se=1.0, low=-1.0, high=3.0).p)
