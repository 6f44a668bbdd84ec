"""What a split can tell from chance: the smallest gain that its test window shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.random_streams import random_stream
from lis_lightning.functional.auc import auroc_influence
from lis_lightning.functional.intervals import POWER_80, Estimate, cluster_interval, user_sums
from lis_lightning.scoring.base_ranker import prepare
from lis_lightning.scoring.cache import SplitCache

NUM_DRAWS, NUM_STEPS = 4, 5
FIRST_STRENGTH, STRONGEST, TINY = 0.3, 4.0, 1e-9


def smallest_detectable_gain(cache: SplitCache) -> float:
    """Return the AUC gain over the base that w2 would find 4 times in 5 (at 5 %, two-sided).

    Simulated, not assumed: signals of growing strength with the log-likelihood ratio of a Gaussian observation of the
    label are added to the base logits, until the gain is 2.8 of its user-clustered standard errors. Signals of one user
    are drawn independently, and the ranker is not fitted, so a representation needs somewhat more than this: the more,
    the fewer users it helps and the smaller w1 is.
    """
    return cache.value("smallest detectable gain", lambda: _simulate(cache), lambda: None)


def _simulate(cache: SplitCache) -> float:
    split = cache.split
    test = ~split.events.train
    base, labels, users = prepare(cache).logits.numpy()[test], split.events.label[test], split.events.user[test]
    draws = random_stream(split.settings["seed"], "smallest detectable gain").standard_normal((NUM_DRAWS, base.size))
    auc_base, base_influence = auroc_influence(base, labels)

    def observed(strength: float, noise: NDArray[np.float64]) -> Estimate:
        auc, influence = auroc_influence(base + strength**2 * (labels - 0.5) + strength * noise, labels)
        return cluster_interval(auc - auc_base, user_sums(influence - base_influence, users, split.num_users))

    strength, gain = FIRST_STRENGTH, 0.0
    for _ in range(NUM_STEPS):
        # The noise alone moves the AUC by as much as weak signals do; with either sign it moves it the other way.
        pairs = [observed(strength, sign * noise) for noise in draws for sign in (1, -1)]
        gain = float(np.mean([one.value for one in pairs]))
        z = gain / max(float(np.mean([one.se for one in pairs])), TINY)
        # The gain grows with the square of the strength and its error with the strength, so a few steps suffice.
        strength = min(strength * POWER_80 / max(z, TINY), STRONGEST)
    return gain
