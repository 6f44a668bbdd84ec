"""Slopes of correlated estimates and their breaks, on curves of a known rate and a known break."""

import numpy as np
import pytest

from lis_lightning.functional.broken_line import NUM_DRAWS, slope, slope_break

NUM_USERS, RATE = 200, 0.1


def curve(seed, num=10, *, kink=None, departures=0.001):
    """Estimates on a metric that saturates: users' noise that changes along the curve, and departures of each point."""
    rng = np.random.default_rng(seed)
    x = np.log(0.05 + 0.25 * (1 - np.exp(-3 * np.arange(num) / num)))
    shared = rng.standard_normal(NUM_USERS) + np.cumsum(rng.standard_normal((num, NUM_USERS)), axis=0) / num**0.5
    influence = 0.004 * (shared + 0.3 * rng.standard_normal((num, NUM_USERS))) / NUM_USERS**0.5
    values = RATE * (x if kink is None else np.minimum(x, x[kink]))
    values = values + influence.sum(axis=1) + departures * rng.standard_normal(num)
    return x, values, influence - influence.mean(axis=1, keepdims=True)


def test_the_interval_covers_the_rate():
    found = [slope(*curve(seed)) for seed in range(200)]
    assert np.mean([one.low <= RATE <= one.high for one in found]) == pytest.approx(0.95, abs=0.04)
    assert np.mean([one.value for one in found]) == pytest.approx(RATE, abs=0.002)


def test_errors_that_all_estimates_share_do_not_count():
    x, influence = np.arange(6.0), np.tile(np.random.default_rng(0).standard_normal(50), (6, 1))
    found = slope(x, 2.0 * x + 5.0, influence)
    assert found.value == pytest.approx(2.0)
    assert found.se == pytest.approx(0.0, abs=1e-6)


def test_departures_from_the_line_widen_the_interval():
    x, values, influence = curve(0, departures=0.0)
    zigzag = values + 0.01 * (-1) ** np.arange(10)
    assert slope(x, zigzag, influence).se > 2 * slope(x, values, influence).se


def test_a_line_without_a_break_rarely_alarms_and_a_break_is_found_where_it_is():
    alarms = [slope_break(*curve(seed)).p < 0.05 for seed in range(150)]
    assert np.mean(alarms) <= 0.09  # 150 draws of 5 %: below that with a probability of 98 %
    found = [slope_break(*curve(seed, kink=5)) for seed in range(40)]
    assert np.mean([one.p < 0.05 for one in found]) > 0.8
    assert np.median([one.index for one in found]) == 5
    assert np.median([one.before.value for one in found]) == pytest.approx(RATE, abs=0.01)
    assert np.mean([one.since.low <= 0 <= one.since.high for one in found]) > 0.85


def test_the_smallest_p_value_is_one_over_the_draws():
    x = np.arange(12.0)
    rng = np.random.default_rng(0)
    found = slope_break(x, np.minimum(x, 6) + 1e-3 * rng.standard_normal(12), 1e-6 * rng.standard_normal((12, 30)))
    assert (found.index, found.p) == (6, 1 / (1 + NUM_DRAWS))


@pytest.mark.parametrize(("x", "index"), [([0, 1, 2, 3], None), ([0, 1, 2, 3, 3, 3], 2), ([0, 0, 0, 0, 0, 1], None)])
def test_a_break_has_movement_on_both_sides(x, index):
    rng, x = np.random.default_rng(0), np.array(x, float)
    found = slope_break(x, x + rng.standard_normal(x.size), rng.standard_normal((x.size, 20)))
    assert (None if found is None else found.index) == index


def test_a_line_without_noise_has_no_break():
    x = np.arange(9.0) / 7
    assert slope_break(x, 0.3 * x, np.zeros((9, 20))).p == 1.0
