"""Exchange rate of a metric: how much AIS went with 1 % more of it, over the snapshots of a run or the runs of a sweep.

AIS is regressed on the logarithm of the metric; the rate is what the line says of a change by 1 %. The interval covers
the sampling of users, paired over the snapshots, and departures of single snapshots from the line, which are taken to
be independent of each other. The errors of the metric itself are not in it: a metric that has stopped moving, and
fluctuates, tends to a rate of 0. A rate is an observation, no promise: who trains for the metric may change its rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lis_lightning.functional.broken_line import slope, slope_break
from lis_lightning.functional.intervals import Estimate
from lis_lightning.results.snapshot import Snapshot

MIN_POINTS = 4  # snapshots or runs: a line through three departs from none
MIN_MOVEMENT = 0.001  # of the logarithm: a rate of 1 % from a tenth of that would be extrapolated
NEAR_ZERO = 0.001  # of the largest value: below it a change by 1 % of the metric is nothing
SIGNIFICANCE = 0.05  # probability that a rate that never changed is said to have broken
ONE_PERCENT = math.log(1.01)
NOTHING = Estimate(value=math.nan, se=math.nan, low=math.nan, high=math.nan)


@dataclass(frozen=True, kw_only=True)
class ExchangeRate:
    """The exchange rate of one metric.

    Attributes:
        key: Name of the metric.
        rate: AIS for 1 % more of it, with its interval; NaN if `reason` says why.
        num: Number of snapshots or runs that it is estimated from.
        broke_at: The step after which the rate differs from the rate before; None if that is not significant.
        since: The rate since then; NaN if it did not break.
        before: The rate before; NaN if it did not break.
        reason: Why there is no rate, in a clause; empty if there is one.

    Example:
        >>> ExchangeRate(key="val/loss", num=2, reason="2 snapshots have a value, a rate needs 4").rate.value
        nan
    """

    key: str
    num: int
    rate: Estimate = NOTHING
    broke_at: int | None = None
    before: Estimate = NOTHING
    since: Estimate = NOTHING
    reason: str = ""


def exchange_rates(results: Sequence[Snapshot]) -> list[ExchangeRate]:
    """Return the exchange rates of all metrics of a run: those watched, the training loss, and the companions.

    Args:
        results: The snapshots, by step.

    Returns:
        One rate per metric that any snapshot has a value of, those watched first.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> noise = 1e-6 * rng.standard_normal((8, 50))
        >>> recall = 0.1 * 1.05 ** np.arange(8)
        >>> run = [Snapshot(ais=0.001 * step, ais_low=0, ais_high=0, ais_geometry=0, auc_base=0.7, auc=0.7, step=step,
        ...                 influence=noise[step], watched={"recall": float(recall[step])}) for step in range(8)]
        >>> [(found.key, round(found.rate.value, 6), found.broke_at) for found in exchange_rates(run)]
        [('recall', 0.000204, None)]
    """
    return [_rate(results, key, "snapshots", breaks=True) for key in _keys(results) + _own_loss(results)]


def rates_over_runs(best: Sequence[Snapshot]) -> list[ExchangeRate]:
    """Return the exchange rates of metrics over the runs of a sweep: those watched, and the companions.

    Training losses are left out, as runs of different objectives have different ones. A rate over runs has no break,
    since runs have no order.

    Args:
        best: The best snapshot of each run, on one split.

    Example:
        >>> runs = [Snapshot(ais=0.001, ais_low=0, ais_high=0, ais_geometry=0, auc_base=0.7, auc=0.7, step=200,
        ...                  companions={"pair_auc": 0.6})]
        >>> rates_over_runs(runs)[0].reason
        '1 runs have a value, a rate needs 4'
    """
    return [_rate(best, key, "runs", breaks=False) for key in _keys(best)]


def _keys(results: Sequence[Snapshot]) -> list[str]:
    """Return the metrics that any of the snapshots has, those watched first."""
    watched = [key for result in results for key in result.watched]
    companions = [key for result in results for key in result.companions]
    return list(dict.fromkeys([*watched, *companions]))


def _own_loss(results: Sequence[Snapshot]) -> list[str]:
    """Return the name of the training loss if it is known, and no metric of that name is watched."""
    known = any(math.isfinite(result.train_loss) for result in results)
    return ["train_loss"] if known and "train_loss" not in _keys(results) else []


def _values(results: Sequence[Snapshot], key: str) -> list[float]:
    """Return the values of a metric; NaN where there is none. A watched metric hides one of ours of that name."""
    if any(key in result.watched for result in results):
        return [result.watched.get(key, math.nan) for result in results]
    if key == "train_loss":
        return [result.train_loss for result in results]
    return [result.companions.get(key, math.nan) for result in results]


def _rate(results: Sequence[Snapshot], key: str, points: str, *, breaks: bool) -> ExchangeRate:
    """Return the exchange rate of one metric, or why there is none."""
    values = _values(results, key)
    valued = [
        pair for pair in zip(results, values, strict=True) if math.isfinite(pair[0].ais) and math.isfinite(pair[1])
    ]
    with_users = [pair for pair in valued if pair[0].influence.any()]
    paired = [result for result, _ in with_users]
    metric = np.array([value for _, value in with_users])
    reason = _refusal(metric, len(valued), points)
    if reason:
        return ExchangeRate(key=key, num=len(valued), reason=reason)
    ais = np.array([result.ais for result in paired])
    influence = np.stack([result.influence for result in paired])
    relative = np.log(np.abs(metric))
    found = slope_break(relative, ais, influence) if breaks else None
    rate = _of_one_percent(slope(relative, ais, influence))
    if found is None or found.p >= SIGNIFICANCE:
        return ExchangeRate(key=key, num=len(paired), rate=rate)
    before, since = _of_one_percent(found.before), _of_one_percent(found.since)
    step = paired[found.index].step
    return ExchangeRate(key=key, num=len(paired), rate=rate, broke_at=step, before=before, since=since)


def _refusal(metric: np.ndarray, num_valued: int, points: str) -> str:
    """Return why values of a metric give no rate, in a clause; empty if they do."""
    if num_valued < MIN_POINTS:
        return f"{num_valued} {points} have a value, a rate needs {MIN_POINTS}"
    if metric.size < MIN_POINTS:
        return f"{metric.size} of {num_valued} {points} have the per-user values that an interval needs"
    low, high = float(metric.min()), float(metric.max())
    if low <= 0 <= high:
        what = "changes its sign" if low < 0 < high else "reaches 0"
        return f"it {what} ({low:.4g} to {high:.4g}), so a change by 1 % means nothing: log it on another scale"
    smallest, largest = sorted([abs(low), abs(high)])
    if smallest < NEAR_ZERO * largest:
        return f"it comes near 0 ({low:.4g} to {high:.4g}), where a change by 1 % means nothing"
    if math.log(largest / smallest) < MIN_MOVEMENT:
        return f"it did not move ({low:.6g} to {high:.6g})"
    return ""


def _of_one_percent(slope_on_log: Estimate) -> Estimate:
    """Return the change that goes with 1 % more."""
    fields = vars(slope_on_log)
    return Estimate(**{name: ONE_PERCENT * value for name, value in fields.items()})
