"""What the tables are made of: gains, rank agreement, regret, intervals. Arrays in, numbers out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ConstantInputWarning, spearmanr

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


def spearman(curve: Sequence[float] | Array, gold: Array) -> float:
    """Return the rank correlation over the points that the curve has; 0 for a flat one, NaN with too few points."""
    known = np.isfinite(np.asarray(curve, float))
    if known.sum() < MIN_POINTS:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        correlation = float(spearmanr(np.asarray(curve, float)[known], gold[known]).statistic)
    return 0.0 if math.isnan(correlation) else correlation


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
