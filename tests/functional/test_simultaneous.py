"""Simultaneous critical values and selection-corrected maxima, against known limits and by coverage."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm

from lis_lightning.functional.intervals import cluster_interval
from lis_lightning.functional.simultaneous import (
    cross_fitted_maximum,
    largest_fall_critical_value,
    simultaneous_critical_value,
)

NUM_USERS = 300


def drawn(truth, seed, memory=0.0):
    """Estimates around a truth, with influence vectors that share a part of their users' noise."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((len(truth), NUM_USERS))
    for index in range(1, len(truth)):
        own[index] = memory * own[index - 1] + math.sqrt(1 - memory**2) * own[index]
    influence = (own * 0.0007 + 0.0015 * rng.standard_normal(NUM_USERS)) / math.sqrt(NUM_USERS)
    values = truth + influence.sum(axis=1)
    return values, influence - influence.mean(axis=1, keepdims=True)


def test_equal_estimates_have_the_critical_value_of_one():
    influence = np.random.default_rng(0).standard_normal(2000)
    assert simultaneous_critical_value(np.array([influence] * 30)) == pytest.approx(1.96, abs=0.06)
    assert simultaneous_critical_value(influence[None], two_sided=False) == pytest.approx(1.645, abs=0.06)


def test_independent_estimates_have_that_of_sidak():
    influence = np.random.default_rng(0).standard_normal((10, 20_000))
    sidak = norm.ppf((1 + 0.95 ** (1 / 10)) / 2)
    assert simultaneous_critical_value(influence) == pytest.approx(sidak, abs=0.08)


def test_few_users_make_it_larger_and_estimates_without_influence_do_not_count():
    rng = np.random.default_rng(0)
    few, many = rng.standard_normal((5, 12)), rng.standard_normal((5, 2000))
    assert simultaneous_critical_value(few) > simultaneous_critical_value(many) + 0.3
    padded = np.vstack([many, np.zeros(2000)])
    assert simultaneous_critical_value(padded) == simultaneous_critical_value(many)
    assert simultaneous_critical_value(np.zeros((2, 5))) == math.inf


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_the_corrected_maximum_of_equals_is_unbiased_and_covers(memory):
    truth = np.full(50, 0.02)
    raw, corrected, covered = [], [], []
    for seed in range(200):
        values, influence = drawn(truth, seed, memory)
        estimate = cross_fitted_maximum(values, influence)
        raw.append(values.max() - 0.02)
        corrected.append(estimate.value - 0.02)
        covered.append(estimate.low <= 0.02 <= estimate.high)
    assert np.mean(raw) > 0.001
    assert abs(np.mean(corrected)) < 0.0003
    assert 0.91 <= np.mean(covered) <= 0.98  # 95 %, known to 1.5 %


def test_a_clear_maximum_is_left_as_it_is():
    values, influence = drawn(np.linspace(0, 0.1, 10), seed=0)
    assert cross_fitted_maximum(values, influence).value == pytest.approx(values[-1], abs=1e-12)
    assert cross_fitted_maximum(values[:1], influence[:1]) == cluster_interval(values[0], influence[0])


def test_the_band_covers_the_whole_curve():
    truth = 0.03 * (1 - np.exp(-np.linspace(0, 5, 50)))
    inside = []
    for seed in range(200):
        values, influence = drawn(truth, seed, 0.8)
        errors = np.array([cluster_interval(0.0, row).se for row in influence])
        inside.append(np.all(np.abs(values - truth) <= simultaneous_critical_value(influence) * errors))
    assert 0.91 <= np.mean(inside) <= 0.985


def test_the_largest_fall_between_equals_exceeds_its_critical_value_in_a_twentieth_of_curves():
    rng = np.random.default_rng(0)
    exceeded = []
    for _ in range(300):
        noise = rng.standard_normal((12, 200)) + rng.standard_normal(200)
        influence = noise - noise.mean(axis=1, keepdims=True)
        values = noise.sum(axis=1)
        critical = largest_fall_critical_value(influence)
        falls = [
            (values[first] - values[last]) / np.linalg.norm(influence[first] - influence[last])
            for first, last in itertools.combinations(range(12), 2)
        ]
        exceeded.append(max(falls) > critical)
    assert 0.02 <= np.mean(exceeded) <= 0.08


def test_equal_curves_have_no_fall():
    assert largest_fall_critical_value(np.ones((3, 50))) == math.inf
    assert largest_fall_critical_value(np.zeros((2, 5))) == math.inf
