"""The noise of gold: does it move, which snapshots does it tell apart, how far would a perfect curve agree with it?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from arithmetic import Array, spearman
from scipy.stats import studentized_range


def moves(gain: Array, parts: Array) -> bool:
    """Return whether gold moves by more than its own noise: the studentised range over snapshots, 5 %.

    Each fit, with a ranker and users of its own, is one measurement of every snapshot. What is left when snapshots
    and fits have had their means is noise: of users, of seeds, and where the kinds of rankers disagree.
    """
    left = parts - parts.mean(0) - parts.mean(1, keepdims=True) + parts.mean()
    freedom = (parts.shape[0] - 1) * (parts.shape[1] - 1)
    error = math.sqrt((left**2).sum() / freedom / parts.shape[1])
    return bool(np.ptp(gain) > _range_quantile(parts.shape[0], freedom) * error)


@cache
def _range_quantile(groups: int, freedom: int) -> float:
    return float(studentized_range.ppf(0.95, groups, freedom))  # an integral: a tenth of a second


def fit_noise(fits: Array) -> float:
    """Return the standard error of gold's mean over fits, from what is left when snapshots and fits had their means."""
    left = fits - fits.mean(0) - fits.mean(1, keepdims=True) + fits.mean()
    freedom = max(1, (fits.shape[0] - 1) * (fits.shape[1] - 1))
    return math.sqrt(float((left**2).sum()) / freedom / fits.shape[0])


def perfect_agrees(gold: Array, error: float, draws: int = 200) -> float:
    """Return the mean rank correlation with gold that a perfect curve would reach, given the noise of gold.

    Args:
        gold: Gold of each snapshot, taken as the truth.
        error: Standard error of it.
        draws: Number of draws of the noise.
    """
    noise = error * np.random.default_rng(25).standard_normal((draws, gold.size))
    return float(np.mean([spearman(gold, gold + drawn) for drawn in noise]))


def decidable(curve: Sequence[float] | Array, fits: Array) -> tuple[float, int]:
    """Return the share of pairs that a curve orders as gold does, and the number of pairs that gold can tell apart.

    Gold tells two snapshots apart if they differ by three standard errors of its fits.

    Args:
        curve: A value for each snapshot.
        fits: AUC of [fits, snapshots].
    """
    gold, values = fits.mean(0), np.asarray(curve, float)
    first, second = np.triu_indices(gold.size, 1)
    difference = gold[first] - gold[second]
    clear = np.abs(difference) > 3 * math.sqrt(2) * fit_noise(fits)
    right = np.sign(values[first] - values[second]) == np.sign(difference)
    return (float(right[clear].mean()) if clear.any() else math.nan), int(clear.sum())
