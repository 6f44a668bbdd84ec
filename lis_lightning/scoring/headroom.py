"""What preference data would still add to a ranker that has the representation already.

A ceiling from the data alone need not bind: content pools over items where the data is thin. What is left above a
snapshot does, since it is measured over that snapshot: the same leak, by the same probe, over the base with R in it.
"""

from __future__ import annotations

from pathlib import Path

from lis_lightning.data.cache import kept
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.scoring.base_ranker import prepare
from lis_lightning.scoring.ceiling import LeakReading, preference_key, read_leak
from lis_lightning.scoring.cross_fit import source
from lis_lightning.scoring.gain import Arm, Gain, evaluate
from lis_lightning.scoring.preference import Preference, handle


def headroom(split: PreferenceSplit, preference: Preference, arm: Arm, *, cache_dir: str | Path | None = None) -> Gain:
    """Return the gain of leaking preference data to a ranker that has a representation already.

    The ceiling over a snapshot is ``AIS + headroom``, its influence the sum of both, and AIS cannot exceed it but by
    noise: the probe's slope is at least 0. Worthless data has none, data that the representation holds already has
    none, and without a representation it is the ceiling itself.

    Args:
        split: The split.
        preference: See :func:`lis_lightning.scoring.ceiling.ceiling`.
        arm: The representation, scored on the same split.
        cache_dir: See :func:`lis_lightning.scoring.ceiling.ceiling`.
    """
    prepared = prepare(split, cache_dir=cache_dir)
    leak = _reading(split, preference, cache_dir)
    # Training events carry out-of-fold scores of the representation, so the leak is not trained on its overfit.
    return evaluate(split, prepared, leak.inputs, leak.base + arm.fit.score.cpu()).gain


def _reading(split: PreferenceSplit, preference: Preference, cache_dir: str | Path | None) -> LeakReading:
    """Return the leak as the probe sees it, kept as long as the split lives: snapshots only change the base."""

    def read() -> LeakReading:
        return read_leak(split, source(split, preference).future(), cache_dir=cache_dir)

    return kept(split, ("leak", handle(preference)), read, content=lambda: preference_key(split, preference, "leak"))
