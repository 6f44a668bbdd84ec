"""When to stop and what the bottleneck is: pure functions of the list of results of a run.

Evidence is paired: snapshots share their users, so their difference is known far better than either of them. The
thresholds are first guesses, replayed on a prototype's runs only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lis_lightning.errors import ConfigError
from lis_lightning.functional.intervals import Z95, Estimate, cluster_interval, paired_difference
from lis_lightning.result import LISResult

POWER_80 = Z95 + 0.8416212335729143  # standard errors between zero and a gain that is found 4 times in 5

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


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Thresholds of the stop rule and the verdict.

    Attributes:
        warmup: Evaluations after the raw one that are never held against a run: fine-tuning dips first.
        falling_z: An evaluation is falling if its paired z against the best before it is below this.
        falling_patience: Successive falling evaluations that stop a run.
        plateau_delta: An evaluation is flat if the upper end of its paired difference to the best before it is below
            this many AUC units.
        plateau_patience: Successive flat evaluations that stop a run.
        model_bound_below: Upper end of realised below which a flat run is bound by the model.
        collapsed_below: Effective rank below which a representation counts as collapsed.
        underpowered_above: Smallest detectable gain, in AUC, above which a null result says nothing.
    """

    warmup: int = 2
    falling_z: float = -1.64
    falling_patience: int = 2
    plateau_delta: float = 0.0005
    plateau_patience: int = 3
    model_bound_below: float = 0.7
    collapsed_below: float = 1.5
    underpowered_above: float = 0.02

    def __post_init__(self) -> None:
        for name in ("falling_patience", "plateau_patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected `{name}` of at least 1, got {getattr(self, name)!r}.")
        if self.warmup < 0:
            raise ConfigError(f"Expected `warmup` of at least 0, got {self.warmup!r}.")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a run's results say so far.

    Attributes:
        verdict: One of :data:`VERDICTS`, of the newest result.
        message: The verdict in a sentence that a person can act on.
        stop: Whether the rule says to stop.
        reason: Why, where it does.
        best: Index of the result with the highest AIS.
        gain_z: Paired z of the newest result against the best before it; NaN for the first.
    """

    verdict: str
    message: str
    stop: bool
    reason: str
    best: int
    gain_z: float


def judge(results: Sequence[LISResult], rule: StopRule | None = None) -> Judgement:
    """Judge a run by its results so far.

    Args:
        results: Results in the order of their steps, the raw one first, all on one split.
        rule: Thresholds; None takes the defaults.

    Raises:
        ConfigError: If there is no result.

    Example:
        >>> import numpy as np
        >>> flat = LISResult(ais=0.0, ais_low=-0.001, ais_high=0.001, ais_geometry=0.0, auc_base=0.75, auc=0.75,
        ...                  influence=np.array([0.0004, -0.0004, 0.0]))
        >>> judge([flat]).verdict
        'warming-up'
    """
    if not results:
        raise ConfigError("Nothing to judge: the list of results is empty.")
    rule = rule or StopRule()
    gains = gains_over_best(results)
    evaluations = gains[1 + rule.warmup :]
    falling = _streak([gain.z < rule.falling_z for gain in evaluations]) >= rule.falling_patience
    flat = _streak([gain.high < rule.plateau_delta for gain in evaluations]) >= rule.plateau_patience
    verdict, message = _verdict(results, rule, falling=falling, flat=flat)
    warm = len(results) > 1 + rule.warmup
    reason = ""
    if warm and falling:
        reason = f"{rule.falling_patience} successive snapshots are significantly below the best one"
    elif warm and flat:
        reason = f"{rule.plateau_patience} successive snapshots gain less than {rule.plateau_delta:g} over the best one"
    elif warm and verdict == "at-ceiling":
        reason = "AIS is within one standard error of the ceiling"
    return Judgement(
        verdict=verdict,
        message=message,
        stop=bool(reason),
        reason=reason,
        best=max(range(len(results)), key=lambda index: results[index].ais),
        gain_z=gains[-1].z,
    )


def gains_over_best(results: Sequence[LISResult]) -> list[Estimate]:
    """Return each result's paired difference to the best result before it; NaN for the first."""
    gains = [Estimate(value=math.nan, se=math.nan, low=math.nan, high=math.nan)]
    best = results[0]
    for result in results[1:]:
        gains.append(result.compare(best))
        best = max(best, result, key=lambda candidate: candidate.ais)
    return gains


def _streak(hits: list[bool]) -> int:
    """Return how many hits the list ends with."""
    length = 0
    for hit in reversed(hits):
        if not hit:
            break
        length += 1
    return length


def _verdict(results: Sequence[LISResult], rule: StopRule, *, falling: bool, flat: bool) -> tuple[str, str]:
    """Return the verdict of the newest result and its message; the first that applies."""
    last = results[-1]
    broken = _broken(results, rule)
    if broken is not None:
        return broken
    if falling:
        return _falling(results)
    limit = _against_ceiling(last, rule)
    if limit is not None:
        return limit
    if last.realised_high < rule.model_bound_below and (flat or last.step is None):
        return "model-bound", (
            f"at most {last.realised_high:.0%} of the {last.aligned_to} ceiling is realised"
            f"{' and the curve is flat' if flat else ''}: the model or its training is the bottleneck, not the data."
        )
    if flat:
        return (
            "plateau",
            f"AIS {last.ais:+.4f} no longer rises: keep the best snapshot; more of the same adds nothing.",
        )
    if len(results) <= 1 + rule.warmup:
        return "warming-up", f"snapshot {len(results)} of the first {1 + rule.warmup}: too early to read a trend."
    return "improving", f"AIS {last.ais:+.4f}: nothing speaks against going on."


def _broken(results: Sequence[LISResult], rule: StopRule) -> tuple[str, str] | None:
    """Return a verdict that overrides all others: the numbers cannot be read as usual."""
    last = results[-1]
    placebo = next((result.placebo for result in results if result.placebo is not None), None)
    if placebo is not None and not placebo.passed:
        return "placebo-failed", (
            f"vectors that know nothing score {placebo.permuted.value:+.4f} (rows permuted) and "
            f"{placebo.random.value:+.4f} (random): the base lacks structure that any vector brings. Read AIS against "
            "these, not against 0."
        )
    rank = last.companions.get("rankme", math.inf)
    if rank < rule.collapsed_below:
        return "collapsed", (
            f"the effective rank of the representation is {rank:.1f}: all items look alike. Lower the learning rate or "
            "add a regulariser against collapse."
        )
    return None


def _falling(results: Sequence[LISResult]) -> tuple[str, str]:
    """Return which kind of overfitting a falling curve shows."""
    last = results[-1]
    best = max(results, key=lambda result: result.ais)
    gap, gap_before = (result.ais_seen - result.ais_unseen for result in (last, best))
    where = "" if best.step is None else f" Go back to the snapshot of step {best.step}."
    if gap > gap_before:
        return "overfitting-items", (
            f"AIS fell from {best.ais:+.4f} to {last.ais:+.4f} while the gap between seen and unseen items grew from "
            f"{gap_before:+.4f} to {gap:+.4f}: the model memorises the items it is aligned on.{where}"
        )
    return "overfitting", f"AIS fell from {best.ais:+.4f} to {last.ais:+.4f}, on seen and unseen items alike.{where}"


def _against_ceiling(last: LISResult, rule: StopRule) -> tuple[str, str] | None:
    """Return the verdict that follows from AIS and its ceiling alone, if one does."""
    limit = last.ceiling
    if limit is None:
        return _powerless("AIS", cluster_interval(last.ais, last.influence), last, rule)
    estimate = cluster_interval(limit.value, limit.influence)
    name = f"the ceiling of {last.aligned_to} is {limit.value:+.4f} [{limit.low:+.4f}, {limit.high:+.4f}]"
    room = paired_difference(limit.value, limit.influence, last.ais, last.influence)
    if room.z <= -2 and last.ais_low > 0:
        return "ceiling-not-binding", (
            f"AIS {last.ais:+.4f} exceeds it: {name}. The content carries more than this preference data; no share is "
            "printed."
        )
    if limit.low <= 0:
        return _powerless("the ceiling", estimate, last, rule) or (
            "data-bound",
            f"{name}: more or better preference data is needed; more training will not help.",
        )
    if room.value <= room.se:
        return "at-ceiling", f"AIS {last.ais:+.4f} has reached it: {name}. Done, or get better preference data."
    return None


def _powerless(what: str, estimate: Estimate, last: LISResult, rule: StopRule) -> tuple[str, str] | None:
    """Return `underpowered` if an interval includes 0 and is too wide for that to mean anything."""
    detectable = POWER_80 * estimate.se
    if estimate.low > 0 or detectable <= rule.underpowered_above:
        return None
    if not math.isfinite(detectable):
        return "underpowered", f"{what} rests on fewer than two users; nothing can be said."
    needed = math.ceil(last.num_events * (detectable / rule.underpowered_above) ** 2)
    return "underpowered", (
        f"{what} is {estimate.value:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}]; {last.num_events} test events "
        f"show gains from {detectable:.3f} only. About {needed} are needed for {rule.underpowered_above:g}."
    )
