"""The result of scoring a representation: estimates, intervals, and influence values for paired comparisons."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.errors import ShapeError
from lis_lightning.functional.intervals import Z95, Estimate, cluster_interval, critical_value, paired_difference
from lis_lightning.results.format import Interval, format_bounds, format_gain, format_share, render_plain
from lis_lightning.results.keys import HEADLINES, INTERVAL, keyed, name_parts, nest
from lis_lightning.results.reading import Reading

NAN = math.nan
_OF_A_READING = ("ais", "retained")  # logged by default, beside its facts


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The Leakage Impact Score (LIS): the AUC gain that leaked preference data of one kind would bring.

    It is an estimate of what this preference data carries, and no bound: content can exceed it, above all on items with
    little data. `LISResult.headroom`, what the data would still add to a representation, binds.

    Attributes:
        value: LIS in AUC points (0.01 is one point of AUC), cross-fitted by user.
        low: Lower end of the user-clustered 95 % interval. The interval treats the leaked vectors as given: it does not
            include the sampling of the events that they are built from.
        high: Upper end of the interval.
        past: The same estimate less what the events of w2 add to the gain in w2; NaN if the data has no timestamps.
        missing_positive: Share of the positive test events whose target has no out-of-fold vector.
        missing_negative: The same share of the negative test events. If the two differ much, absence itself reveals the
            label; a flag for absence in both arms corrects the estimate for that.
        cross_fitted: Whether the vectors for each user's events were built without that user; False if the owner of the
            data declares that it contains none of the scored events.
        influence: Per-user sums of influence values, [num_users]; for paired comparisons with an AIS.
        past_influence: The same for `past`; empty if there is no `past`.

    Example:
        >>> Ceiling(value=0.02, low=0.015, high=0.025).cross_fitted
        True
    """

    value: float
    low: float
    high: float
    past: float = NAN
    missing_positive: float = 0.0
    missing_negative: float = 0.0
    cross_fitted: bool = True
    influence: NDArray[np.float64] = field(repr=False, default_factory=lambda: np.zeros(0))
    past_influence: NDArray[np.float64] = field(repr=False, default_factory=lambda: np.zeros(0))

    @property
    def future(self) -> Estimate:
        """The gain from future events: the ceiling minus `past`, paired by user; NaN if there is no `past`."""
        if self.influence.size != self.past_influence.size or not self.influence.size:
            return Estimate(value=NAN, se=NAN, low=NAN, high=NAN)
        return paired_difference(self.value, self.influence, self.past, self.past_influence)


@dataclass(frozen=True, kw_only=True)
class SliceEstimate(Estimate):
    """AIS on a slice of the test events; NaN if they are too few, or of one class.

    Attributes:
        num_events: Test events in the slice.

    Example:
        >>> SliceEstimate(value=0.02, se=0.005, low=0.01, high=0.03, num_events=1200).z
        4.0
    """

    num_events: int = 0


@dataclass(frozen=True, kw_only=True)
class Placebo:
    """AIS of uninformative representations, a check that the base has the same structure as the probe.

    Attributes:
        permuted: AIS of the same representation with its rows permuted, with its interval.
        random: AIS of random vectors, with its interval.

    Example:
        >>> noise = Estimate(value=0.001, se=0.001, low=-0.001, high=0.003)
        >>> Placebo(permuted=noise, random=noise).passed
        True
    """

    permuted: Estimate
    random: Estimate

    @property
    def passed(self) -> bool:
        """Whether both arms lie within two standard errors of zero (an exact zero passes)."""
        return all(abs(arm.value) < 2 * arm.se or arm.value == 0.0 for arm in (self.permuted, self.random))


@dataclass(frozen=True, kw_only=True, eq=False)
class LISResult:
    """The scores of one representation on one split; :meth:`scalars` returns them by the keys that are logged.

    All AUC gains are in AUC units (0.001 is a tenth of a point) on the events of w1, out of fold, and w2; on w2 alone
    where windows roll. Intervals are 95 %, clustered by user: they include the sampling of the users of both windows,
    but not that of the items.

    Attributes:
        task: Name of the label that is scored.
        ais: AUC gain of a ranker with this representation over the same ranker without it.
        ais_geometry: AUC gain of a ranker that only uses cosines between the target and the history.
        auc_base: AUC of the ranker without the representation.
        auc: AUC of the ranker with the representation.
        ais_weighted: Gain of the weighted AUC, in which a pair of events counts with the product of their weights
            (dwell time, bid value); NaN if the split has no ``weight``. The ranker itself is fitted without weights.
        gauc_gain: Gain of the impression-weighted per-user AUC.
        realised: ``ais`` as a share of the ceiling of `aligned_to`; NaN if that ceiling is below 4 standard errors, or
            does not bind.
        headroom: AUC gain that leaking the preference data of `aligned_to` adds to a ranker that already has this
            representation. Unlike the ceiling, ``ais + headroom`` bounds ``ais`` up to noise.
        aligned_to: Name of the preference data that `realised` and `headroom` refer to.
        ceilings: LIS by the name of the preference data (``pairs``, ``ids``, or the user's own).
        slices: AIS on each slice of the test events, by the names of ``split.slices``; one ranker serves all slices.
        companions: Conventional metrics of the same vectors.
        reads: What else was scored of the same items, by name: semantic IDs, first dimensions, cosines, other layers.
        verdict: One word of :data:`lis_lightning.results.verdict.VERDICTS`.
        message: The verdict explained in a sentence, with what to do.
        placebo: AIS of uninformative representations, if it was computed.
        tasks: Results of the other labels by name, if the split has several.
        periods: Results of the same representation on the later pairs of rolling windows, oldest first; this result
            belongs to the first pair.
        num_events: Number of test events.
        num_users: Number of users that they are of; 0 if unknown.
        num_days: Days over which they spread; NaN if the unit of time is unknown.
        detectable: Smallest gain that this number of events can detect, if ``ais`` or a ceiling may be 0; NaN
            otherwise.
        influence: Per-user sums of the influence values of ``ais``, then the jackknife terms of the training window,
            [num_users + NUM_GROUPS]; for paired comparisons with other results.
        item_gains: Contribution of each item's test events to ``ais``, by row of R, [num_items]; sums to ``ais``. Empty
            in the results of `periods`.
        item_errors: Their standard errors over test users, [num_items].

    Example:
        >>> result = LISResult(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703)
        >>> result.ais, result.scalars()["ais_low"]
        (0.003, 0.001)
    """

    ais: float
    ais_low: float
    ais_high: float
    ais_geometry: float
    auc_base: float
    auc: float
    task: str = "label"
    ais_weighted: float = NAN
    ais_weighted_low: float = NAN
    ais_weighted_high: float = NAN
    gauc_gain: float = NAN
    gauc_gain_low: float = NAN
    gauc_gain_high: float = NAN
    ais_seen: float = NAN
    ais_unseen: float = NAN
    realised: float = NAN
    realised_low: float = NAN
    realised_high: float = NAN
    headroom: float = NAN
    headroom_low: float = NAN
    headroom_high: float = NAN
    aligned_to: str = "pairs"
    ceilings: Mapping[str, Ceiling] = field(default_factory=dict)
    slices: Mapping[str, SliceEstimate] = field(default_factory=dict)
    companions: Mapping[str, float] = field(default_factory=dict)
    reads: Mapping[str, Reading] = field(default_factory=dict)
    verdict: str = "warming-up"
    message: str = ""
    placebo: Placebo | None = None
    tasks: Mapping[str, LISResult] = field(default_factory=dict)
    periods: tuple[LISResult, ...] = ()
    num_events: int = 0
    num_users: int = 0
    num_days: float = NAN
    detectable: float = NAN
    split_hash: str = ""
    influence: NDArray[np.float64] = field(repr=False, default_factory=lambda: np.zeros(0))
    item_gains: NDArray[np.float64] = field(repr=False, default_factory=lambda: np.zeros(0))
    item_errors: NDArray[np.float64] = field(repr=False, default_factory=lambda: np.zeros(0))

    @property
    def critical_value(self) -> float:
        """Half-width of a 95 % interval in standard errors; the normal quantile if the per-user values are unknown."""
        return critical_value(self.influence, 0.975) if self.influence.any() else Z95

    @property
    def se(self) -> float:
        """Standard error of ``ais``, clustered by user."""
        return cluster_interval(self.ais, self.influence).se if self.influence.size else NAN

    @property
    def ceiling(self) -> Ceiling | None:
        """The ceiling of the preference data named by `aligned_to`, if it was computed."""
        return self.ceilings.get(self.aligned_to)

    @property
    def aging(self) -> Estimate:
        """AIS on the newest pair of windows minus AIS on the oldest, paired by user; NaN unless windows are rolling.

        A value below 0 means that the gain of the representation declines over time.
        """
        if not self.periods:
            return Estimate(value=NAN, se=NAN, low=NAN, high=NAN)
        last = self.periods[-1]
        return paired_difference(last.ais, last.influence, self.ais, self.influence)

    def compare(self, other: LISResult) -> Estimate:
        """Return ``self.ais - other.ais`` with its paired interval.

        Args:
            other: A result on the same split.

        Returns:
            The difference, its user-clustered standard error, 95 % interval, z and two-sided p.

        Raises:
            ShapeError: If the two results come from different splits.
        """
        self.check_pairable(other)
        return paired_difference(self.ais, self.influence, other.ais, other.influence)

    def check_pairable(self, other: LISResult) -> None:
        """Raise unless two results can be paired by user.

        Args:
            other: A result on the same split.

        Raises:
            ShapeError: If the two results come from different splits.
        """
        if self.split_hash != other.split_hash or self.influence.shape != other.influence.shape:
            raise ShapeError(
                f"Results can be paired on one split only: this one is on split {self.split_hash!r} with "
                f"{self.influence.size} users, the other on {other.split_hash!r} with {other.influence.size}. "
                "Score both representations on the same split."
            )

    def scalars(self, *, more: bool = True) -> dict[str, float]:
        """Return the numbers that can change from snapshot to snapshot by logged key, without the prefix ``lis/``.

        The keys of :data:`~lis_lightning.results.keys.HEADLINES` are logged by default, all others begin with
        ``more/``: ``more/slice/<name>`` (with ``_low`` and ``_high``), ``more/companion/<name>`` and so on. Another
        task has ``task/<name>/ais`` with its interval and ``task/<name>/more/...``, a later period
        ``period/<number>/...`` in the same way; this result is period 0. A reading has ``codes/ais``,
        ``codes/retained`` and its facts, and its intervals in ``codes/more/...``.

        Args:
            more: Whether to return the keys that are not logged by default too.
        """
        values = keyed(self._numbers() | self._own_numbers(), HEADLINES, more=more)
        for prefix, result in self._nested().items():
            values |= nest(prefix, keyed(result._numbers(), INTERVAL, more=more))
        for name, reading in self.reads.items():
            values |= nest(name, keyed(reading.numbers(), (*_OF_A_READING, *reading.facts), more=more))
        # A slice that is too small for an estimate has no curve.
        return {key: value for key, value in values.items() if "slice/" not in key or not math.isnan(value)}

    def constants(self) -> dict[str, float]:
        """Return the numbers that are the same for all representations: AUC of the base, and ceilings by name.

        Example:
            >>> result = LISResult(ais=0.003, ais_low=0, ais_high=0, ais_geometry=0, auc_base=0.7, auc=0.703,
            ...                    ceilings={"pairs": Ceiling(value=0.02, low=0.01, high=0.03)})
            >>> result.constants()
            {'auc_base': 0.7, 'ceiling_pairs': 0.02, 'ceiling_pairs_low': 0.01, 'ceiling_pairs_high': 0.03}
        """
        values = self._constants()
        for prefix, result in self._nested().items():
            values |= nest(prefix, result._constants())
        return values

    def numbers(self) -> dict[str, float]:
        """Return all numbers by name, those of :meth:`scalars` without ``more/``, and :meth:`constants`.

        Example:
            >>> result = LISResult(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0, auc_base=0.7, auc=0.703)
            >>> list(result.numbers())[:5]
            ['ais', 'ais_low', 'ais_high', 'headroom', 'realised']
        """
        values = self._numbers() | self._own_numbers()
        for prefix, result in self._nested().items():
            values |= nest(prefix, result._numbers())
        for name, reading in self.reads.items():
            values |= nest(name, reading.numbers())
        return values | self.constants()

    def _numbers(self) -> dict[str, float]:
        """Return the numbers of one task in one period."""
        names = [
            "ais", "ais_low", "ais_high", "headroom", "realised", "headroom_low", "headroom_high", "realised_low",
            "realised_high", "ais_geometry", "auc", "gauc_gain", "gauc_gain_low", "gauc_gain_high", "ais_seen",
            "ais_unseen",
        ]  # fmt: skip
        if not math.isnan(self.ais_weighted):
            names += ["ais_weighted", "ais_weighted_low", "ais_weighted_high"]
        values = {name: float(getattr(self, name)) for name in names}
        parts = name_parts(self.slices)
        for name, gain in self.slices.items():
            values |= _with_ends(f"slice/{parts[name]}", gain)
        return values

    def _own_numbers(self) -> dict[str, float]:
        """Return the numbers of the representation, which all tasks and periods share."""
        parts = name_parts(self.companions)
        return {f"companion/{parts[name]}": value for name, value in self.companions.items()}

    def _constants(self) -> dict[str, float]:
        values = {"auc_base": float(self.auc_base)}
        for name, ceiling in self.ceilings.items():
            values |= _with_ends(f"ceiling_{name}", ceiling)
        return values

    def _nested(self) -> dict[str, LISResult]:
        """Return the results within this one, by the prefix of their keys."""
        parts = name_parts(self.tasks)
        nested: dict[str, LISResult] = {f"task/{parts[name]}": result for name, result in self.tasks.items()}
        return nested | {f"period/{number}": result for number, result in enumerate(self.periods, start=1)}

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain Python values (the influence arrays as lists), ready for JSON."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        return _table(self)


def _with_ends(key: str, estimate: Interval) -> dict[str, float]:
    """Return a value with the ends of its interval, by key."""
    return {key: estimate.value, f"{key}_low": estimate.low, f"{key}_high": estimate.high}


def _plain(value: Any) -> Any:
    """Return a value with all arrays and NumPy scalars in it replaced by lists and Python numbers."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value


def _table(result: LISResult) -> str:
    """Render the result as a small table for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, title=None, show_header=True, header_style="bold")
    for heading, justify in (("", "left"), ("value", "right"), ("95 % interval", "right"), ("events", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]  # rich's literal type
    for row in _rows(result):
        table.add_row(*row)
    verdicts = []
    for name, task in {result.task: result, **result.tasks}.items():
        prefix = f"[{name}] " if result.tasks else ""
        message = f": {task.message}" if task.message else ""
        verdicts.append(f"{prefix}{task.verdict}{message}")
    return render_plain(table, *verdicts, width=100)


def _rows(result: LISResult) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: name, value, interval, events."""
    num_events = f"{result.num_events:,}" if result.num_events else ""
    rows = [
        ("AUC of the base", f"{result.auc_base:.4f}", "", num_events),
        ("AUC with the representation", f"{result.auc:.4f}", "", ""),
        _row("AIS", result.ais, result.ais_low, result.ais_high),
        _row(
            f"headroom: {result.aligned_to} would still add", result.headroom, result.headroom_low, result.headroom_high
        ),
        _row("AIS, geometry only", result.ais_geometry),
    ]
    if not math.isnan(result.ais_weighted):
        rows.append(_row("AIS, weighted", result.ais_weighted, result.ais_weighted_low, result.ais_weighted_high))
    rows.append(_row("gain of the per-user AUC", result.gauc_gain, result.gauc_gain_low, result.gauc_gain_high))
    for name, part in result.slices.items():
        rows.append(_row(f"AIS, {name}", part.value, part.low, part.high, f"{part.num_events:,}"))
    for name, reading in result.reads.items():
        rows += _reading_rows(name, reading)
    rows += [_ceiling_row(f"LIS of {name}, an estimate", ceiling) for name, ceiling in result.ceilings.items()]
    unbounded = math.isnan(result.realised_low)
    bounds = "" if unbounded else format_bounds(result.realised_low, result.realised_high, percent=True)
    rows.append((f"realised: AIS / LIS of {result.aligned_to}", format_share(result.realised), bounds, ""))
    for name, task in result.tasks.items():
        rows.append(_ais_row(f"[{name}] AIS", task))
        rows += [
            _ceiling_row(f"[{name}] LIS of {kind}, an estimate", ceiling) for kind, ceiling in task.ceilings.items()
        ]
    for number, period in enumerate(result.periods, start=1):
        rows.append(_ais_row(f"AIS, {number} later", period))
        if period.ceiling is not None:
            rows.append(_ceiling_row(f"LIS of {period.aligned_to}, {number} later", period.ceiling))
    if result.periods:
        rows.append(_row("aging: newest less oldest AIS", result.aging.value, result.aging.low, result.aging.high))
    return rows


def _row(name: str, value: float, low: float = NAN, high: float = NAN, events: str = "") -> tuple[str, str, str, str]:
    interval = "" if math.isnan(low) else format_bounds(low, high)
    return name, format_gain(value), interval, events


def _ais_row(name: str, result: LISResult) -> tuple[str, str, str, str]:
    return _row(name, result.ais, result.ais_low, result.ais_high, f"{result.num_events:,}")


def _reading_rows(name: str, reading: Reading) -> list[tuple[str, str, str, str]]:
    unbounded = not math.isfinite(reading.retained_high - reading.retained_low)
    bounds = "" if unbounded else format_bounds(reading.retained_low, reading.retained_high, percent=True)
    return [
        _row(f"AIS of {name}", reading.ais, reading.ais_low, reading.ais_high),
        (f"retained by {name}", format_share(reading.retained), bounds, ""),
        *((f"{name}: {fact.replace('_', ' ')}", f"{value:.4f}", "", "") for fact, value in reading.facts.items()),
    ]


def _ceiling_row(name: str, ceiling: Ceiling) -> tuple[str, str, str, str]:
    suffix = "" if ceiling.cross_fitted else " (not cross-fitted)"
    return _row(name + suffix, ceiling.value, ceiling.low, ceiling.high)
