"""Stop rule: end a run once the remaining steps cannot add a relevant gain.

The decision depends on training progress, not on the number of snapshots. AIS is regressed on the optimizer step over
the last part of the run, and the upper confidence bound of the slope is extrapolated to the end of the planned steps. A
learning curve that flattens stays below that line. The regression is paired by user: the influence vectors of the
snapshots give the standard error of the slope, and what the snapshots share cancels.

Always-valid confidence sequences do not apply here: they protect against repeated looks at a sample that grows, whereas
all snapshots of a run are scored on the same test events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from lis_lightning.errors import ConfigError
from lis_lightning.functional.intervals import Estimate, cluster_interval, critical_value, effective_users
from lis_lightning.results.result import LISResult
from lis_lightning.results.snapshot import Snapshot

MIN_SNAPSHOTS = 3  # after the raw one: a slope with an error needs three points
UNPLANNED_SNAPSHOTS = 5  # after the raw one, before which a run without a plan is not stopped
PRIOR_DEGREES = 4  # snapshots' worth of belief that users explain the jitter of a curve


def _between(low: float, high: float = math.inf) -> Any:
    return {"low": low, "high": high}


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Thresholds of the stop rule and the verdict.

    Attributes:
        min_gain: Smallest gain in AUC that is worth training for, whatever the best AIS.
        min_gain_share: The same as a share of the best AIS; the larger of the two counts.
        min_gain_per_1000_steps: Smallest pace, in AUC per 1,000 optimizer steps, that is worth training for. If given,
            it replaces `min_gain` and `min_gain_share` in the decision to stop.
        confidence: One-sided confidence of the upper bound of what the remaining steps add. A higher value stops later.
        window: Share of the steps so far over which the pace is measured, at the end of the run.
        min_progress: Share of the planned steps before which no run is stopped: fine-tuning often dips first.
        significance: Probability that a flat run is ever called improving, and that its last snapshot is called past
            its best.
        model_bound_below: Upper bound of realised below which a run that no longer improves is bound by the model.
        collapsed_below: Effective rank below which any representation counts as collapsed.
        relevant_gain: Smallest gain of preference data, in AUC, that matters. An interval that holds both 0 and this
            is underpowered.

    Raises:
        ConfigError: If a value has the wrong type or is out of range.

    Example:
        >>> StopRule(min_gain_share=0.02).min_gain_share
        0.02
    """

    min_gain: float = field(default=0.0005, metadata=_between(0))
    min_gain_share: float = field(default=0.05, metadata=_between(0, 1))
    min_gain_per_1000_steps: float | None = field(default=None, metadata=_between(0))
    confidence: float = field(default=0.85, metadata=_between(0.5, 0.9999))
    window: float = field(default=1 / 3, metadata=_between(0.05, 1))
    min_progress: float = field(default=0.3, metadata=_between(0, 1))
    significance: float = field(default=0.05, metadata=_between(1e-6, 0.5))
    model_bound_below: float = field(default=0.7, metadata=_between(0))
    collapsed_below: float = field(default=1.5, metadata=_between(0))
    relevant_gain: float = field(default=0.005, metadata=_between(1e-6, 1))

    def __post_init__(self) -> None:
        for spec in fields(self):
            value, low, high = getattr(self, spec.name), spec.metadata["low"], spec.metadata["high"]
            if value is None and spec.default is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                bounds = f"of at least {low}" if high == math.inf else f"in [{low}, {high}]"
                raise ConfigError(f"Expected `{spec.name}` of the stop rule to be a number {bounds}, got {value!r}.")

    def negligible_gain(self, best_ais: float) -> float:
        """Return the gain in AUC below which a change is negligible, for a run with this best AIS."""
        return max(self.min_gain, self.min_gain_share * best_ais)


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Pace of AIS over the last part of a run, by a regression on the optimizer step that is paired by user.

    Attributes:
        slope: AUC gained per optimizer step.
        slope_high: Upper confidence bound of it, at the confidence of the rule.
        p: Two-sided p value of a slope of 0.
        first_step: First step of the window.
        last_step: Last step of the window.
        num_snapshots: Snapshots in the window.

    Example:
        >>> pace = Estimate(value=1e-5, se=1e-6, low=8e-6, high=1.2e-5)
        >>> trend = Trend(slope=pace, slope_high=1.1e-5, p=1e-9, first_step=600, last_step=900, num_snapshots=4)
        >>> round(trend.gain.value, 4)
        0.003
    """

    slope: Estimate
    slope_high: float
    p: float
    first_step: int
    last_step: int
    num_snapshots: int

    @property
    def gain(self) -> Estimate:
        """Gain over the window: the slope times its length in steps."""
        return self.over(self.last_step - self.first_step)

    def over(self, num_steps: float) -> Estimate:
        """Return the gain that so many steps add at this pace."""
        slope = self.slope
        return Estimate(
            value=num_steps * slope.value, se=num_steps * slope.se, low=num_steps * slope.low,
            high=num_steps * slope.high,
        )  # fmt: skip


def step_of(result: LISResult, index: int) -> int:
    """Return the optimizer step of a result; its position among the results of a run if it is not a snapshot."""
    return result.step if isinstance(result, Snapshot) else index


def recent_trend(results: Sequence[LISResult], rule: StopRule) -> Trend | None:
    """Regress AIS on the optimizer step over the last part of a run.

    The window is the last `window` of the steps so far, extended to three snapshots where it holds fewer. The raw
    representation is left out: the first steps move it faster than the later ones. So are results without per-user
    influence values.

    Args:
        results: Results with an AIS, in the order of their steps, the raw one first, all on one split.
        rule: The window and the confidence.

    Returns:
        The trend, or None with fewer than three usable snapshots after the raw one.

    Raises:
        ShapeError: If the results come from different splits.

    Example:
        >>> noise = np.array([1e-4, -1e-4, 0.0])
        >>> results = [LISResult(ais=ais, ais_low=0, ais_high=0, ais_geometry=0, auc_base=0.7, auc=0.7, influence=noise)
        ...            for ais in (0.0, 0.01, 0.011, 0.012)]
        >>> round(recent_trend(results, StopRule()).slope.value, 6)
        0.001
    """
    steps = [step_of(result, index) for index, result in enumerate(results)]
    usable = [index for index in range(1, len(results)) if results[index].influence.size]
    if len(usable) < MIN_SNAPSHOTS or len({steps[index] for index in usable[-MIN_SNAPSHOTS:]}) < MIN_SNAPSHOTS:
        return None
    start = (1 - rule.window) * steps[usable[-1]]
    chosen = usable[-max(MIN_SNAPSHOTS, sum(steps[index] >= start for index in usable)) :]
    window = [results[index] for index in chosen]
    for result in window:
        window[-1].check_pairable(result)
    centred = np.array([steps[index] for index in chosen], dtype=float)
    centred -= centred.mean()
    return _regression(centred, window, rule, steps[chosen[0]], steps[chosen[-1]])


def _regression(
    centred: np.ndarray, window: Sequence[LISResult], rule: StopRule, first_step: int, last_step: int
) -> Trend:
    """Fit a line by least squares; its standard error is clustered by user, and larger where training jitters."""
    values = np.array([result.ais for result in window])
    vectors = np.array([result.influence for result in window])
    weights = centred / (centred @ centred)  # of the snapshots in the slope: they sum to 0, so common noise cancels
    slope, influence = float(weights @ values), weights @ vectors
    residuals = values - values.mean() - slope * centred
    expected = vectors - vectors.mean(axis=0) - np.outer(centred, influence)
    se = cluster_interval(slope, influence).se * _jitter(residuals, expected)
    margin = critical_value(influence, 0.975) * se
    degrees = effective_users(influence)
    estimate = Estimate(value=slope, se=se, low=slope - margin, high=slope + margin, degrees=degrees)
    return Trend(
        slope=estimate,
        slope_high=slope + critical_value(influence, rule.confidence) * se,
        p=estimate.p,
        first_step=first_step,
        last_step=last_step,
        num_snapshots=len(window),
    )


def _jitter(residuals: np.ndarray, expected: np.ndarray) -> float:
    """Return how much larger a standard error is than that of the users alone, as training itself jitters; at least 1.

    The ratio of the observed sum of squared residuals to the one that the users explain, shrunk towards 1: with three
    snapshots it rests on one degree of freedom.
    """
    explained = float(np.square(expected).sum())
    if explained == 0.0:
        return 1.0
    degrees = len(residuals) - 2
    ratio = float(residuals @ residuals) / explained
    return math.sqrt(max((PRIOR_DEGREES + degrees * ratio) / (PRIOR_DEGREES + degrees), 1.0))


def too_early(results: Sequence[LISResult], rule: StopRule, max_steps: int | None) -> bool:
    """Return whether a run is in its first part, in which a fall or a pause is not held against it.

    Args:
        results: Results in the order of their steps, the raw one first.
        rule: The share of the planned steps that counts as the first part.
        max_steps: Planned optimizer steps of the run; None if unknown: then the first five snapshots are.
    """
    if max_steps is None:
        return len(results) - 1 < UNPLANNED_SNAPSHOTS
    return step_of(results[-1], len(results) - 1) < rule.min_progress * max_steps


def remaining_steps(step: int, max_steps: int | None) -> float:
    """Return the steps that a run has left; half as many as it has made if the plan is unknown or fulfilled."""
    return max_steps - step if max_steps is not None and max_steps > step else step / 2


def stop_reason(results: Sequence[LISResult], rule: StopRule | None = None, max_steps: int | None = None) -> str:
    """Return why a run should stop now; empty if it should go on.

    A run stops if, with the confidence of the rule, the steps that remain add less than the negligible gain at the pace
    of the last part of the run.

    Args:
        results: Results with an AIS, in the order of their steps, the raw one first, all on one split.
        rule: Thresholds; None takes the defaults.
        max_steps: Planned optimizer steps of the run; None if unknown: then half as many steps again are considered.

    Example:
        >>> noise = np.array([1e-5, -1e-5, 0.0])
        >>> results = [Snapshot(ais=ais, ais_low=0, ais_high=0, ais_geometry=0, auc_base=0.7, auc=0.7, influence=noise,
        ...                     step=100 * number) for number, ais in enumerate([0.0, 0.01, 0.02, 0.02, 0.02])]
        >>> stop_reason(results[:4], max_steps=1000), stop_reason(results, max_steps=1000)[:45]
        ('', 'at the pace since step 200, the remaining 600')
    """
    rule = rule or StopRule()
    return stop_reason_at(recent_trend(results, rule), results, rule, max_steps)


def stop_reason_at(trend: Trend | None, results: Sequence[LISResult], rule: StopRule, max_steps: int | None) -> str:
    """Return why a run with this trend should stop now; empty if it should go on. See :func:`stop_reason`."""
    if trend is None or too_early(results, rule, max_steps):
        return ""
    return pace_too_slow(trend, rule, max(result.ais for result in results), max_steps)


def pace_too_slow(trend: Trend, rule: StopRule, best_ais: float, max_steps: int | None) -> str:
    """Return the comparison in words if the upper bound of the remaining gain is negligible; else an empty string."""
    if rule.min_gain_per_1000_steps is not None:
        pace = 1000 * trend.slope_high
        if pace >= rule.min_gain_per_1000_steps:
            return ""
        return f"the pace since step {trend.first_step} is at most {pace:+.4f} AUC per 1,000 steps"
    num_steps = remaining_steps(trend.last_step, max_steps)
    gain, negligible = num_steps * trend.slope_high, rule.negligible_gain(best_ais)
    if gain >= negligible:
        return ""
    which = "remaining" if max_steps is not None and max_steps > trend.last_step else "next"
    return (
        f"at the pace since step {trend.first_step}, the {which} {num_steps:.0f} steps add at "
        f"most {max(gain, 0.0):.4f} AUC, less than the {negligible:.4f} worth training for"
    )
