"""Verdict on a run: what limits it, in one word and a sentence to act on.

Evidence is paired: snapshots share their users, so their difference is known far better than either of them. A verdict
claims no more than its interval does; where the evidence is missing it says what would settle the question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lis_lightning.errors import ConfigError
from lis_lightning.functional.intervals import Estimate, cluster_interval, critical_value, paired_difference
from lis_lightning.functional.simultaneous import largest_fall_critical_value
from lis_lightning.results.evidence import gain_over, underpowered
from lis_lightning.results.format import estimate_name, format_estimate, format_interval
from lis_lightning.results.result import LISResult
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import (
    MIN_SNAPSHOTS,
    StopRule,
    Trend,
    pace_too_slow,
    recent_trend,
    remaining_steps,
    step_of,
    stop_reason_at,
    too_early,
)

MIN_CEILING_Z = 4.0  # below this a share of the ceiling is noise over noise: its error exceeds a quarter of it
NOT_BINDING_Z = 2.0
MIN_USERS = 10  # with fewer, a clustered standard error says next to nothing
SPENT_SHARE = 0.1  # of AIS: headroom that is not clearly above it does not speak against a ceiling that is reached
COLLAPSED_SHARE = 0.25  # of the raw effective rank, left in a representation that is no better than the raw one

VERDICTS = (
    "warming-up",
    "improving",
    "plateau",
    "at-ceiling",
    "ceiling-not-binding",
    "data-bound",
    "model-bound",
    "past-its-best",
    "overfitting",
    "collapsed",
    "placebo-failed",
    "underpowered",
    "undecided",
    "too-few-snapshots",
    "quantisation-bound",
)
"""All verdicts."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Verdict on a run up to its newest result, and whether to stop it.

    Attributes:
        verdict: One of :data:`VERDICTS`.
        message: The verdict in a sentence, with what to do.
        stop: Whether to stop the run.
        reason: The reason to stop; empty otherwise.
        best: Index of the result with the highest AIS; 0 if none has one.
        gain_z: Paired z of the newest result against the best before it; NaN for the first, and without an AIS.

    Example:
        >>> result = LISResult(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703)
        >>> judgement = judge([result])
        >>> judgement.verdict, judgement.stop, judgement.best
        ('underpowered', False, 0)
    """

    verdict: str
    message: str
    stop: bool
    reason: str
    best: int
    gain_z: float


class _Finding(NamedTuple):
    verdict: str
    message: str


def judge(
    results: Sequence[LISResult], rule: StopRule | None = None, *, max_steps: int | None = None, ended: bool = False
) -> Judgement:
    """Judge a run by its results so far.

    Results without an AIS (NaN: a snapshot that could not be scored) are passed over.

    Args:
        results: Results in the order of their steps, the raw one first, all on one split.
        rule: Thresholds; None takes the defaults.
        max_steps: Planned optimizer steps of the run; None if unknown.
        ended: Whether the run has ended, for whatever reason; one that has reached `max_steps` has.

    Raises:
        ConfigError: If there is no result.
        ShapeError: If the results come from different splits.

    Example:
        >>> flat = LISResult(ais=0.0, ais_low=-0.001, ais_high=0.001, ais_geometry=0.0, auc_base=0.75, auc=0.75,
        ...                  influence=np.array([0.0004, -0.0004, 0.0]))
        >>> judge([flat]).verdict
        'warming-up'
    """
    if not results:
        raise ConfigError("Nothing to judge: the list of results is empty.")
    scored = [index for index, result in enumerate(results) if math.isfinite(result.ais)]
    if not scored:
        return _unscored(ended)
    usable = [results[index] for index in scored]
    rule = rule or StopRule()
    run = _Run(usable, rule, max_steps, ended)
    finding = run.finding()
    failed = "" if scored[-1] == len(results) - 1 else "the newest snapshot has no score; up to the one before: "
    reason = stop_reason_at(run.trend, usable, rule, max_steps)
    return Judgement(
        verdict=finding.verdict,
        message=failed + finding.message,
        stop=bool(reason),
        reason=reason,
        best=scored[run.best_index],
        gain_z=math.nan if failed else gain_over_best(usable).z,
    )


def _unscored(ended: bool) -> Judgement:
    """Return the judgement on a run without any score."""
    verdict, message = "warming-up", "no snapshot has a score yet: look at why they failed."
    if ended:
        verdict = "too-few-snapshots"
        message = f"no snapshot has a score: {1 + MIN_SNAPSHOTS} are needed. Look at why they failed."
    return Judgement(verdict=verdict, message=message, stop=False, reason="", best=0, gain_z=math.nan)


def gain_over_best(results: Sequence[LISResult]) -> Estimate:
    """Return the newest result's paired difference to the best before it, all with an AIS; NaN for the first."""
    if len(results) < 2:
        return Estimate(value=math.nan, se=math.nan, low=math.nan, high=math.nan)
    *earlier, last = results
    return gain_over(max(earlier, key=lambda result: result.ais), last)


class _Run:
    """The scored results of a run, and the verdicts that follow from them."""

    def __init__(self, results: list[LISResult], rule: StopRule, max_steps: int | None, ended: bool) -> None:
        self.results = results
        self.rule = rule
        self.max_steps = max_steps
        self.last = results[-1]
        self.step = step_of(self.last, len(results) - 1)
        self.ended = ended or (max_steps is not None and self.step >= max_steps)
        self.best_index = max(range(len(results)), key=lambda index: results[index].ais)
        self.best = results[self.best_index]
        self.negligible = rule.negligible_gain(self.best.ais)
        self.trend = recent_trend(results, rule)
        self.too_early = too_early(results, rule, max_steps) and not self.ended

    def finding(self) -> _Finding:
        """Return the first verdict that applies."""
        decisive = (self._unreadable, self._data_bound, self._fallen, self._quantised)
        checks = (*decisive, self._ceiling, self._progress, self._early)
        findings = (check() for check in checks)
        return next(finding for finding in findings if finding is not None)

    def _unreadable(self) -> _Finding | None:
        """Return a verdict that overrides all others: the numbers cannot be read as usual."""
        placebo = next((result.placebo for result in self.results if result.placebo is not None), None)
        if placebo is not None and not placebo.passed:
            return _Finding(
                "placebo-failed",
                f"vectors that know nothing score {format_estimate(placebo.permuted)} (rows permuted) and "
                f"{format_estimate(placebo.random)} (random): the base lacks structure that any vector brings. "
                "Read AIS against these, not against 0, or give a better `base_logit`.",
            )
        raw, rank = (result.companions.get("rankme", math.inf) for result in (self.results[0], self.last))
        lost_rank = self.trend is not None and rank < COLLAPSED_SHARE * raw
        if rank < self.rule.collapsed_below or (lost_rank and self.last.compare(self.results[0]).low <= 0):
            return _Finding(
                "collapsed",
                f"the effective rank of the representation is {rank:.1f}: all items look alike. "
                f"{self._keep()}Lower the learning rate or add a regulariser against collapse.",
            )
        return None

    def _data_bound(self) -> _Finding | None:
        """Return what follows from too few users, and from a ceiling that may be 0 where AIS may be 0 too.

        The best snapshot is what a run has reached: read off the newest, one unlucky snapshot would take it back.
        """
        best, limit = self.best, self.best.ceiling
        if 0 < best.num_users < MIN_USERS:
            return _Finding(
                "underpowered",
                f"the test events are of {best.num_users} users: no interval holds with fewer than {MIN_USERS}. "
                "Score more users.",
            )
        if limit is None:
            return self._underpowered("AIS", cluster_interval(best.ais, best.influence))
        estimate = cluster_interval(limit.value, limit.influence)
        if best.ais_low > 0 or estimate.low > 0:
            return None
        name = estimate_name(best.aligned_to)
        if finding := self._underpowered(name, estimate):
            return finding
        if 0 < np.count_nonzero(limit.influence) < MIN_USERS:
            return _Finding("underpowered", f"{name} rests on too few users for an interval. Score more users.")
        return _Finding(
            "data-bound",
            f"{name} is {format_estimate(estimate)}, below the {self.rule.relevant_gain:+g} that matters: more or "
            "better preference data is needed; more training will not help.",
        )

    def _fallen(self) -> _Finding | None:
        """Return the verdict of a run whose newest snapshot is significantly below its best."""
        if self.trend is None or self.too_early or self._rising(self.trend) or not self._falls():
            return None
        drop = self.last.compare(self.best)
        text = f"AIS fell from {self.best.ais:+.4f} to {self.last.ais:+.4f}, by {format_estimate(drop)}"
        text += self._gap_change()
        losses = [result.train_loss if isinstance(result, Snapshot) else math.nan for result in (self.best, self.last)]
        if losses[1] < losses[0]:
            return _Finding(
                "overfitting",
                f"{text}, while the training loss still falls, from {losses[0]:.4g} to {losses[1]:.4g}. {self._keep()}"
                "A lower learning rate or more preference data may go further.",
            )
        return _Finding("past-its-best", f"{text}. {self._keep()}".rstrip())

    def _falls(self) -> bool:
        """Return whether the newest result is below the best by a relevant amount.

        The critical value is simultaneous over all pairs of snapshots so far: the best was picked among them, and a
        fall is looked for at each of them.
        """
        if not self.best.influence.size or not self.last.influence.size:
            return False
        drop = self.best.compare(self.last)
        probability = 1 - self.rule.significance
        single = critical_value(self.best.influence - self.last.influence, probability)
        if drop.value - single * drop.se <= self.negligible:
            return False
        influence = np.array([result.influence for result in self.results if result.influence.size])
        return drop.value - largest_fall_critical_value(influence, probability) * drop.se > self.negligible

    def _gap_change(self) -> str:
        """Return how the gap between seen and unseen items changed since the best snapshot; empty where unknown."""
        before, after = (result.ais_seen - result.ais_unseen for result in (self.best, self.last))
        if math.isnan(before) or math.isnan(after):
            return ""
        return f" (the gap between seen and unseen items went from {before:+.4f} to {after:+.4f})"

    def _quantised(self) -> _Finding | None:
        """Return the verdict of representations that are trained as far as they go, but whose codes lose much of it."""
        alone = not isinstance(self.last, Snapshot) and len(self.results) == 1
        settled = self.trend is not None and not self.too_early and not self._rising(self.trend)
        if not (alone or settled):
            return None
        for name, reading in self.best.reads.items():
            if reading.codes.size and reading.retained_high < self.rule.model_bound_below:
                retained = format_interval(reading.retained, reading.retained_low, reading.retained_high, percent=True)
                return _Finding(
                    "quantisation-bound",
                    f"a ranker that reads the codes {name!r} keeps {retained} of the gain of the vectors, "
                    f"{self.best.ais:+.4f}: quantisation is the bottleneck (collision rate "
                    f"{reading.facts.get('collision_rate', math.nan):.0%}, entropy "
                    f"{reading.facts.get('entropy', math.nan):.0%}). {self._keep()}Take more codes or levels, or train "
                    "for quantisation.",
                )
        return None

    def _ceiling(self) -> _Finding | None:
        """Return the verdict that follows from a clear AIS and its ceiling, if one does."""
        best, limit = self.best, self.best.ceiling
        if limit is None:
            return None
        estimate = cluster_interval(limit.value, limit.influence)
        name, interval = estimate_name(best.aligned_to), format_estimate(estimate)
        room = paired_difference(limit.value, limit.influence, best.ais, best.influence)
        if room.z <= -NOT_BINDING_Z and best.ais_low > 0:
            return _Finding(
                "ceiling-not-binding",
                f"AIS {best.ais:+.4f} exceeds {name}, {interval}: the content carries more than that. "
                f"No share is printed; watch AIS itself.{self._left()}",
            )
        # AIS may meet a ceiling that is too low while the data has more to teach: headroom tells.
        spent = max(self.negligible, SPENT_SHARE * best.ais)
        reached = room.value <= room.se and not best.headroom_low > spent
        if estimate.z > MIN_CEILING_Z and (reached or best.headroom_high < spent):
            return _Finding(
                "at-ceiling",
                f"AIS {best.ais:+.4f} has reached {name}, {interval}."
                f"{self._left()} {self._keep()}Only better preference data can bring more.",
            )
        return None

    def _progress(self) -> _Finding | None:
        """Return what the last part of the run says of the rest, once there are enough snapshots."""
        trend = self.trend
        if trend is None:
            return None
        remaining = trend.over(remaining_steps(trend.last_step, self.max_steps))
        measured = f"steps {trend.first_step} to {trend.last_step} gained {format_estimate(trend.gain)}"
        if self._rising(trend):
            advice = "It was still rising when it ended; train longer." if self.ended else "Go on."
            return _Finding("improving", f"AIS {self.best.ais:+.4f}: {measured}. {advice}")
        if self.too_early:
            return None
        reachable = self._reachable_share(remaining)
        if reachable < self.rule.model_bound_below and trend.slope.low <= 0:
            return _Finding(
                "model-bound",
                f"at most {reachable:.0%} of {estimate_name(self.best.aligned_to)} can be realised at this pace, and "
                f"{measured}: the model or its training is the bottleneck, not the data.",
            )
        if finding := self._underpowered(f"the gain of steps {trend.first_step} to {trend.last_step}", trend.gain):
            return finding
        if flat := pace_too_slow(trend, self.rule, self.best.ais, self.max_steps):
            return _Finding("plateau", f"{flat}. {self._keep()}".rstrip())
        return _Finding(
            "undecided",
            f"{measured}: neither a rise nor a plateau is clear. {self._keep()}".rstrip()
            + ("" if self.ended else f" The remaining steps may add up to {remaining.high:.4f}."),
        )

    def _rising(self, trend: Trend) -> bool:
        """Return whether the trend is a significant rise; look k spends 1 / (k (k + 1)) of the error probability."""
        look = len(self.results) - MIN_SNAPSHOTS
        return trend.slope.value > 0 and trend.p / 2 < self.rule.significance / (look * (look + 1))

    def _reachable_share(self, remaining: Estimate) -> float:
        """Return the upper bound of realised after the remaining steps; NaN where realised is undefined."""
        limit = self.best.ceiling
        if limit is None or not limit.value > 0:
            return math.nan
        return self.best.realised_high + max(remaining.high, 0.0) / limit.value

    def _early(self) -> _Finding:
        """Return the verdict of a run that is too short for a trend."""
        last, needed = self.last, 1 + MIN_SNAPSHOTS
        usable = 1 + sum(result.influence.size > 0 for result in self.results[1:])
        if not isinstance(last, Snapshot) and len(self.results) == 1:
            if last.realised_high < self.rule.model_bound_below:
                return _Finding(
                    "model-bound",
                    f"at most {last.realised_high:.0%} of {estimate_name(last.aligned_to)} is realised: the model is "
                    "the bottleneck, not the data.",
                )
            return _Finding("warming-up", "one representation shows no trend; score the snapshots of a run to see one.")
        if self.ended:
            return _Finding(
                "too-few-snapshots",
                f"the run ended with {usable} of the {needed} snapshots that show a trend: {max(needed - usable, 1)} "
                "more needed. Take them more often.",
            )
        return _Finding(
            "warming-up",
            f"snapshot {len(self.results)}, step {self.step}: too early to tell a plateau from a slow start.",
        )

    def _underpowered(self, what: str, estimate: Estimate) -> _Finding | None:
        last = self.last
        message = underpowered(
            what, estimate, last.num_events, last.num_days, self.rule.relevant_gain, self.best.detectable
        )
        return None if message is None else _Finding("underpowered", message)

    def _left(self) -> str:
        """Return what the preference data would still add to the best snapshot, if it was measured."""
        best = self.best
        if not math.isfinite(best.headroom):
            return ""
        left = format_interval(best.headroom, best.headroom_low, best.headroom_high)
        return f" Leaked on top of this representation, {best.aligned_to} would still add {left}."

    def _keep(self) -> str:
        """Return which snapshot to keep, if it is not the newest."""
        if not isinstance(self.best, Snapshot) or self.best is self.last:
            return ""
        return f"Keep the snapshot of step {self.best.step}. "
