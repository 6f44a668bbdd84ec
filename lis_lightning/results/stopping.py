"""When to stop and what the bottleneck is: pure functions of the list of results of a run.

Evidence is paired: snapshots share their users, so their difference is known far better than either of them. A verdict
claims no more than its interval does. The thresholds were chosen on one half of the worlds of ``recipes/evidence``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from lis_lightning.errors import ConfigError
from lis_lightning.functional.intervals import Z95, Estimate, cluster_interval, paired_difference
from lis_lightning.results.evidence import gain_over, gap_error, underpowered
from lis_lightning.results.format import format_estimate, format_interval
from lis_lightning.results.result import LISResult
from lis_lightning.results.snapshot import Snapshot

MIN_CEILING_Z = 4.0  # below this a share of the ceiling is noise over noise: its error exceeds a quarter of it
NOT_BINDING_Z = 2.0
MIN_USERS = 10  # with fewer, a clustered standard error says next to nothing
COLLAPSED_SHARE = 0.25  # of the raw effective rank, left in a representation that is no better than the raw one

VERDICTS = (
    "warming-up",
    "improving",
    "plateau",
    "at-ceiling",
    "ceiling-not-binding",
    "data-bound",
    "model-bound",
    "overfitting-items",
    "overfitting",
    "collapsed",
    "placebo-failed",
    "underpowered",
)
"""All verdicts; the position is the code in the curve ``lis/verdict``."""


def _within(low: float, high: float = math.inf) -> Any:
    return {"low": low, "high": high}


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Thresholds of the stop rule and the verdict.

    Attributes:
        warmup: Evaluations after the raw one that are never held against a run: fine-tuning dips first.
        plateau_delta: A change of fewer AUC units than this is none: snapshots jitter.
        plateau_share: The same as a share of the best AIS; the larger of the two counts.
        plateau_patience: The last evaluations that a rise is looked for in.
        plateau_z: A run stops if their paired gain over the best before, plus this many standard errors, is no change:
            1.96 waits until a rise is all but ruled out, 0 stops when none is seen and a relevant one is ruled out.
        rising_z: The last evaluations rise if the paired z of the best of them against the best before exceeds this.
        falling_z: An evaluation falls if its paired z against a change of none, from the best before it, is below this;
            less where the best was picked among many: the luckiest of many is seldom met again (Bonferroni).
        falling_patience: Successive falling evaluations that stop a run, unless they rise again.
        model_bound_below: Upper end of realised below which a run on a plateau is bound by the model.
        collapsed_below: Effective rank below which any representation counts as collapsed.
        relevant_gain: Smallest gain, in AUC, that matters. An interval that holds both 0 and this is underpowered.

    Raises:
        ConfigError: If a value is of another kind or out of range.

    Example:
        >>> StopRule(plateau_patience=3).plateau_patience
        3
    """

    warmup: int = field(default=2, metadata=_within(0))
    plateau_delta: float = field(default=0.0005, metadata=_within(0))
    plateau_share: float = field(default=0.1, metadata=_within(0, 1))
    plateau_patience: int = field(default=2, metadata=_within(1))
    plateau_z: float = field(default=1.0, metadata=_within(0))
    rising_z: float = field(default=1.96, metadata=_within(0))
    falling_z: float = field(default=-1.64, metadata=_within(-8, 0))
    falling_patience: int = field(default=2, metadata=_within(1))
    model_bound_below: float = field(default=0.7, metadata=_within(0))
    collapsed_below: float = field(default=1.5, metadata=_within(0))
    relevant_gain: float = field(default=0.005, metadata=_within(1e-6, 1))

    def __post_init__(self) -> None:
        for spec in fields(self):
            value, low, high = getattr(self, spec.name), spec.metadata["low"], spec.metadata["high"]
            kinds, kind = ((int,), "an integer") if spec.type == "int" else ((int, float), "a number")
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                bounds = f"of at least {low}" if high == math.inf else f"in [{low}, {high}]"
                raise ConfigError(f"Expected `{spec.name}` of the stop rule to be {kind} {bounds}, got {value!r}.")


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
    stop: str = ""  # the reason to stop, where there is one


def judge(results: Sequence[LISResult], rule: StopRule | None = None) -> Judgement:
    """Judge a run by its results so far.

    Results without an AIS (NaN: a snapshot that could not be scored) are passed over.

    Args:
        results: Results in the order of their steps, the raw one first, all on one split.
        rule: Thresholds; None takes the defaults.

    Raises:
        ConfigError: If there is no result.
        ShapeError: If the results come from different splits.

    Example:
        >>> import numpy as np
        >>> flat = LISResult(ais=0.0, ais_low=-0.001, ais_high=0.001, ais_geometry=0.0, auc_base=0.75, auc=0.75,
        ...                  influence=np.array([0.0004, -0.0004, 0.0]))
        >>> judge([flat]).verdict
        'warming-up'
    """
    if not results:
        raise ConfigError("Nothing to judge: the list of results is empty.")
    scored = [index for index, result in enumerate(results) if math.isfinite(result.ais)]
    if not scored:
        finding = _Finding("warming-up", "no snapshot has a score yet: look at why they failed.")
        return Judgement(**finding._asdict() | {"stop": False, "reason": "", "best": 0, "gain_z": math.nan})
    run = _Run([results[index] for index in scored], rule or StopRule())
    finding = run.finding()
    failed = "" if scored[-1] == len(results) - 1 else "the newest snapshot has no score; up to the one before: "
    return Judgement(
        verdict=finding.verdict,
        message=failed + finding.message,
        stop=bool(finding.stop),
        reason=finding.stop,
        best=scored[run.best_at],
        gain_z=math.nan if failed else run.gains[-1].z,
    )


def gains_over_best(results: Sequence[LISResult]) -> list[Estimate]:
    """Return each result's paired difference to the best result before it; NaN for the first and without an AIS."""
    nothing = Estimate(value=math.nan, se=math.nan, low=math.nan, high=math.nan)
    gains: list[Estimate] = []
    best: LISResult | None = None
    for result in results:
        known = math.isfinite(result.ais)
        gains.append(gain_over(best, result) if known and best is not None else nothing)
        if known and (best is None or result.ais > best.ais):
            best = result
    return gains


class _Run:
    """The scored results of a run, and what can be read off them."""

    def __init__(self, results: list[LISResult], rule: StopRule) -> None:
        self.results = results
        self.rule = rule
        self.last = results[-1]
        self.best_at = max(range(len(results)), key=lambda index: results[index].ais)
        self.best = results[self.best_at]
        self.gains = gains_over_best(results)
        self.worth = max(rule.plateau_delta, rule.plateau_share * self.best.ais)
        self.num_recent = max(0, min(rule.plateau_patience, len(results) - 1 - rule.warmup))

    def finding(self) -> _Finding:
        """Return the first verdict that applies, with the first reason to stop, whatever the verdict."""
        fallen, limited, progress = self._fallen(), self._limited(), self._progress()
        stop = (fallen.stop if fallen else "") or self._flat(progress)
        # What worthless data teaches falls too: the data is to blame, not the training.
        worthless = limited if limited and limited.verdict == "data-bound" else None
        checks = (self._unreadable(), worthless, fallen, limited, self._trend(progress), self._early())
        return next(found for found in checks if found is not None)._replace(stop=stop)

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
        lost = self.num_recent and rank < COLLAPSED_SHARE * raw and self.last.compare(self.results[0]).low <= 0
        if rank < self.rule.collapsed_below or lost:
            return _Finding(
                "collapsed",
                f"the effective rank of the representation is {rank:.1f}: all items look alike. "
                f"{self._keep()}Lower the learning rate or add a regulariser against collapse.",
            )
        return None

    def _fallen(self) -> _Finding | None:
        """Return which kind of overfitting a falling curve shows, once it has fallen for long enough."""
        falling = [self._falls(index) for index in range(1 + self.rule.warmup, len(self.results))]
        streak = next((length for length, hit in enumerate(reversed(falling)) if not hit), len(falling))
        if streak < self.rule.falling_patience or self._recovers():
            return None
        stop = f"{streak} successive snapshots are significantly below the best one"
        gap_before, *gaps = (result.ais_seen - result.ais_unseen for result in (self.best, *self.results[-streak:]))
        gap = sum(gaps) / streak
        gap_text = f"the gap between seen and unseen items went from {gap_before:+.4f} to {gap:+.4f}"
        if gap - gap_before > Z95 * gap_error(self.last, self.best):
            return _Finding(
                "overfitting-items",
                f"{self._drop()}, and {gap_text}: the model memorises the items it is aligned on. {self._keep()}More "
                "items, or fewer steps on each, may go further.",
                stop,
            )
        return _Finding(
            "overfitting",
            f"{self._drop()}, not on unseen items alone ({gap_text}): the model leaves what helps new users. "
            f"{self._keep()}A lower learning rate or more preference data may go further.",
            stop,
        )

    def _falls(self, index: int) -> bool:
        """Return whether a result is below the best before it by more than jitter and picking the best explain."""
        gain, normal = self.gains[index], NormalDist()
        return gain.value + self.worth < normal.inv_cdf(normal.cdf(self.rule.falling_z) / max(index, 1)) * gain.se

    def _recovers(self) -> bool:
        """Return whether the newest result rises out of a dip among the few before it."""
        end = len(self.results) - 1
        dips = [index for index in range(max(1, end - self.rule.plateau_patience), end) if self._falls(index)]
        rises = [self.last.compare(self.results[index]) for index in dips]
        return any(self._rises(rise) for rise in rises)

    def _rises(self, change: Estimate) -> bool:
        return change.value > self.worth and change.z > self.rule.rising_z

    def _limited(self) -> _Finding | None:
        """Return the verdict that follows from the best AIS and its ceiling alone, if one does.

        The best snapshot is what a run has reached: read off the newest, one unlucky snapshot would take it back.
        """
        best, limit = self.best, self.best.ceiling
        if limit is None:
            return self._powerless("AIS", cluster_interval(best.ais, best.influence))
        estimate = cluster_interval(limit.value, limit.influence)
        name = f"the ceiling of {best.aligned_to}"
        interval = format_estimate(estimate)
        room = paired_difference(limit.value, limit.influence, best.ais, best.influence)
        worthless = estimate.low <= 0 and estimate.high < self.worth
        if room.z <= -NOT_BINDING_Z and best.ais_low > 0 and not worthless:
            return _Finding(
                "ceiling-not-binding",
                f"AIS {best.ais:+.4f} exceeds {name}, {interval}: the content carries more than this "
                f"preference data. No share is printed; watch AIS itself.{self._left()}",
            )
        if estimate.low <= 0:
            if powerless := self._powerless(name, estimate):
                return powerless
            if 0 < np.count_nonzero(limit.influence) < MIN_USERS:
                return _Finding("underpowered", f"{name} rests on too few users for an interval. Score more users.")
            if best.ais_low <= 0 or worthless:
                return _Finding(
                    "data-bound",
                    f"{name} is {interval}: more or better preference data is needed; more training will not help.",
                )
        # AIS may meet a ceiling that is too low while the data has more to teach: headroom tells.
        reached = room.value <= room.se and not best.headroom_low > self.worth
        if estimate.z > MIN_CEILING_Z and (reached or best.headroom_high < self.worth):
            return _Finding(
                "at-ceiling",
                f"AIS {best.ais:+.4f} has reached what {best.aligned_to} can teach: {name} is {interval}."
                f"{self._left()} {self._keep()}Only better preference data can bring more.",
            )
        return None

    def _progress(self) -> Estimate | None:
        """Return what the best of the last results gains over the best before them; None during the warm-up."""
        if not self.num_recent:
            return None
        before, recent = self.results[: -self.num_recent], self.results[-self.num_recent :]
        newest, oldest = (max(part, key=lambda result: result.ais) for part in (recent, before))
        return newest.compare(oldest)

    def _flat(self, progress: Estimate | None) -> str:
        """Return the reason to stop at a plateau, if the progress is not worth waiting for."""
        if progress is None or self.num_recent < self.rule.plateau_patience:
            return ""
        sure = progress.value + self.rule.plateau_z * progress.se < self.worth
        if not sure or progress.high >= max(self.rule.relevant_gain, self.worth) or self._recovers():
            return ""
        return f"the last {self.num_recent} snapshots gain less than {self.worth:.4f} over the best one before"

    def _trend(self, progress: Estimate | None) -> _Finding | None:
        """Return what the last results say of the curve, once there are enough of them."""
        if progress is None:
            return None
        recent = "the last snapshot" if self.num_recent == 1 else f"the last {self.num_recent} snapshots"
        gained = f"the gain of {recent} over the best before is {format_estimate(progress)}"
        if self._recovers():
            return _Finding(
                "improving",
                f"AIS {self.last.ais:+.4f} rises out of a dip; the best is {self.best.ais:+.4f}. Go on.",
            )
        if self._falls(len(self.results) - 1):
            once = f"{self._drop()}; if it stays there, the run is overfitting. {self._keep()}"
            return _Finding("plateau", once.rstrip())
        if self._rises(progress):
            return _Finding("improving", f"AIS {self.best.ais:+.4f}: {gained}. Go on.")
        if self.num_recent < self.rule.plateau_patience:
            return None
        if powerless := self._powerless(f"the gain of {recent} over the best before", progress):
            return powerless
        if self.best.realised_high < self.rule.model_bound_below:
            return _Finding(
                "model-bound",
                f"at most {self.best.realised_high:.0%} of the ceiling of {self.best.aligned_to} is realised, and "
                f"{gained}: the model or its training is the bottleneck, not the data.",
            )
        hidden = "" if self._flat(progress) else f" A rise of up to {progress.high:.4f} would not show on this split."
        return _Finding("plateau", f"{gained}: more of the same adds nothing. {self._keep()}".rstrip() + hidden)

    def _early(self) -> _Finding:
        """Return the verdict of a run that is too short for a trend."""
        last, needed = self.last, 1 + self.rule.warmup + self.rule.plateau_patience
        if isinstance(last, Snapshot) or len(self.results) > 1:
            return _Finding(
                "warming-up",
                f"snapshot {len(self.results)} of at least {needed}: too early to tell a plateau from a slow start.",
            )
        if last.realised_high < self.rule.model_bound_below:
            return _Finding(
                "model-bound",
                f"at most {last.realised_high:.0%} of the ceiling of {last.aligned_to} is realised: the model is the "
                "bottleneck, not the data.",
            )
        return _Finding("warming-up", "one representation shows no trend; score the snapshots of a run to see one.")

    def _powerless(self, what: str, estimate: Estimate) -> _Finding | None:
        said = underpowered(what, estimate, self.last.num_events, self.rule.relevant_gain, self.best.detectable)
        return None if said is None else _Finding("underpowered", said)

    def _left(self) -> str:
        """Return what the preference data would still add to the best snapshot, where that is known."""
        best = self.best
        if not math.isfinite(best.headroom):
            return ""
        left = format_interval(best.headroom, best.headroom_low, best.headroom_high)
        return f" Leaked on top of this representation it would still add {left}."

    def _drop(self) -> str:
        return f"AIS fell from {self.best.ais:+.4f} to {self.last.ais:+.4f}, by {format_estimate(self.gains[-1])}"

    def _keep(self) -> str:
        """Return which snapshot to keep, if it is not the newest."""
        if not isinstance(self.best, Snapshot) or self.best is self.last:
            return ""
        return f"Keep the snapshot of step {self.best.step}. "
