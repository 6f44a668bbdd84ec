"""Pairwise comparisons of gains on the same users, with Holm's correction for multiple testing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lis_lightning.functional.intervals import Estimate, paired_difference

LEVEL = 0.05  # family-wise error rate of all comparisons of one ranking


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The paired difference of two gains on the same users.

    Attributes:
        better: Name of the larger gain.
        worse: Name of the smaller gain.
        difference: Larger minus smaller gain with its interval, in AUC units.
        p: Its two-sided p value, corrected for all pairs compared (Holm 1979).

    Example:
        >>> difference = Estimate(value=0.02, se=0.005, low=0.01, high=0.03)
        >>> pair = Comparison(better="a", worse="b", difference=difference, p=0.001)
        >>> pair.difference.z, pair.significant
        (4.0, True)
    """

    better: str
    worse: str
    difference: Estimate
    p: float

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at 5 %; not if p is NaN."""
        return self.p <= LEVEL


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
    corrected = holm([difference.p for difference in differences])
    return tuple(
        Comparison(better=better, worse=worse, difference=difference, p=p)
        for (better, worse), difference, p in zip(pairs, differences, corrected, strict=True)
    )


def holm(p_values: Sequence[float], num_tests: int | None = None) -> list[float]:
    """Return p values corrected for multiple testing by Holm's step-down procedure (Holm 1979), in the same order.

    Args:
        p_values: The p values; those that are NaN stay so, and count as tests.
        num_tests: Number of tests, if more were possible than have a p value here; None counts these.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.02])]
        [0.03, 0.04, 0.04]
    """
    number = len(p_values) if num_tests is None else num_tests
    corrected, highest = [math.nan] * len(p_values), 0.0
    known = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    for rank, index in enumerate(sorted(known, key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (number - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
