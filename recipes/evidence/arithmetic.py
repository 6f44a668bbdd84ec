"""What the tables are made of: gains, rank agreement, regret, intervals. Arrays in, numbers out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ConstantInputWarning, spearmanr, studentized_range

Array = NDArray[np.float64]
MIN_POINTS = 4  # of a rank correlation


def gains(auc: Array, placebo: Array) -> tuple[Array, Array]:
    """Return what rankers gain from each snapshot over traded rows: on all users, and fit by fit on parts of them.

    Args:
        auc: [snapshots, fits, 2], on all users and on those of a part.
        placebo: The same of snapshots whose rows were traded; their mean is the placebo.

    Returns:
        The gain [snapshots], the mean over the fits, and the gain on parts [snapshots, fits].
    """
    gain = auc - placebo.mean(0)
    return gain[..., 0].mean(1), gain[..., 1]


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


def spearman(curve: Sequence[float] | Array, gold: Array) -> float:
    """Return the rank correlation over the points that the curve has; 0 for a flat one, NaN with too few points."""
    known = np.isfinite(np.asarray(curve, float))
    if known.sum() < MIN_POINTS:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        found = float(spearmanr(np.asarray(curve, float)[known], gold[known]).statistic)
    return 0.0 if math.isnan(found) else found


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


def one_agrees(fits: Array) -> float:
    """Return the rank correlation of one ranker, the first, with the mean of the others, from [fits, snapshots]."""
    return spearman(fits[0], fits[1:].mean(0))


def chosen(curve: Sequence[float] | Array) -> int | None:
    """Return the snapshot that a curve selects, its first highest; None for a curve without a value."""
    values = np.asarray(curve, float)
    return int(np.nanargmax(values)) if np.isfinite(values).any() else None


def regret(gold: Array, at: int | None) -> float:
    """Return how far a snapshot is below the best one, as a share of the range of gold."""
    return math.nan if at is None else float((gold.max() - gold[at]) / np.ptp(gold))


def fair_regret(fits: Array, at: int | None) -> float:
    """Return the same with the best snapshot found by one half of the fits and measured by the other, both ways.

    The best of noisy numbers is partly lucky: a snapshot that is as good is blamed for that by :func:`regret`.
    """
    if at is None:
        return math.nan
    halves = fits[::2], fits[1::2]
    one, other = (half.mean(0) for half in halves)
    lost = (other[one.argmax()] - other[at] + one[other.argmax()] - one[at]) / 2
    return float(lost / np.ptp(fits.mean(0)))


def bootstrap(values: Sequence[float] | Array, worlds: Sequence[Any], draws: int = 2000) -> tuple[float, float, float]:
    """Return the mean of what is known and its 95 % percentile interval; NaN where there are fewer than 3 worlds.

    Worlds are drawn, each with all of its runs, as these are alike.
    """
    keys, world = np.unique([str(one) for one in worlds], return_inverse=True)
    value = np.asarray(values, float)
    known = np.isfinite(value)
    total = np.bincount(world[known], value[known], minlength=keys.size)
    count = np.bincount(world[known], minlength=keys.size)
    total, count = total[count > 0], count[count > 0]
    mean = float(total.sum() / count.sum()) if count.size else math.nan
    if count.size < 3:
        return mean, math.nan, math.nan
    drawn = np.random.default_rng(24).integers(count.size, size=(draws, count.size))
    low, high = np.quantile(total[drawn].sum(1) / count[drawn].sum(1), [0.025, 0.975])
    return mean, float(low), float(high)


def shown(values: Sequence[float] | Array, worlds: Sequence[Any], digits: int = 2) -> str:
    """Return mean and interval as text."""
    mean, low, high = (f"{value:.{digits}f}" for value in bootstrap(values, worlds))
    return "-" if mean == "nan" else mean if low == "nan" else f"{mean} [{low}, {high}]"


def share(hits: NDArray[np.bool_]) -> str:
    """Return how many of how many."""
    return f"{int(hits.sum())} of {hits.size}"
