"""Which of several gains on the same users are larger: all paired differences, corrected for their number."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from lis_lightning.functional.intervals import Estimate, effective_users, paired_difference

LEVEL = 0.05  # of all statements of one ranking together


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The paired difference of two gains on the same users.

    Attributes:
        better: The one with the larger gain.
        other: The other one.
        difference: What it gains less, with its interval, in AUC units.
        apart: Whether the two can be told apart at 5 %, corrected for all pairs that are compared (Holm 1979).
    """

    better: str
    other: str
    difference: Estimate
    apart: bool


def rank(gains: Mapping[str, tuple[float, NDArray[np.float64]]]) -> tuple[Comparison, ...]:
    """Compare all pairs of gains on the same users.

    Args:
        gains: Each gain with its influence values, as in :class:`~lis_lightning.results.result.LISResult`.

    Returns:
        The comparisons, by the rank of the better one, then of the other one.

    Example:
        >>> import numpy as np
        >>> spread = np.array([0.001, -0.001, 0.002, -0.002])
        >>> [pair.apart for pair in rank({"a": (0.01, spread), "b": (0.09, -spread), "c": (0.011, spread)})]
        [True, True, True]
    """
    order = sorted(gains, key=lambda name: -gains[name][0])
    pairs = list(itertools.combinations(order, 2))
    differences = [paired_difference(*gains[better], *gains[other]) for better, other in pairs]
    spreads = [gains[better][1] - gains[other][1] for better, other in pairs]
    apart = _holm(
        [
            2 * float(stdtr(effective_users(spread), -abs(difference.z)))
            for difference, spread in zip(differences, spreads, strict=True)
        ]
    )
    return tuple(
        Comparison(better=better, other=other, difference=difference, apart=hit)
        for (better, other), difference, hit in zip(pairs, differences, apart, strict=True)
    )


def _holm(p_values: Sequence[float]) -> list[bool]:
    """Return which hypotheses are rejected by Holm's step-down procedure (Holm 1979)."""
    rejected = [False] * len(p_values)
    for done, index in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        # A gain that is not a number compares as not apart.
        if not p_values[index] <= LEVEL / (len(p_values) - done):
            break
        rejected[index] = True
    return rejected


def ranking_in_words(comparisons: Sequence[Comparison]) -> str:
    """Return the order of what was compared, with ``>`` between neighbours that can be told apart and ``~`` if not.

    Pairs further apart than neighbours are named where they can be told apart although all between them cannot.

    Example:
        >>> nothing = Estimate(value=0.0, se=0.0, low=0.0, high=0.0)
        >>> ranking_in_words([Comparison(better="a", other="b", difference=nothing, apart=False)])
        'a ~ b: these cannot be told apart'
    """
    if not comparisons:
        return ""
    apart = {(pair.better, pair.other): pair.apart for pair in comparisons}
    order = list(dict.fromkeys(name for pair in comparisons for name in (pair.better, pair.other)))
    chain = order[0] + "".join(f" {'>' if apart[two] else '~'} {two[1]}" for two in itertools.pairwise(order))
    if not any(apart.values()):
        return f"{chain}: these cannot be told apart"
    hidden = [
        f"{order[low]} is above {order[high]}"
        for low, high in itertools.combinations(range(len(order)), 2)
        if apart[order[low], order[high]] and not any(apart[two] for two in itertools.pairwise(order[low : high + 1]))
    ]
    cannot = ["~: cannot be told apart"] if "~" in chain else []
    return "; ".join([chain, *hidden, *cannot])
