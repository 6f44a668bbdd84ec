"""What preference data would still add to a ranker that has the representation already.

A ceiling from the data alone need not bind: content pools over items where the data is thin. What is left above a
snapshot does, since it is measured over that snapshot: the same leak, by the same probe, over the base with R in it.
"""

from __future__ import annotations

from lis_lightning.scoring.base_ranker import prepare
from lis_lightning.scoring.cache import SplitCache
from lis_lightning.scoring.ceiling import LeakReading, future_leak, preference_key, read_leak
from lis_lightning.scoring.gain import Arm, Gain, evaluate
from lis_lightning.scoring.preferences.naming import Preference, as_preference
from lis_lightning.scoring.preferences.preference_data import PreferenceData


def headroom_of(cache: SplitCache, preference: Preference, arm: Arm) -> Gain:
    """Return the gain of leaking preference data to a ranker that has a representation already.

    The ceiling over a snapshot is ``AIS + headroom``, its influence the sum of both, and AIS cannot exceed it but by
    noise: the probe's slope is at least 0. Worthless data has none, data that the representation holds already has
    none, and without a representation it is the ceiling itself.

    Args:
        cache: The split, and where its cross-fitted vectors are kept.
        preference: See :meth:`lis_lightning.scoring.Scorer.ceiling`.
        arm: The representation, scored on the same split.
    """
    leak = _reading(cache, as_preference(preference))
    # Training events carry out-of-fold scores of the representation, so the leak is not trained on its overfit.
    return evaluate(cache.split, prepare(cache), leak.inputs, leak.base + arm.fit.score.cpu()).gain


def _reading(cache: SplitCache, preference: PreferenceData) -> LeakReading:
    """Return the leak as the probe sees it, kept as long as the split lives: snapshots only change the base."""

    def read() -> LeakReading:
        return read_leak(cache, future_leak(cache, preference, preference.match(cache.split)))

    return cache.value(("leak", preference.handle), read, lambda: preference_key(cache.split, preference, "leak"))
