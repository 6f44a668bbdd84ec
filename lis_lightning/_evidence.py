"""What an estimate rules out, in numbers and in words that a person can act on."""

from __future__ import annotations

import math

from lis_lightning.functional.intervals import Z95, Estimate, cluster_interval
from lis_lightning.result import LISResult


def shown(estimate: Estimate) -> str:
    """Write an estimate with its interval."""
    return f"{estimate.value:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}]"


def rounded(events: float) -> int:
    """Round up to two digits: more would pretend to know."""
    unit = 10.0 ** max(0, math.floor(math.log10(max(events, 1))) - 1)
    return round(math.ceil(events / unit) * unit)


def gap_error(last: LISResult, best: LISResult) -> float:
    """Return the standard error of how much the gap between seen and unseen items changed between two snapshots.

    Slices carry no influence to be paired by. The errors of two snapshots overlap as much in a slice as in all events,
    so that the error of the change is that of the gap, times what pairing leaves of the error of AIS.
    """
    sides = [result.slices.get(name) for result in (last, best) for name in ("seen items", "unseen items")]
    gap = math.hypot(*(math.inf if side is None else side.se for side in sides))
    alone = math.hypot(*(cluster_interval(result.ais, result.influence).se for result in (last, best)))
    return gap * last.compare(best).se / alone if alone > 0 else 0.0


def gain_over(best: LISResult, result: LISResult) -> Estimate:
    """Return a result's paired difference to the best one before it.

    A result that came from a checkpoint may have lost what pairs it; what it then knows of this pair is its ``gain_z``.
    """
    if result.influence.size and best.influence.size:
        return result.compare(best)
    value = result.ais - best.ais
    se = value / result.gain_z if result.gain_z else math.nan
    return Estimate(value=value, se=se, low=value - Z95 * se, high=value + Z95 * se)
