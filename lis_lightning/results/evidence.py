"""Statistical evidence for verdicts: paired gains between snapshots, and messages on underpowered estimates."""

from __future__ import annotations

import math

from lis_lightning.functional.intervals import POWER_80, Estimate
from lis_lightning.results.format import format_estimate, format_gain
from lis_lightning.results.result import LISResult
from lis_lightning.results.snapshot import Snapshot


def _round_up(number: float) -> int:
    """Round up to two significant digits: the estimate is no more precise than that."""
    unit = 10.0 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return round(math.ceil(number / unit) * unit)


def gain_over(best: LISResult, result: LISResult) -> Estimate:
    """Return the paired difference of a result to the best one before it.

    A snapshot restored from a checkpoint may have lost its influence values; the interval then follows from ``gain_z``
    and the t quantile of the users of the snapshot that has them.
    """
    if result.influence.size and best.influence.size:
        return result.compare(best)
    value = result.ais - best.ais
    gain_z = result.gain_z if isinstance(result, Snapshot) else math.nan
    se = value / gain_z if gain_z else math.nan
    margin = (result if result.influence.size else best).critical_value * se
    return Estimate(value=value, se=se, low=value - margin, high=value + margin)


def underpowered(
    what: str, estimate: Estimate, num_events: int, num_days: float, relevant_gain: float, detectable: float = 0.0
) -> str | None:
    """Return why an estimate cannot tell 0 from the gain that matters, and how much data could; None if it can.

    It cannot if its interval holds both, or if it holds 0 and so few events would have missed the gain that matters.
    An exact 0 says that the ranker found no use for the vectors; its power is that of the events, `detectable`.

    Args:
        what: Name of the estimated quantity, for the message.
        estimate: The estimate, in AUC units.
        num_events: Number of test events.
        num_days: Days over which they spread; NaN if unknown.
        relevant_gain: The smallest gain that matters, in AUC units.
        detectable: The smallest gain that this number of events can detect, in AUC units.

    Example:
        >>> wide = Estimate(value=0.002, se=0.002, low=-0.002, high=0.006)
        >>> underpowered("the ceiling", wide, 10_000, 30, 0.005).partition("matters. ")[2]
        '10,000 test events cannot tell, about 26,000 can (77 days at this rate): more users or a longer log.'
    """
    if estimate.value == 0 and detectable > relevant_gain:
        # The gain that is detected with 80 % power is inversely proportional to the number of events here.
        needed = _needed(num_events, num_days, detectable / relevant_gain)
        return (
            f"{what} is 0, the ranker found no use for it. But {num_events:,} test events show gains from "
            f"{format_gain(detectable)} only, {needed[0]} the {relevant_gain:+g} that matters{needed[1]}: "
            "more users or a longer log."
        )
    if estimate.low > 0:
        return None
    if not math.isfinite(estimate.se):
        return f"{what} rests on one user; nothing can be said. Score more users."
    shown = POWER_80 * estimate.se
    if estimate.high < relevant_gain:
        # A value that is low by chance excludes even a gain that so few events would have missed. The ranker hardly
        # uses vectors of no use, so its standard error is below that of a gain that matters: `detectable` tells.
        factor = max((shown / relevant_gain) ** 2, detectable / relevant_gain)
        if factor <= 1:
            return None
        needed = _needed(num_events, num_days, factor)
        return (
            f"{what} is {format_estimate(estimate)}. But {num_events:,} test events show gains from "
            f"{format_gain(max(shown, detectable))} only, {needed[0]} the {relevant_gain:+g} that matters"
            f"{needed[1]}: more users or a longer log."
        )
    # With so many events the interval is shorter than the gain that matters: it cannot hold both ends of it.
    needed = _needed(num_events, num_days, ((estimate.high - estimate.low) / relevant_gain) ** 2)
    return (
        f"{what} is {format_estimate(estimate)}: it may be nothing, and it may be the {relevant_gain:+g} that matters. "
        f"{num_events:,} test events cannot tell, {needed[0]} can{needed[1]}: more users or a longer log."
    )


def _needed(num_events: int, num_days: float, factor: float) -> tuple[str, str]:
    """Return the number of events that is `factor` times as large, in words, and the days that it takes, if known."""
    days = "" if math.isnan(num_days) else f" ({_round_up(num_days * factor):,} days at this rate)"
    return f"about {_round_up(num_events * factor):,}", days
