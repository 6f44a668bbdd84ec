"""Audit of preference data and item vectors before any training: ceilings, scores, and the verdicts on them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lis_lightning.data.random_streams import random_stream
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, LisError
from lis_lightning.functional.intervals import POWER_80, cluster_interval
from lis_lightning.functional.multiple_comparisons import compare_all_pairs
from lis_lightning.results.audit import Audit, Finding, Part
from lis_lightning.results.evidence import underpowered
from lis_lightning.results.format import estimate_name, format_estimate, format_interval
from lis_lightning.results.result import Ceiling, LISResult
from lis_lightning.results.stopping import StopRule
from lis_lightning.results.verdict import MIN_CEILING_Z
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.power import tested_days
from lis_lightning.scoring.preferences.naming import Preference, by_name
from lis_lightning.scoring.reads.code_table import CodeTable
from lis_lightning.scoring.reads.naming import Reads
from lis_lightning.scoring.scorer import Scorer

MISSING_GAP = 0.05  # between the classes' shares of events without a vector; above it absence predicts the label
# Verdicts of `judge` that hold for a single representation; the others are about a run or the ceiling itself.
OF_A_REPRESENTATION = ("ceiling-not-binding", "at-ceiling", "model-bound", "quantisation-bound")

Progress = Callable[[str, int, int], None]


def audit(
    split: PreferenceSplit,
    preferences: Sequence[str] | Mapping[str, Preference] = ("pairs", "ids"),
    embeddings: Mapping[str, Any] | None = None,
    *,
    aligned_to: str | None = None,
    reads: Reads = (),
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audit preference data and item representations on a split; no model is needed.

    Args:
        split: The validation preference split.
        preferences: Preference data, as :class:`lis_lightning.scoring.ScoreOptions` takes them.
        embeddings: Representations by name, [num_items, dim] each, rows in the order of ``split.item_ids``; or semantic
            IDs as a :class:`~lis_lightning.scoring.reads.CodeTable`, scored by the prefixes that items share.
        aligned_to: The preference data that `realised` refers to; None for the first.
        reads: What else to score of each representation, as :class:`lis_lightning.scoring.ScoreOptions` takes it.
        cache_dir: See :class:`lis_lightning.scoring.Scorer`.
        progress: Called before each long step with what it is, its number from 0, and the number of steps.

    Returns:
        AUC gains on the test windows with 95 % intervals, clustered by user: ceilings of the preference data, scores of
        the representations.

    Raises:
        ConfigError: If there is no preference data, or `aligned_to` is not among them.
        LisError: If a representation cannot be scored; the message begins with its name.

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
    embeddings = dict(embeddings or {})
    scorer = Scorer(split, cache_dir=cache_dir)
    options = ScoreOptions(ceilings=chosen, aligned_to=target, placebo=False, reads=reads)
    splits = [*split.tasks.values(), *split.periods[1:]]
    report_step = _numbered(progress, 1 + len(embeddings) + len(splits) * (1 + len(chosen)))
    report_step("AIS of random vectors")
    placebo = _by_part(_score_noise(scorer))
    results = {}
    for name, vectors in embeddings.items():
        report_step(f"AIS of {name}")
        results[name] = _by_part(_score(scorer, name, vectors, options))
    parts = []
    for part in splits:
        window = f"{part.task}, test window from {_begins(part)}"
        part_scorer = Scorer(part, cache_dir=cache_dir)
        ceilings = {}
        for name, preference in chosen.items():
            report_step(f"LIS of {name}: {window}")
            ceilings[name] = part_scorer.ceiling(preference)
        report_step(f"smallest detectable gain: {window}")
        key = (part.task, part.period)
        part_results = {name: by_part[key] for name, by_part in results.items()}
        parts.append(_part(part_scorer, ceilings, part_results, placebo[key]))
    return Audit(aligned_to=target, parts=tuple(parts))


def _numbered(progress: Progress | None, total: int) -> Callable[[str], None]:
    """Return a function that reports each step with its number."""
    steps = itertools.count()

    def report_step(step: str) -> None:
        number = next(steps)
        if progress is not None:
            progress(step, number, total)

    return report_step


def _by_part(result: LISResult) -> dict[tuple[str, int], LISResult]:
    """Return a result and the results nested in it, by task and period."""
    tasks = {(nested.task, 0): nested for nested in (result, *result.tasks.values())}
    return tasks | {(nested.task, number): nested for number, nested in enumerate(result.periods, start=1)}


def _part(
    scorer: Scorer, ceilings: Mapping[str, Ceiling], results: Mapping[str, LISResult], placebo: LISResult
) -> Part:
    """Assemble a part: numbers, verdicts, and the comparison of all pairs."""
    split, facts = scorer.split, scorer.describe()
    num_events, num_days, detectable = int(split.tested.sum()), tested_days(split), facts["smallest_detectable_gain"]
    on_ceilings = [
        judge_ceiling(name, ceiling, num_events, detectable, num_days=num_days) for name, ceiling in ceilings.items()
    ]
    ceiling_gains = {name: (ceiling.value, ceiling.influence) for name, ceiling in ceilings.items()}
    gains = {name: (result.ais, result.influence) for name, result in results.items()}
    on_results = [_judge_result(name, result, detectable) for name, result in results.items()]
    return Part(
        task=split.task,
        period=split.period,
        begins=_begins(split),
        facts=facts,
        placebo=cluster_interval(placebo.ais, placebo.influence),
        ceilings=ceilings,
        results=results,
        findings=(*on_ceilings, *on_results),
        ceiling_ranking=compare_all_pairs(ceiling_gains),
        ranking=compare_all_pairs(gains),
    )


def _score(scorer: Scorer, name: str, vectors: Any, options: ScoreOptions) -> LISResult:
    """Score one representation; put its name in front of any error message."""
    try:
        if isinstance(vectors, CodeTable):  # further codes of codes say nothing
            vectors, options = vectors.vectors(scorer.split.item_ids), replace(options, reads=())
        return scorer.score(vectors, options)
    except LisError as error:
        raise type(error)(f"{name}: {error}") from error


def _score_noise(scorer: Scorer) -> LISResult:
    """Score random vectors."""
    split = scorer.split
    rng = random_stream(split.settings["seed"], "audit")
    return scorer.score(rng.standard_normal((split.num_items, 64)), ScoreOptions(ceilings=(), placebo=False))


def _begins(split: PreferenceSplit) -> str:
    """Return the start of the test window: a date where the unit of time is known, else the timestamp."""
    first, per_day = split.log.time[split.log.window == 2].min(), split.settings["units_per_day"]
    if per_day is None:
        return f"{first:g}"
    return datetime.fromtimestamp(float(first) / per_day * 86_400, UTC).date().isoformat()


def judge_ceiling(
    name: str,
    ceiling: Ceiling,
    num_events: int,
    detectable: float = 0.0,
    rule: StopRule | None = None,
    *,
    num_days: float = math.nan,
) -> Finding:
    """Judge whether preference data is worth aligning to.

    Args:
        name: Name of the preference data.
        ceiling: Its ceiling.
        num_events: Number of test events that the ceiling was measured on.
        detectable: Smallest AUC gain that the test window can detect.
        rule: Thresholds for too small and too uncertain; None takes the defaults.
        num_days: Days over which these events spread; NaN if unknown.

    Returns:
        The verdict with its reasons.
    """
    rule = rule or StopRule()
    estimate = cluster_interval(ceiling.value, ceiling.influence)
    subject = estimate_name(name)
    size = f"{subject} is {format_estimate(ceiling)}"
    too_few_events = underpowered(subject, estimate, num_events, num_days, rule.relevant_gain, detectable)
    if too_few_events is not None:
        verdict, message = "underpowered", too_few_events
    elif ceiling.low <= 0 or ceiling.high < rule.min_gain:
        verdict = "data-bound"
        message = f"{size}: more or better preference data is needed; no training on it will help."
    else:
        verdict, message = "worth-aligning", f"{size}: worth aligning to."
        if estimate.z < MIN_CEILING_Z:
            message += f" Its size is uncertain (z {estimate.z:.1f}), so no share of it is reported."
    return Finding(name=name, verdict=verdict, message=message + _reservations(ceiling))


def _reservations(ceiling: Ceiling) -> str:
    """Return the conditions under which a ceiling does not hold, as sentences to append."""
    sentences = ""
    if not ceiling.cross_fitted:
        sentences += " It is not cross-fitted: it holds only if no scored event went into this data."
    if abs(ceiling.missing_positive - ceiling.missing_negative) > MISSING_GAP:
        sentences += (
            f" {ceiling.missing_positive:.0%} of the positive and {ceiling.missing_negative:.0%} of the negative test "
            "events are on items without a vector: it says nothing about those."
        )
    return sentences


def _judge_result(name: str, result: LISResult, detectable: float) -> Finding:
    """Judge the gain of one representation."""
    if result.verdict in OF_A_REPRESENTATION:
        return Finding(name=name, verdict=result.verdict, message=result.message)
    gain = f"AIS {format_interval(result.ais, result.ais_low, result.ais_high)}"
    rank = result.companions.get("rankme", np.inf)
    collapsed = ""
    if rank < StopRule().collapsed_below:
        collapsed = f" Its effective rank is {rank:.1f}: it distinguishes few items."
    if result.ais_low > 0:
        left = "" if np.isnan(result.headroom) else f" {result.aligned_to} would still add {result.headroom:+.4f}."
        share = "" if np.isnan(result.realised) else f" Realised: {result.realised:.0%} of LIS, which is an estimate."
        return Finding(name=name, verdict="gain", message=f"{gain}.{left}{share}{collapsed}")
    power = f"a gain of about {max(POWER_80 * result.se, detectable):+.4f} would be detected 4 times in 5"
    if result.ais == 0:
        power = f"the ranker does not use it; {power}"
    return Finding(name=name, verdict="no-gain", message=f"{gain}: no gain is detected; {power}.{collapsed}")
