import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import ttest_rel

from lis_lightning.functional.multiple_comparisons import compare_all_pairs, holm


def test_two_gains_are_compared_as_a_paired_t_test_does():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 4000)) + np.array([[0.05], [0.0]])
    gains = {name: (row.mean(), (row - row.mean()) / row.size) for name, row in zip("ab", values, strict=True)}
    (pair,) = compare_all_pairs(gains)
    expected = ttest_rel(values[0], values[1])
    assert (pair.better, pair.worse) == ("a", "b")
    assert pair.difference.z == pytest.approx(expected.statistic, rel=1e-6)
    assert pair.p == pytest.approx(expected.pvalue, rel=1e-2)  # fewer degrees of freedom
    assert pair.significant == (expected.pvalue < 0.05)


def test_more_comparisons_need_more_evidence():
    spread = np.tile([1e-3, -1e-3], 500)
    z = 2.2
    se = np.sqrt(1000 / 999 * (spread @ spread))
    alone = {"a": (z * se, spread), "b": (0.0, 0 * spread)}
    assert compare_all_pairs(alone)[0].significant
    crowd = alone | {f"c{index}": (-1e-9 * index, 0 * spread) for index in range(8)}
    assert not any(pair.significant for pair in compare_all_pairs(crowd) if pair.better == "a")


def test_holms_correction_is_that_of_statsmodels():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, 0.9], num_tests=10) == pytest.approx([0.1, 1.0])
    assert np.isnan(holm([float("nan"), 0.01])[0])


def test_equal_gains_are_not_significant():
    spread = np.array([0.001, -0.001, 0.0005])
    assert not compare_all_pairs({"a": (0.01, spread), "b": (0.01, spread)})[0].significant


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_of_the_names_changes_nothing(names):
    rng = np.random.default_rng(1)
    gains = {name: (index / 100, rng.standard_normal(50) / 1000) for index, name in enumerate("abcd")}
    assert compare_all_pairs({name: gains[name] for name in names}) == compare_all_pairs(gains)
    assert [pair.better for pair in compare_all_pairs(gains)] == ["d", "d", "d", "c", "c", "b"]


def test_a_single_gain_has_nothing_to_compare():
    assert compare_all_pairs({"a": (0.1, np.zeros(3))}) == ()
