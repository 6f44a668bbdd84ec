"""The audit: what preference data can bring at best, and what given vectors bring today, before anything is trained."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.random_streams import random_stream
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, LisError
from lis_lightning.functional.intervals import POWER_80, Estimate, cluster_interval, paired_difference
from lis_lightning.functional.multiple_comparisons import Comparison, compare_all_pairs
from lis_lightning.results.evidence import underpowered
from lis_lightning.results.format import format_estimate, format_interval
from lis_lightning.results.result import Ceiling, LISResult
from lis_lightning.results.stopping import MIN_CEILING_Z, StopRule
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.preferences.naming import Preference, by_name
from lis_lightning.scoring.scorer import Scorer

MISSING_GAP = 0.05  # difference of the shares without a vector, by class, from which absence tells the label
OF_A_REPRESENTATION = ("ceiling-not-binding", "at-ceiling", "model-bound")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the numbers say of one preference data or one representation.

    Attributes:
        name: Its name.
        verdict: ``worth-aligning``, ``data-bound`` or ``underpowered`` of preference data; ``gain``, ``no-gain``,
            ``ceiling-not-binding``, ``at-ceiling`` or ``model-bound`` of a representation.
        message: The verdict in words to act on.
    """

    name: str
    verdict: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """The audit of one task on one pair of windows.

    Attributes:
        task: Name of the label.
        period: Number of the pair of windows, 0 the oldest.
        begins: When its test window begins.
        facts: Sizes and rates of the split, base AUC and smallest detectable gain, as ``split.describe()``.
        placebo: What random vectors gain; anything but 0 within its error means that the base lacks structure.
        ceilings: LIS by the name of the preference data.
        results: Scores by the name of the representation.
        findings: What they say, of each preference data and then of each representation.
        ceiling_ranking: Paired differences of all ceilings, the best first.
        ranking: Paired differences of all representations, the best first.
    """

    task: str
    period: int
    begins: str
    facts: Mapping[str, Any]
    placebo: Estimate
    ceilings: Mapping[str, Ceiling]
    results: Mapping[str, LISResult]
    findings: tuple[Finding, ...]
    ceiling_ranking: tuple[Comparison, ...]
    ranking: tuple[Comparison, ...]

    @property
    def gains(self) -> dict[tuple[str, str], tuple[float, NDArray[np.float64]]]:
        """Each gain with its influence values, by measure (``ceiling`` or ``ais``) and name."""
        limits = {("ceiling", name): (limit.value, limit.influence) for name, limit in self.ceilings.items()}
        return limits | {("ais", name): (result.ais, result.influence) for name, result in self.results.items()}


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What preference data can bring, and what representations bring today.

    Attributes:
        aligned_to: The preference data that `realised` refers to.
        parts: The audit of each task on the first pair of windows, the primary task first; then, where windows are
            rolling, that of the primary task on each later pair.
    """

    aligned_to: str
    parts: tuple[Part, ...]

    @property
    def periods(self) -> tuple[Part, ...]:
        """The parts of the primary task, oldest first; more than one where windows are rolling."""
        return tuple(part for part in self.parts if part.task == self.parts[0].task)

    @property
    def aging(self) -> dict[tuple[str, str], Estimate]:
        """Each gain on the newest pair of windows less that on the oldest; empty unless windows are rolling."""
        first, last = self.periods[0], self.periods[-1]
        if first is last:
            return {}
        return {key: paired_difference(*last.gains[key], *gain) for key, gain in first.gains.items()}

    def rows(self) -> list[dict[str, str | int | float]]:
        """Return all numbers as rows of one tidy table: measure, name, against, task, period, value, low, high."""
        rows = [_row(part, *numbers) for part in self.parts for numbers in _numbers(part, self.aligned_to)]
        last = self.periods[-1]
        for (measure, name), change in self.aging.items():
            rows.append(_row(last, f"{measure}_aging", name, "", change.value, change.low, change.high))
        return rows


def _row(
    part: Part, measure: str, name: str, against: str, value: float, low: float, high: float
) -> dict[str, str | int | float]:
    """Return one number with where it is from."""
    return {
        "task": part.task, "period": part.period, "begins": part.begins, "measure": measure, "name": name,
        "against": against, "value": float(value), "low": float(low), "high": float(high),
    }  # fmt: skip


def audit(
    split: PreferenceSplit,
    preferences: Sequence[str] | Mapping[str, Preference] = ("pairs", "ids"),
    embeddings: Mapping[str, Any] | None = None,
    *,
    aligned_to: str | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Say what preference data can bring at best, and what representations bring today; no model is needed.

    Args:
        split: The validation preference split.
        preferences: Preference data, as :class:`lis_lightning.scoring.ScoreOptions` takes them.
        embeddings: Representations by name, [num_items, dim] each, rows in the order of ``split.item_ids``.
        aligned_to: The preference data that `realised` refers to; None for the first.
        cache_dir: See :class:`lis_lightning.scoring.Scorer`.
        progress: Called before each long step with what it is, its number from 0, and the number of steps.

    Returns:
        The audit; AUC gains on the test windows with 95 % intervals, clustered by user.

    Raises:
        ConfigError: If there is no preference data, or `aligned_to` is not among them.
        LisError: If a representation cannot be scored, with its name.

    Example:
        >>> import polars as pl
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> (part,) = audit(PreferenceSplit.from_log(log), ["pairs"]).parts
        >>> part.findings[0].name
        'pairs'
    """
    chosen = by_name(preferences)
    if not chosen:
        raise ConfigError("There is no preference data to audit; name at least one, such as 'pairs'.")
    target = next(iter(chosen)) if aligned_to is None else aligned_to
    if target not in chosen:
        raise ConfigError(f"Expected `aligned_to` among the preference data {list(chosen)}, got {target!r}.")
    given = dict(embeddings or {})
    scorer, options = (
        Scorer(split, cache_dir=cache_dir),
        ScoreOptions(ceilings=chosen, aligned_to=target, placebo=False),
    )
    splits = [*split.tasks.values(), *split.periods[1:]]
    tell = _counted(progress, 1 + len(given) + len(splits) * (1 + len(chosen)))
    tell("AIS of random vectors")
    placebo = _by_part(_score_noise(scorer))
    results = {}
    for name, rows in given.items():
        tell(f"AIS of {name}")
        results[name] = _by_part(_scored(scorer, name, rows, options))
    parts = []
    for part in splits:
        place = f"{part.task}, test window from {_begins(part)}"
        of_part = Scorer(part, cache_dir=cache_dir)
        ceilings = {}
        for name, preference in chosen.items():
            tell(f"ceiling of {name}: {place}")
            ceilings[name] = of_part.ceiling(preference)
        tell(f"what the split can detect: {place}")
        found = {name: by_part[part.task, part.period] for name, by_part in results.items()}
        parts.append(_part(of_part, ceilings, found, placebo[part.task, part.period]))
    return Audit(aligned_to=target, parts=tuple(parts))


def _counted(progress: Progress | None, total: int) -> Callable[[str], None]:
    """Return what tells each next step with its number."""
    steps = itertools.count()

    def tell(step: str) -> None:
        number = next(steps)
        if progress is not None:
            progress(step, number, total)

    return tell


def _by_part(result: LISResult) -> dict[tuple[str, int], LISResult]:
    """Return a result and those within it by task and period."""
    tasks = {(one.task, 0): one for one in (result, *result.tasks.values())}
    return tasks | {(one.task, number): one for number, one in enumerate(result.periods, start=1)}


def _part(scorer: Scorer, ceilings: Mapping[str, Ceiling], results: Mapping[str, LISResult], blank: LISResult) -> Part:
    split, facts = scorer.split, scorer.describe()
    limits = [
        judge_ceiling(name, limit, facts["test_events"], facts["smallest_detectable_gain"])
        for name, limit in ceilings.items()
    ]
    found = [_judge_result(name, result, facts["smallest_detectable_gain"]) for name, result in results.items()]
    return Part(
        task=split.task,
        period=split.period,
        begins=_begins(split),
        facts=facts,
        placebo=cluster_interval(blank.ais, blank.influence),
        ceilings=ceilings,
        results=results,
        findings=(*limits, *found),
        ceiling_ranking=compare_all_pairs({name: (limit.value, limit.influence) for name, limit in ceilings.items()}),
        ranking=compare_all_pairs({name: (result.ais, result.influence) for name, result in results.items()}),
    )


def _scored(scorer: Scorer, name: str, rows: Any, options: ScoreOptions) -> LISResult:
    """Score one representation; its name stands before what is wrong with it."""
    try:
        return scorer.score(rows, options)
    except LisError as error:
        raise type(error)(f"{name}: {error}") from error


def _score_noise(scorer: Scorer) -> LISResult:
    """Score vectors that know nothing."""
    split = scorer.split
    rng = random_stream(split.settings["seed"], "audit")
    return scorer.score(rng.standard_normal((split.num_items, 64)), ScoreOptions(ceilings=(), placebo=False))


def _begins(split: PreferenceSplit) -> str:
    """Return when the test window begins: a date where the unit of time is known, else the timestamp."""
    first, per_day = split.log.time[split.log.window == 2].min(), split.settings["units_per_day"]
    if per_day is None:
        return f"{first:g}"
    return datetime.fromtimestamp(float(first) / per_day * 86_400, UTC).date().isoformat()


def judge_ceiling(
    name: str, limit: Ceiling, num_events: int, detectable: float = 0.0, rule: StopRule | None = None
) -> Finding:
    """Say whether preference data is worth aligning to.

    Args:
        name: Of the preference data.
        limit: Its ceiling.
        num_events: Test events that it rests on.
        detectable: The smallest gain that so many events show.
        rule: Thresholds of what is too little and what is too uncertain; None takes the defaults.
    """
    rule = rule or StopRule()
    estimate = cluster_interval(limit.value, limit.influence)
    what = f"the ceiling of {name}"
    known = f"{what} is {format_estimate(limit)}"
    powerless = underpowered(what, estimate, num_events, rule.relevant_gain, detectable)
    if powerless is not None:
        verdict, message = "underpowered", powerless
    elif limit.low <= 0 or limit.high < rule.plateau_delta:
        verdict = "data-bound"
        message = f"{known}: more or better preference data is needed; no training on it will help."
    else:
        verdict, message = "worth-aligning", f"{known}: worth aligning to."
        if estimate.z < MIN_CEILING_Z:
            message += f" Its size is uncertain (z {estimate.z:.1f}), so that no share of it is stated."
    return Finding(name=name, verdict=verdict, message=message + _reservations(limit))


def _reservations(limit: Ceiling) -> str:
    """Return what a ceiling does not hold for, whatever it is."""
    told = ""
    if not limit.cross_fitted:
        told += " It is not cross-fitted: it holds only if no scored event went into this data."
    if abs(limit.missing_positive - limit.missing_negative) > MISSING_GAP:
        told += (
            f" {limit.missing_positive:.0%} of the positive and {limit.missing_negative:.0%} of the negative test "
            "events are on items without a vector: on those it says nothing."
        )
    return told


def _judge_result(name: str, result: LISResult, detectable: float) -> Finding:
    """Say what one representation brings; a verdict on a run or on the ceiling itself is not one on this."""
    if result.verdict in OF_A_REPRESENTATION:
        return Finding(name=name, verdict=result.verdict, message=result.message)
    gain = f"AIS {format_interval(result.ais, result.ais_low, result.ais_high)}"
    rank = result.companions.get("rankme", np.inf)
    alike = f" Its effective rank is {rank:.1f}: it tells few items apart." if rank < StopRule().collapsed_below else ""
    if result.ais_low > 0:
        share = "" if np.isnan(result.realised) else f", {result.realised:.0%} of the ceiling of {result.aligned_to}"
        left = "" if np.isnan(result.headroom) else f" {result.aligned_to} would still add {result.headroom:+.4f}."
        return Finding(name=name, verdict="gain", message=f"{gain}{share}.{left}{alike}")
    found = f"a gain of about {max(POWER_80 * result.se, detectable):+.4f} would be, 4 times in 5"
    if result.ais == 0:
        found = f"the ranker has no use for it; {found}"
    return Finding(name=name, verdict="no-gain", message=f"{gain}: none is found; {found}.{alike}")


def _numbers(part: Part, aligned_to: str) -> Iterator[tuple[str, str, str, float, float, float]]:
    """Yield measure, name, against, value, low and high of everything in a part."""
    nan = float("nan")
    yield "base_auc", "", "", part.facts["base_auc"], nan, nan
    yield "smallest_detectable_gain", "", "", part.facts["smallest_detectable_gain"], nan, nan
    yield "ais", "random vectors", "", part.placebo.value, part.placebo.low, part.placebo.high
    for name, limit in part.ceilings.items():
        yield "ceiling", name, "", limit.value, limit.low, limit.high
        yield "ceiling_past", name, "", limit.past, nan, nan
        yield "future_adds", name, "", limit.future.value, limit.future.low, limit.future.high
        yield "missing_positive", name, "", limit.missing_positive, nan, nan
        yield "missing_negative", name, "", limit.missing_negative, nan, nan
    for name, result in part.results.items():
        yield "ais", name, "", result.ais, result.ais_low, result.ais_high
        yield "ais_geometry", name, "", result.ais_geometry, nan, nan
        yield "gauc_gain", name, "", result.gauc_gain, result.gauc_gain_low, result.gauc_gain_high
        yield "realised", name, aligned_to, result.realised, result.realised_low, result.realised_high
        yield "headroom", name, aligned_to, result.headroom, result.headroom_low, result.headroom_high
        if not np.isnan(result.ais_weighted):
            yield "ais_weighted", name, "", result.ais_weighted, result.ais_weighted_low, result.ais_weighted_high
        for place, estimate in result.slices.items():
            yield f"ais, {place}", name, "", estimate.value, estimate.low, estimate.high
    for measure, pairs in (("ceiling_difference", part.ceiling_ranking), ("ais_difference", part.ranking)):
        for pair in pairs:
            gap = pair.difference
            yield measure, pair.better, pair.worse, gap.value, gap.low, gap.high
