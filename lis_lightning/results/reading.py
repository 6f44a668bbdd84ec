"""Readings of a representation: the score of what a ranker is given in place of the vectors themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lis_lightning.functional.semantic_ids import code_churn

NAN = math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """AIS of a reading: semantic IDs, the first dimensions, cosines, or another layer of a representation.

    Attributes:
        ais: AUC gain of a ranker that has this reading, in AUC units, as ``LISResult.ais``.
        ais_low: Lower end of its user-clustered 95 % interval.
        ais_high: Upper end of the interval.
        retained: ``ais`` as a share of that of the vectors, paired by user; NaN if that is below 4 standard errors.
        retained_low: Lower end of its 95 % interval (Fieller).
        retained_high: Upper end of the interval.
        facts: Further numbers by name: of codes their ``collision_rate``, ``utilisation``, ``entropy`` and ``churn``
            against the snapshot before; of a search its ``gain`` over the last events.
        influence: Per-user sums of the influence values of ``ais``, for paired comparisons.
        codes: Codes of each item, [num_items, levels]; empty if the reading has none.

    Example:
        >>> Reading(ais=0.01, ais_low=0.008, ais_high=0.012, retained=0.8, facts={"entropy": 0.9}).numbers()["entropy"]
        0.9
    """

    ais: float
    ais_low: float
    ais_high: float
    retained: float = NAN
    retained_low: float = NAN
    retained_high: float = NAN
    facts: Mapping[str, float] = field(default_factory=dict)
    influence: NDArray[np.float64] = field(repr=False, default_factory=lambda: np.zeros(0))
    codes: NDArray[np.int32] = field(repr=False, default_factory=lambda: np.zeros((0, 0), np.int32))

    def numbers(self) -> dict[str, float]:
        """Return all numbers by name."""
        names = ("ais", "ais_low", "ais_high", "retained", "retained_low", "retained_high")
        return {name: float(getattr(self, name)) for name in names} | dict(self.facts)


def with_churn(reading: Reading, before: Reading | None) -> Reading:
    """Return a reading with the share of items that changed their first code since an earlier one, if both have codes.

    Args:
        reading: The reading.
        before: The same reading of the snapshot before; None if there is none.
    """
    if before is None or not reading.codes.size or before.codes.shape != reading.codes.shape:
        return reading
    return replace(reading, facts={**reading.facts, "churn": code_churn(before.codes, reading.codes)})
