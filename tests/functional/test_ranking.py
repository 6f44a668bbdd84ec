import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import ttest_rel

from lis_lightning.functional.intervals import Estimate
from lis_lightning.functional.ranking import Comparison, rank, ranking_in_words

NOTHING = Estimate(value=0.0, se=0.0, low=0.0, high=0.0)


def comparisons(order, apart):
    return [
        Comparison(better=better, other=other, difference=NOTHING, apart=better + other in apart)
        for better, other in itertools.combinations(order, 2)
    ]


def test_two_gains_are_compared_as_a_paired_t_test_does():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 4000)) + np.array([[0.05], [0.0]])
    gains = {name: (row.mean(), (row - row.mean()) / row.size) for name, row in zip("ab", values, strict=True)}
    (pair,) = rank(gains)
    expected = ttest_rel(values[0], values[1])
    assert (pair.better, pair.other) == ("a", "b")
    assert pair.difference.z == pytest.approx(expected.statistic, rel=1e-6)
    assert pair.apart == (expected.pvalue < 0.05)


def test_more_comparisons_need_more_evidence():
    spread = np.tile([1e-3, -1e-3], 500)
    z = 2.2
    se = np.sqrt(1000 / 999 * (spread @ spread))
    alone = {"a": (z * se, spread), "b": (0.0, 0 * spread)}
    assert rank(alone)[0].apart
    crowd = alone | {f"c{index}": (-1e-9 * index, 0 * spread) for index in range(8)}
    assert not any(pair.apart for pair in rank(crowd) if pair.better == "a")


def test_equal_gains_are_not_apart():
    spread = np.array([0.001, -0.001, 0.0005])
    assert not rank({"a": (0.01, spread), "b": (0.01, spread)})[0].apart


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_of_the_names_changes_nothing(names):
    rng = np.random.default_rng(1)
    gains = {name: (index / 100, rng.standard_normal(50) / 1000) for index, name in enumerate("abcd")}
    assert rank({name: gains[name] for name in names}) == rank(gains)
    assert [pair.better for pair in rank(gains)] == ["d", "d", "d", "c", "c", "b"]


@pytest.mark.parametrize(
    ("apart", "expected"),
    [
        ({"ab", "ac", "bc"}, "a > b > c"),
        (set(), "a ~ b ~ c: these cannot be told apart"),
        ({"ac", "bc"}, "a ~ b > c; ~: cannot be told apart"),
        ({"ac"}, "a ~ b ~ c; a is above c; ~: cannot be told apart"),
    ],
)
def test_the_ranking_in_words(apart, expected):
    assert ranking_in_words(comparisons("abc", apart)) == expected


def test_nothing_to_rank_has_no_words():
    assert rank({"a": (0.1, np.zeros(3))}) == ()
    assert ranking_in_words(()) == ""
