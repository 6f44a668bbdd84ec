"""What the tables are made of: rank agreement, regret, stop rules replayed, intervals. Arrays in, numbers out."""

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
BROKEN = {"data-bound", "collapsed", "placebo-failed"}
RIGHT = {"at-ceiling": {"at-ceiling", "ceiling-not-binding"}}  # other truths are met by their own name alone


def gains(run: dict[str, Any]) -> tuple[Array, Array]:
    """Return what rankers gain from each snapshot over traded rows: on all users, and fit by fit on parts of them.

    The placebo is the mean over the snapshots that have one. Returns [snapshots] and [snapshots, fits].
    """
    auc = np.array([one["gold"] for one in run["snapshots"]])
    placebo = np.mean([one["placebo"] for one in run["snapshots"] if "placebo" in one], axis=0)
    gain = auc - placebo
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


def halves_agree(fits: Array) -> float:
    """Return the rank correlation of the two halves of gold, kind of ranker by kind, from the AUC of [fits, snapshots].

    Fits come in the order of seeds, and within a seed of kinds.
    """
    return spearman(fits[::2].mean(0), fits[1::2].mean(0))


def chosen(curve: Sequence[float] | Array) -> int | None:
    """Return the snapshot that a curve selects, its first highest; None for a curve without a value."""
    values = np.asarray(curve, float)
    return int(np.nanargmax(values)) if np.isfinite(values).any() else None


def regret(gold: Array, at: int | None) -> float:
    """Return how far a snapshot is below the best one, as a share of the range of gold."""
    return math.nan if at is None else float((gold.max() - gold[at]) / np.ptp(gold))


def stock_stop(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """Return where stock EarlyStopping (mode min, min_delta 0) stops, and the best snapshot by then."""
    best, waited = math.inf, 0
    at = 0
    for number, loss in enumerate(losses):
        if loss < best:
            best, at, waited = loss, number, 0
        else:
            waited += 1
            if waited >= patience:
                return number, at
    return len(losses) - 1, at


def judged_stop(snapshots: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Return where the rule of `lis_lightning.stopping` stops, and the best snapshot by then."""
    last = next((number for number, one in enumerate(snapshots) if one["stop"]), len(snapshots) - 1)
    return last, snapshots[last]["best"]


def bootstrap(values: Sequence[float] | Array, draws: int = 2000) -> tuple[float, float, float]:
    """Return the mean of what is known and its 95 % percentile interval over runs; NaN where runs are too few."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if known.size < 3:
        return (float(known.mean()) if known.size else math.nan, math.nan, math.nan)
    drawn = np.random.default_rng(24).integers(known.size, size=(draws, known.size))
    low, high = np.quantile(known[drawn].mean(1), [0.025, 0.975])
    return float(known.mean()), float(low), float(high)


def shown(values: Sequence[float] | Array, digits: int = 2) -> str:
    """Return mean and interval as text."""
    mean, low, high = (f"{value:.{digits}f}" for value in bootstrap(values))
    return "-" if mean == "nan" else mean if low == "nan" else f"{mean} [{low}, {high}]"


def truth_of(run: dict[str, Any]) -> str:
    """Return the bottleneck that was built in: a world without taste binds whatever is not collapsed."""
    return "data-bound" if run["world"] == "no taste" and run["truth"] != "collapsed" else run["truth"]


def right(truth: str, verdict: str) -> bool:
    """Return whether a verdict is the truth; of a healthy run, whether it is not called broken."""
    return verdict in RIGHT.get(truth, {truth}) if truth else verdict not in BROKEN


def share(hits: NDArray[np.bool_]) -> str:
    """Return how many of how many."""
    return f"{int(hits.sum())} of {hits.size}"
