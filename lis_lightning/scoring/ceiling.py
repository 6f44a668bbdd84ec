"""Leakage Impact Score (LIS): the AUC gain of preference data of the evaluation period in place of a representation.

The future is leaked, the label is not: vectors for a user's events are built without that user. A naive leak, which
includes the user's own events, exceeds even the gain of the true preferences, since it contains the label.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lis_lightning.data.digest import digest
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.functional.item_vectors import ItemVectors
from lis_lightning.functional.probe import ProbeInputs
from lis_lightning.results.result import Ceiling
from lis_lightning.scoring.base_ranker import (
    content_key,
    item_coordinates,
    look_up_items,
    prepare,
    probe_inputs,
    user_folds,
)
from lis_lightning.scoring.cache import Arrays, SplitCache, load_or_compute
from lis_lightning.scoring.gain import Arm, evaluate
from lis_lightning.scoring.preferences.naming import Preference, as_preference
from lis_lightning.scoring.preferences.preference_data import CrossFittedVectors, MatchedPreference, PreferenceData

_NUMBERS = ("value", "low", "high", "past", "missing_positive", "missing_negative", "cross_fitted")


@dataclass(frozen=True)
class MeasuredCeiling:
    """The ceiling of preference data on a split, with the vectors that it was measured on.

    Attributes:
        ceiling: The ceiling.
        reference: Vectors from all users, rows as ``split.item_ids``.
    """

    ceiling: Ceiling
    reference: ItemVectors


def ceiling_of(cache: SplitCache, preference: Preference) -> Ceiling:
    """Return the ceiling of preference data; computed once for the content of split and data, and cached on disk.

    Args:
        cache: The split, with the cache of its ceilings.
        preference: ``"pairs"`` (co-engagement in the log), ``"ids"`` (ID embeddings of a ranker trained on the log), a
            :class:`~lis_lightning.PairTable`, :class:`~lis_lightning.IdEmbeddings`, or a callable: given a polars table
            of events (columns ``user``, ``item``, ``time``, ``label``; ids as in the log, datetimes in microseconds) it
            returns a mapping of item ids to vectors, or item ids and a matrix, always of one width; a row of zeros
            means no vector. It is called 12 times: for all users and without each of 5 folds, with and without w2. The
            ceiling is memoised for the callable object; it is cached on disk if the callable has an attribute
            ``cache_key``, a text that changes whenever its vectors do.

    Returns:
        The ceiling, an AUC gain with its 95 % interval.

    Raises:
        ConfigError: If the preference data does not exist, does not go with the split, or cannot be cross-fitted.
        ShapeError: If a callable returns vectors of another shape.
        NonFiniteError: If it returns NaN or infinity.

    Warns:
        LisWarning: If items are unknown to the split, a claim looks doubtful, or the cache cannot be used.
    """
    return _measured(cache, as_preference(preference)).ceiling


def reference_vectors(cache: SplitCache, preference: Preference) -> ItemVectors:
    """Return the preference data's vectors from all users, rows as ``split.item_ids``."""
    return _measured(cache, as_preference(preference)).reference


def _measured(cache: SplitCache, preference: PreferenceData) -> MeasuredCeiling:
    """Return the ceiling from memory or disk, else measure it."""
    split = cache.split

    def compute() -> MeasuredCeiling:
        # Match before looking on disk, so that warnings are issued even if the ceiling is there.
        matched = preference.match(split)
        key = preference_key(split, preference)
        if key is None:
            return _measure(cache, preference, matched)
        about = f"ceiling on split {split.hash}"
        return _unpack(cache.arrays(key, lambda: _pack(_measure(cache, preference, matched)), about))

    return cache.value(("ceiling", preference.handle), compute, lambda: preference_key(split, preference))


def preference_key(split: PreferenceSplit, preference: PreferenceData, what: str = "ceiling") -> str | None:
    """Return a digest of everything that the ceiling (or `what`) depends on, None if that is unknown."""
    data = preference.content_key
    return None if data is None else digest(what, content_key(split), data)


def future_leak(cache: SplitCache, preference: PreferenceData, matched: MatchedPreference) -> CrossFittedVectors:
    """Return the cross-fitted vectors of preference data with its future, the slowest part of a ceiling.

    They are stored on disk and not in memory. Vectors that cannot be stored are memoised for the life of the split,
    because ceiling and headroom both need them.

    Args:
        cache: The split, with the cache of its cross-fitted vectors.
        preference: The preference data.
        matched: The preference data matched with the split.
    """
    split = cache.split
    key = preference_key(split, preference, "leak")
    if key is None or cache.folder is None:
        content = preference_key(split, preference, "leaked vectors")
        return cache.value(("leaked vectors", preference.handle), matched.future, lambda: content)
    about = f"cross-fitted vectors on split {split.hash}"
    arrays = load_or_compute(key, lambda: _pack_leak(matched.future()), cache_dir=cache.cache_dir, about=about)
    return _unpack_leak(arrays)


def _past_leak(
    cache: SplitCache,
    preference: PreferenceData,
    matched: MatchedPreference,
    build: Callable[[], CrossFittedVectors],
) -> CrossFittedVectors:
    """Return the cross-fitted vectors of preference data without its future.

    Where windows roll, the past of a period is all that the period before has, whose vectors are known already: they
    take most of the time of a ceiling.
    """
    split = cache.split
    if not matched.of_log or not split.period:
        return build()
    before = split.periods[split.period - 1]
    return future_leak(cache.of(before), preference, preference.match(before))


def _pack_leak(leak: CrossFittedVectors) -> Arrays:
    spaces = {"reference": leak.reference} | {f"fold {number}": fold for number, fold in enumerate(leak.folds)}
    vectors = {f"{name} vectors": space.vectors for name, space in spaces.items()}
    return vectors | {f"{name} present": space.present for name, space in spaces.items()}


def _unpack_leak(arrays: Arrays) -> CrossFittedVectors:
    def space(name: str) -> ItemVectors:
        return ItemVectors(arrays[f"{name} vectors"], arrays[f"{name} present"])

    num_folds = len(arrays) // 2 - 1
    return CrossFittedVectors(space("reference"), [space(f"fold {number}") for number in range(num_folds)])


def _measure(cache: SplitCache, preference: PreferenceData, matched: MatchedPreference) -> MeasuredCeiling:
    """Score the leaks with and without the future."""
    split = cache.split
    leak = future_leak(cache, preference, matched)
    arm, missing = leak_arm(cache, leak)
    past, past_influence = math.nan, np.zeros(0)
    if matched.past is not None:
        # Only events of w2 have a future that the past lacks: the difference is measured on them.
        later = ~split.events.train[split.tested]
        past_leak = _past_leak(cache, preference, matched, matched.past)
        with_future, past_only = arm.gain_of(later), leak_arm(cache, past_leak)[0].gain_of(later)
        past = arm.gain.value - (with_future.value - past_only.value)
        past_influence = arm.gain.influence - (with_future.influence - past_only.influence)
    positive = split.events.label[split.tested] == 1
    reference = ItemVectors(leak.reference.vectors[: split.num_items], leak.reference.present[: split.num_items])
    return MeasuredCeiling(
        Ceiling(
            value=arm.gain.value,
            low=arm.gain.estimate.low,
            high=arm.gain.estimate.high,
            past=past,
            missing_positive=float(missing[positive].mean()),
            missing_negative=float(missing[~positive].mean()),
            cross_fitted=matched.cross_fitted,
            influence=arm.gain.influence,
            past_influence=past_influence,
        ),
        reference,
    )


def leak_arm(cache: SplitCache, leak: CrossFittedVectors) -> tuple[Arm, NDArray[np.bool_]]:
    """Score a leak as if it were a representation.

    Returns:
        The scored arm, and for each tested event whether its target has no vector.
    """
    features = leak_features(cache, leak)
    arm = evaluate(cache.split, prepare(cache), features.inputs, features.base)
    return arm, features.missing[cache.split.tested]


@dataclass(frozen=True, eq=False)
class LeakFeatures:
    """A leak's features for the probe.

    Attributes:
        inputs: Features of the scored events, each user's from the vectors built without that user.
        base: Logits of the base, refitted with a flag for targets without a vector, [E]. A missing out-of-fold vector
            can itself reveal the label (an item bought only inside the held-out fold); a flag in both arms removes
            that effect.
        missing: Whether the target has no vector, [E].
    """

    inputs: ProbeInputs
    base: torch.Tensor
    missing: NDArray[np.bool_]


def leak_features(cache: SplitCache, leak: CrossFittedVectors) -> LeakFeatures:
    """Return the probe's features of a leak, computed as for a representation."""
    split, prepared = cache.split, prepare(cache)
    num_items = split.num_items
    axes = item_coordinates(leak.reference, num_items).axes
    items = [item_coordinates(vectors, num_items, axes) for vectors in leak.folds]
    fold = np.zeros(split.num_users, np.int64) if len(items) == 1 else user_folds(split, len(items))
    group = torch.from_numpy(fold[split.events.user])
    missing = ~torch.stack([item.present for item in items])[group, prepared.histories.target]
    base = prepared.refit(missing) if missing.any() else prepared.logits
    inputs = probe_inputs(prepared, look_up_items(prepared.histories, items, group))
    return LeakFeatures(inputs, base, missing.numpy())


def _pack(measured: MeasuredCeiling) -> Arrays:
    ceiling = measured.ceiling
    return {
        "numbers": np.array([float(getattr(ceiling, name)) for name in _NUMBERS]),
        "influence": ceiling.influence,
        "past_influence": ceiling.past_influence,
        "vectors": measured.reference.vectors,
        "present": measured.reference.present,
    }


def _unpack(arrays: Arrays) -> MeasuredCeiling:
    numbers = dict(zip(_NUMBERS, arrays["numbers"].tolist(), strict=True))
    numbers["cross_fitted"] = bool(numbers["cross_fitted"])
    ceiling = Ceiling(**numbers, influence=arrays["influence"], past_influence=arrays["past_influence"])
    return MeasuredCeiling(ceiling, ItemVectors(arrays["vectors"], arrays["present"]))
