"""What one scoring of a representation says: numbers, intervals, and what pairs it with other scorings."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.errors import ShapeError
from lis_lightning.functional.intervals import Estimate, cluster_interval, paired_difference

NAN = math.nan


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The Leakage Impact Score of one kind of preference data: the AUC gain its own future would bring.

    Attributes:
        value: LIS in AUC points (0.01 is one point of AUC), cross-fitted by user.
        low: Lower end of the user-clustered 95 % interval.
        high: Upper end of it.
        past: The same estimate without the evaluation windows; ``value - past`` is what the future adds.
        missing_positive: Share of the positive test events whose target has no out-of-fold vector.
        missing_negative: The same share of the negative ones. Far apart, the two mean that absence itself is a label;
            the estimate is corrected for it by a flag in both arms.
        influence: Per-user sums of influence values, [num_users]; pairs the ceiling with an AIS.
    """

    value: float
    low: float
    high: float
    past: float = NAN
    missing_positive: float = 0.0
    missing_negative: float = 0.0
    influence: NDArray[np.float64] = field(repr=False, default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, kw_only=True)
class Placebo:
    """What representations that know nothing score: the check that the base is matched in structure.

    Attributes:
        permuted: AIS of the same representation with its rows permuted, with its interval.
        random: AIS of random vectors, with its interval.
    """

    permuted: Estimate
    random: Estimate

    @property
    def passed(self) -> bool:
        """Whether both arms lie within two standard errors of zero (an exact zero passes)."""
        return all(abs(arm.value) < 2 * arm.se or arm.value == 0.0 for arm in (self.permuted, self.random))


@dataclass(frozen=True, kw_only=True)
class LISResult:
    """The scores of one representation on one split. Field names are the logged keys without ``lis/``.

    All AUC gains are in AUC units on the test window w2 (0.001 is a tenth of a point); intervals are 95 %, clustered by
    user, and leave out the sampling of the training window w1.

    Attributes:
        ais: AUC gain of a ranker that gets this representation, over the same ranker without it.
        ais_geometry: The gain of a ranker that only uses cosines between the target and the history.
        auc_base: AUC of the ranker without the representation.
        auc: AUC with it.
        gauc_gain: Gain of the impression-weighted per-user AUC.
        realised: ``ais`` as a share of the ceiling aligned to; NaN where the ceiling is below 6 standard errors, or
            where it does not bind.
        gain_z: Paired z of this snapshot against the best one before it; NaN for the first.
        ceilings: LIS by the name of the preference data (``pairs``, ``ids``).
        verdict: One word of :data:`lis_lightning.stopping.VERDICTS`.
        message: The verdict in a sentence to act on.
        placebo: Scores of representations that know nothing, where they were taken.
        influence: Per-user sums of the influence values of ``ais``, [num_users].
        step: Optimizer step of the snapshot; None outside a run.
    """

    ais: float
    ais_low: float
    ais_high: float
    ais_geometry: float
    auc_base: float
    auc: float
    gauc_gain: float = NAN
    ais_seen: float = NAN
    ais_unseen: float = NAN
    realised: float = NAN
    realised_low: float = NAN
    realised_high: float = NAN
    gain_z: float = NAN
    aligned_to: str = "pairs"
    ceilings: Mapping[str, Ceiling] = field(default_factory=dict)
    slices: Mapping[str, Estimate] = field(default_factory=dict)
    companions: Mapping[str, float] = field(default_factory=dict)
    verdict: str = "warming-up"
    message: str = ""
    placebo: Placebo | None = None
    num_events: int = 0
    split_hash: str = ""
    step: int | None = None
    encode_seconds: float = NAN
    score_seconds: float = NAN
    influence: NDArray[np.float64] = field(repr=False, default_factory=lambda: np.zeros(0))

    @property
    def se(self) -> float:
        """Standard error of ``ais``, clustered by user."""
        return cluster_interval(self.ais, self.influence).se if self.influence.size else NAN

    @property
    def ceiling(self) -> Ceiling | None:
        """The ceiling of the preference data that is aligned to, if it was computed."""
        return self.ceilings.get(self.aligned_to)

    def compare(self, other: LISResult) -> Estimate:
        """Return ``self.ais - other.ais`` with its paired interval.

        Args:
            other: A result on the same split.

        Returns:
            The difference, its user-clustered standard error, 95 % interval and z.

        Raises:
            ShapeError: If the two results come from different splits.
        """
        if self.split_hash != other.split_hash or self.influence.shape != other.influence.shape:
            raise ShapeError(
                f"Results can be paired on one split only: this one is on split {self.split_hash!r} with "
                f"{self.influence.size} users, the other on {other.split_hash!r} with {other.influence.size}. "
                "Score both representations on the same split."
            )
        return paired_difference(self.ais, self.influence, other.ais, other.influence)

    def scalars(self) -> dict[str, float]:
        """Return every number that is logged, by its key without the ``lis/`` in front."""
        names = [
            "ais", "ais_low", "ais_high", "ais_geometry", "auc_base", "auc", "gauc_gain", "realised", "realised_low",
            "realised_high", "gain_z", "ais_seen", "ais_unseen", "encode_seconds", "score_seconds",
        ]  # fmt: skip
        flat = {name: float(getattr(self, name)) for name in names}
        for name, ceiling in self.ceilings.items():
            flat |= {
                f"ceiling_{name}": ceiling.value,
                f"ceiling_{name}_low": ceiling.low,
                f"ceiling_{name}_high": ceiling.high,
            }
        return flat | {f"companion/{name}": value for name, value in self.companions.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain Python values (the influence arrays as lists), ready for JSON."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        return _table(self)


def _plain(value: Any) -> Any:
    """Turn arrays and NumPy scalars into lists and Python numbers, all the way down."""
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
    from rich.console import Console
    from rich.table import Table

    def interval(low: float, high: float) -> str:
        return "" if math.isnan(low) else f"[{low:+.4f}, {high:+.4f}]"

    table = Table(box=box.SIMPLE, title=None, show_header=True, header_style="bold")
    for heading, justify in (("", "left"), ("value", "right"), ("95 % interval", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]  # rich's literal type
    table.add_row("AUC of the base", f"{result.auc_base:.4f}", "")
    table.add_row("AUC with the representation", f"{result.auc:.4f}", "")
    table.add_row("AIS", f"{result.ais:+.4f}", interval(result.ais_low, result.ais_high))
    table.add_row("AIS, geometry only", f"{result.ais_geometry:+.4f}", "")
    for name, estimate in result.slices.items():
        table.add_row(f"AIS, {name}", f"{estimate.value:+.4f}", interval(estimate.low, estimate.high))
    for name, ceiling in result.ceilings.items():
        table.add_row(f"ceiling, {name}", f"{ceiling.value:+.4f}", interval(ceiling.low, ceiling.high))
    realised = "-" if math.isnan(result.realised) else f"{result.realised:.0%}"
    spread = "" if math.isnan(result.realised_low) else f"[{result.realised_low:.0%}, {result.realised_high:.0%}]"
    table.add_row(f"realised of {result.aligned_to}", realised, spread)
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    console.print(f"{result.verdict}: {result.message}" if result.message else result.verdict)
    output = console.file
    assert isinstance(output, io.StringIO)  # noqa: S101  # made three lines above
    return output.getvalue().rstrip()
