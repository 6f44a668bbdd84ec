"""Inference on a whole curve: a simultaneous band, and the AIS of the best snapshot corrected for selection.

The snapshots of a run are correlated estimates on one set of test events. The interval of a single snapshot does not
hold for the highest of them, nor for all of them at once. Always-valid confidence sequences are not the tool: they
protect against repeated looks at a sample that grows, and here the sample is the same at every look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lis_lightning.functional.intervals import Estimate, cluster_interval
from lis_lightning.functional.simultaneous import cross_fitted_maximum, simultaneous_critical_value
from lis_lightning.results.result import LISResult

_UNDEFINED = Estimate(value=math.nan, se=math.nan, low=math.nan, high=math.nan)


def simultaneous_band(results: Sequence[LISResult]) -> list[Estimate]:
    """Return the 95 % simultaneous (sup-t) confidence band of AIS over the snapshots of a run.

    With 95 % probability the band holds the true AIS of all snapshots at once.

    Args:
        results: Results on one split.

    Returns:
        An estimate for each result, whose ends are those of the band; NaN without an AIS or per-user values.

    Raises:
        ShapeError: If the results come from different splits.

    Example:
        >>> noise = np.random.default_rng(0).standard_normal((2, 300)) * 1e-4
        >>> results = [LISResult(ais=0.01, ais_low=0, ais_high=0, ais_geometry=0, auc_base=0.7, auc=0.7, influence=row)
        ...            for row in noise]
        >>> [round(estimate.high - estimate.value, 4) for estimate in simultaneous_band(results)]
        [0.004, 0.0038]
    """
    usable = _usable(results)
    if not usable:
        return [_UNDEFINED] * len(results)
    critical = simultaneous_critical_value(np.array([results[index].influence for index in usable]))
    band = [_UNDEFINED] * len(results)
    for index in usable:
        result = results[index]
        se = cluster_interval(result.ais, result.influence).se
        # Never narrower than the interval of the snapshot alone, which may rest on fewer users than the others.
        margin = max(critical, result.critical_value) * se if se > 0 else 0.0
        band[index] = Estimate(value=result.ais, se=se, low=result.ais - margin, high=result.ais + margin)
    return band


def corrected_best(results: Sequence[LISResult]) -> Estimate:
    """Return the AIS of the best snapshot, corrected for having been picked, with its 95 % interval.

    Args:
        results: Results on one split.

    Returns:
        The cross-fitted estimate; NaN throughout where no result has an AIS and per-user values.

    Raises:
        ShapeError: If the results come from different splits.

    Example:
        >>> noise = np.random.default_rng(0).standard_normal((20, 300)) * 1e-4
        >>> results = [LISResult(ais=0.01 + row.sum(), ais_low=0, ais_high=0, ais_geometry=0, auc_base=0.7, auc=0.7,
        ...                      influence=row - row.mean()) for row in noise]
        >>> highest = max(result.ais for result in results)
        >>> round(float(highest), 4), round(corrected_best(results).value, 4)
        (0.013, 0.0098)
    """
    usable = _usable(results)
    if not usable:
        return _UNDEFINED
    values = np.array([results[index].ais for index in usable])
    return cross_fitted_maximum(values, np.array([results[index].influence for index in usable]))


def _usable(results: Sequence[LISResult]) -> list[int]:
    """Return the positions of the results that have an AIS and per-user influence, which must be of one split."""
    usable = [index for index, result in enumerate(results) if math.isfinite(result.ais) and result.influence.any()]
    for index in usable:
        results[usable[0]].check_pairable(results[index])
    return usable
