"""Statistical power of a split: the smallest AUC gain that its test window can detect."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.random_streams import random_stream
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.functional.auc import auroc_influence
from lis_lightning.functional.intervals import POWER_80, Estimate, cluster_interval, user_sums
from lis_lightning.scoring.base_ranker import prepare
from lis_lightning.scoring.cache import SplitCache

NUM_DRAWS, NUM_STEPS = 4, 5
FIRST_STRENGTH, STRONGEST, TINY = 0.3, 4.0, 1e-9


def smallest_detectable_gain(cache: SplitCache) -> float:
    """Return the smallest AUC gain over the base that a score detects with 80 % power (at 5 %, two-sided).

    It is simulated: the log-likelihood ratio of a Gaussian observation of the label is added to the base logits, at
    growing strength until the gain is 2.8 times its user-clustered standard error. Signals of one user are drawn
    independently, and the ranker is not fitted. A representation therefore needs a somewhat larger gain, the more so if
    it helps few users or w1 is small.

    Args:
        cache: The split, with the cache of its base ranker.

    Returns:
        The gain in AUC.
    """
    return cache.value("smallest detectable gain", lambda: _simulate(cache), lambda: None)


def tested_days(split: PreferenceSplit) -> float:
    """Return the days over which the tested events of a split spread; NaN if the unit of time is unknown."""
    log, per_day = split.log, split.settings["units_per_day"]
    if per_day is None:
        return math.nan
    times = log.time[log.window == 2] if split.periods else log.time[log.window > 0]
    return float((times.max() - times.min()) / per_day)


def _simulate(cache: SplitCache) -> float:
    split = cache.split
    test = split.tested
    base, labels, users = prepare(cache).logits.numpy()[test], split.events.label[test], split.events.user[test]
    draws = random_stream(split.settings["seed"], "smallest detectable gain").standard_normal((NUM_DRAWS, base.size))
    auc_base, base_influence = auroc_influence(base, labels)

    def observed(strength: float, noise: NDArray[np.float64]) -> Estimate:
        auc, influence = auroc_influence(base + strength**2 * (labels - 0.5) + strength * noise, labels)
        return cluster_interval(auc - auc_base, user_sums(influence - base_influence, users, split.num_users))

    strength, gain = FIRST_STRENGTH, 0.0
    for _ in range(NUM_STEPS):
        # Antithetic pairs: the noise alone moves the AUC as much as weak signals do, and either sign cancels the other.
        estimates = [observed(strength, sign * noise) for noise in draws for sign in (1, -1)]
        gain = float(np.mean([estimate.value for estimate in estimates]))
        z = gain / max(float(np.mean([estimate.se for estimate in estimates])), TINY)
        # The gain grows with the square of the strength and its error with the strength, so a few steps suffice.
        strength = min(strength * POWER_80 / max(z, TINY), STRONGEST)
    return gain
