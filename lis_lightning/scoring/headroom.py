"""Headroom: the AUC gain that preference data would add to a ranker that already has the representation.

The ceiling of the data alone is not always an upper bound of AIS, since content pools over items with little data. AIS
plus headroom is one: the same leak is scored by the same probe, over the base plus the representation.
"""

from __future__ import annotations

from lis_lightning.scoring.base_ranker import prepare
from lis_lightning.scoring.cache import SplitCache
from lis_lightning.scoring.ceiling import LeakFeatures, future_leak, leak_features, preference_key
from lis_lightning.scoring.gain import Arm, Gain, evaluate
from lis_lightning.scoring.preferences.naming import Preference, as_preference
from lis_lightning.scoring.preferences.preference_data import PreferenceData


def headroom_of(cache: SplitCache, preference: Preference, arm: Arm) -> Gain:
    """Return the gain of leaking preference data to a ranker that has a representation already.

    The ceiling over a snapshot is ``AIS + headroom``, its influence the sum of both. AIS can exceed it by noise only,
    because the probe's slope is at least 0. Headroom is 0 for data without information and for data that the
    representation already contains; without a representation it equals the ceiling.

    Args:
        cache: The split, with the cache of its cross-fitted vectors.
        preference: See :meth:`lis_lightning.scoring.Scorer.ceiling`.
        arm: The representation, scored on the same split.
    """
    leak = _features(cache, as_preference(preference))
    # The representation's scores of the training events are out-of-fold, so the leak does not fit its overfitting.
    return evaluate(cache.split, prepare(cache), leak.inputs, leak.base + arm.fit.score.cpu()).gain


def _features(cache: SplitCache, preference: PreferenceData) -> LeakFeatures:
    """Return the probe's features of a leak, memoised for the life of the split: snapshots change only the base."""

    def compute() -> LeakFeatures:
        return leak_features(cache, future_leak(cache, preference, preference.match(cache.split)))

    return cache.value(("leak", preference.handle), compute, lambda: preference_key(cache.split, preference, "leak"))
