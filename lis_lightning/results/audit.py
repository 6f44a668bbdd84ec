"""The result of an audit: ceilings, scores and findings of each task and period."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lis_lightning.functional.intervals import Estimate, paired_difference
from lis_lightning.functional.multiple_comparisons import Comparison
from lis_lightning.results.result import Ceiling, LISResult


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The verdict on one kind of preference data or one representation.

    Attributes:
        name: Name of the preference data or the representation.
        verdict: For preference data ``worth-aligning``, ``data-bound`` or ``underpowered``; for a representation
            ``gain``, ``no-gain``, ``ceiling-not-binding``, ``at-ceiling``, ``model-bound`` or ``quantisation-bound``.
        message: The numbers behind the verdict, and what to do.
    """

    name: str
    verdict: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """The audit of one task on one pair of windows (training and test).

    Attributes:
        task: Name of the label.
        period: Number of the pair of windows, 0 the oldest.
        begins: Start of its test window: a date, or a timestamp where the unit of time is unknown.
        facts: Sizes and rates of the split, base AUC and smallest detectable gain, as ``split.describe()``.
        placebo: AUC gain of random vectors. If it differs from 0 by more than its error, the base lacks structure.
        ceilings: LIS by the name of the preference data.
        results: Scores by the name of the representation.
        findings: The verdicts on the preference data, then those on the representations.
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
        gains = {("ceiling", name): (ceiling.value, ceiling.influence) for name, ceiling in self.ceilings.items()}
        return gains | {("ais", name): (result.ais, result.influence) for name, result in self.results.items()}


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Ceilings of preference data and scores of representations on a split, before any training.

    Attributes:
        aligned_to: The preference data that `realised` refers to.
        parts: The audits of all tasks on the first pair of windows, the primary task first; with rolling windows, then
            the audits of the primary task on each later pair.

    Example:
        >>> import polars as pl
        >>> from lis_lightning.data import PreferenceSplit
        >>> from lis_lightning.scoring import audit
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> result = audit(PreferenceSplit.from_log(log), ["pairs"], cache_dir="off")
        >>> [(row["measure"], round(row["value"], 3)) for row in result.rows()[:1]]
        [('base_auc', 0.823)]
    """

    aligned_to: str
    parts: tuple[Part, ...]

    @property
    def periods(self) -> tuple[Part, ...]:
        """The parts of the primary task, oldest first; more than one with rolling windows."""
        return tuple(part for part in self.parts if part.task == self.parts[0].task)

    @property
    def aging(self) -> dict[tuple[str, str], Estimate]:
        """Each gain on the newest pair of windows minus that on the oldest; empty unless windows are rolling."""
        first, last = self.periods[0], self.periods[-1]
        if first is last:
            return {}
        return {key: paired_difference(*last.gains[key], *gain) for key, gain in first.gains.items()}

    def rows(self) -> list[dict[str, str | int | float]]:
        """Return all numbers as rows of a tidy table.

        Returns:
            One row per number, with the keys task, period, begins, measure, name, against, value, low, high and p, the
            p value of a difference, corrected for all pairs compared.
        """
        rows = [_row(part, numbers) for part in self.parts for numbers in _numbers(part, self.aligned_to)]
        last = self.periods[-1]
        for (measure, name), change in self.aging.items():
            numbers = _Number(f"{measure}_aging", name, "", change.value, change.low, change.high)
            rows.append(_row(last, numbers))
        return rows


class _Number(NamedTuple):
    """A number of an audit, as it stands in a row."""

    measure: str
    name: str
    against: str
    value: float
    low: float
    high: float
    p: float = math.nan


def _row(part: Part, number: _Number) -> dict[str, str | int | float]:
    """Return one number with its task and period."""
    floats = {name: float(getattr(number, name)) for name in ("value", "low", "high", "p")}
    return {"task": part.task, "period": part.period, "begins": part.begins, **number._asdict(), **floats}


def _numbers(part: Part, aligned_to: str) -> Iterator[_Number]:
    """Yield each number of a part."""
    nan = math.nan
    yield _Number("base_auc", "", "", part.facts["base_auc"], nan, nan)
    yield _Number("smallest_detectable_gain", "", "", part.facts["smallest_detectable_gain"], nan, nan)
    yield _Number("ais", "random vectors", "", part.placebo.value, part.placebo.low, part.placebo.high)
    for name, ceiling in part.ceilings.items():
        yield _Number("ceiling", name, "", ceiling.value, ceiling.low, ceiling.high)
        yield _Number("ceiling_past", name, "", ceiling.past, nan, nan)
        yield _Number("future_adds", name, "", ceiling.future.value, ceiling.future.low, ceiling.future.high)
        yield _Number("missing_positive", name, "", ceiling.missing_positive, nan, nan)
        yield _Number("missing_negative", name, "", ceiling.missing_negative, nan, nan)
    for name, result in part.results.items():
        yield _Number("ais", name, "", result.ais, result.ais_low, result.ais_high)
        yield _Number("ais_geometry", name, "", result.ais_geometry, nan, nan)
        yield _Number("gauc_gain", name, "", result.gauc_gain, result.gauc_gain_low, result.gauc_gain_high)
        yield _Number("realised", name, aligned_to, result.realised, result.realised_low, result.realised_high)
        yield _Number("headroom", name, aligned_to, result.headroom, result.headroom_low, result.headroom_high)
        if not np.isnan(result.ais_weighted):
            yield _Number(
                "ais_weighted", name, "", result.ais_weighted, result.ais_weighted_low, result.ais_weighted_high
            )
        for slice_name, estimate in result.slices.items():
            yield _Number(f"ais, {slice_name}", name, "", estimate.value, estimate.low, estimate.high)
        for read, reading in result.reads.items():
            yield _Number(f"ais of {read}", name, "", reading.ais, reading.ais_low, reading.ais_high)
            kept = (reading.retained, reading.retained_low, reading.retained_high)
            yield _Number(f"retained by {read}", name, "", *kept)
            for fact, value in reading.facts.items():
                yield _Number(f"{fact} of {read}", name, "", value, nan, nan)
    for measure, pairs in (("ceiling_difference", part.ceiling_ranking), ("ais_difference", part.ranking)):
        for pair in pairs:
            difference = pair.difference
            yield _Number(measure, pair.better, pair.worse, difference.value, difference.low, difference.high, pair.p)
