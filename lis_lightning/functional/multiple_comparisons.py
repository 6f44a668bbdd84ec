"""Pairwise comparisons of gains on the same users, with Holm's correction for multiple testing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from lis_lightning.functional.intervals import Estimate, effective_users, paired_difference

LEVEL = 0.05  # family-wise error rate of all comparisons of one ranking


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The paired difference of two gains on the same users.

    Attributes:
        better: Name of the larger gain.
        worse: Name of the smaller gain.
        difference: Larger minus smaller gain with its interval, in AUC units.
        significant: Whether the difference is significant at 5 %, corrected for all pairs compared (Holm 1979).

    Example:
        >>> difference = Estimate(value=0.02, se=0.005, low=0.01, high=0.03)
        >>> Comparison(better="a", worse="b", difference=difference, significant=True).difference.z
        4.0
    """

    better: str
    worse: str
    difference: Estimate
    significant: bool


def compare_all_pairs(gains: Mapping[str, tuple[float, NDArray[np.float64]]]) -> tuple[Comparison, ...]:
    """Compare all pairs of gains on the same users.

    Each pair has a two-sided t test of its paired difference, with :func:`effective_users` degrees of freedom.

    Args:
        gains: Each gain by name, with its influence values as in :class:`~lis_lightning.results.result.LISResult`.

    Returns:
        One comparison per pair, by the rank of the better gain, then of the worse.

    Example:
        >>> import numpy as np
        >>> spread = np.array([0.001, -0.001, 0.002, -0.002])
        >>> pairs = compare_all_pairs({"a": (0.01, spread), "b": (0.09, -spread), "c": (0.011, spread)})
        >>> [(pair.better, pair.worse, pair.significant) for pair in pairs]
        [('b', 'c', True), ('b', 'a', True), ('c', 'a', True)]
    """
    order = sorted(gains, key=lambda name: -gains[name][0])
    pairs = list(itertools.combinations(order, 2))
    differences = [paired_difference(*gains[better], *gains[worse]) for better, worse in pairs]
    p_values = []
    for (better, worse), difference in zip(pairs, differences, strict=True):
        freedom = effective_users(gains[better][1] - gains[worse][1])
        p_values.append(2 * float(stdtr(freedom, -abs(difference.z))))
    return tuple(
        Comparison(better=better, worse=worse, difference=difference, significant=rejected)
        for (better, worse), difference, rejected in zip(pairs, differences, _holm(p_values), strict=True)
    )


def _holm(p_values: Sequence[float]) -> list[bool]:
    """Return which hypotheses are rejected by Holm's step-down procedure (Holm 1979)."""
    rejected = [False] * len(p_values)
    for done, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        # Written so that a p-value of NaN is not rejected.
        if not p_values[index] <= LEVEL / (len(p_values) - done):
            break
        rejected[index] = True
    return rejected
