"""The Leakage Impact Score: what preference data of the evaluation period would bring in the representation's place.

The future is leaked, the label is not: vectors for a user's events are built without that user. Leaking naively, with
the user's own events inside, exceeds even the gain of the true preferences, since it carries the label itself.
"""

from __future__ import annotations

import math
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
class Known:
    """What is computed once for preference data on a split.

    Attributes:
        ceiling: The ceiling.
        reference: Vectors from all users, rows as ``split.item_ids``.
    """

    ceiling: Ceiling
    reference: ItemVectors


def ceiling_of(cache: SplitCache, preference: Preference) -> Ceiling:
    """Return the ceiling of preference data; computed once for the content of split and data, and kept on disk.

    Args:
        cache: The split, and where its ceilings are kept.
        preference: ``"pairs"`` (co-engagement in the log), ``"ids"`` (ID embeddings of a ranker trained on the log), a
            :class:`~lis_lightning.PairTable`, :class:`~lis_lightning.IdEmbeddings`, or a callable: given a polars table
            of events (columns ``user``, ``item``, ``time``, ``label``; ids as in the log, datetimes in microseconds) it
            returns a mapping of item ids to vectors, or item ids and a matrix, always of one width; a row of zeros
            says nothing of its item. It is called 12 times: for all users and without each of 5 folds, with and
            without w2. What it returned is kept in memory for that very object; on disk too if the callable has an
            attribute ``cache_key``, a text that changes whenever its vectors do.

    Raises:
        ConfigError: If the preference data does not exist, does not go with the split, or cannot be cross-fitted.
        ShapeError: If a callable returns vectors of another shape.
        NonFiniteError: If it returns NaN or infinity.

    Warns:
        LisWarning: If items are unknown to the split, a claim looks doubtful, or the cache cannot be used.
    """
    return _known(cache, as_preference(preference)).ceiling


def reference_vectors(cache: SplitCache, preference: Preference) -> ItemVectors:
    """Return the preference data's vectors from all users, rows as ``split.item_ids``: companions compare with them."""
    return _known(cache, as_preference(preference)).reference


def _known(cache: SplitCache, preference: PreferenceData) -> Known:
    split = cache.split

    def compute() -> Known:
        # Matched before the cache is asked, so that its warnings are told whoever computed the number.
        matched = preference.match(split)
        key = preference_key(split, preference)
        if key is None:
            return _measure(cache, preference, matched)
        about = f"ceiling on split {split.hash}"
        return _unpack(cache.arrays(key, lambda: _pack(_measure(cache, preference, matched)), about))

    return cache.value(("ceiling", preference.handle), compute, lambda: preference_key(split, preference))


def preference_key(split: PreferenceSplit, preference: PreferenceData, what: str = "ceiling") -> str | None:
    """Return a digest of all that the ceiling (or `what`) depends on, None if that cannot be known."""
    data = preference.content_key
    return None if data is None else digest(what, content_key(split), data)


def future_leak(cache: SplitCache, preference: PreferenceData, matched: MatchedPreference) -> CrossFittedVectors:
    """Return the cross-fitted vectors of preference data with its future; kept on disk, since they take longest.

    Args:
        cache: The split, and where they are kept.
        preference: The preference data.
        matched: The same, matched with the split.
    """
    key = preference_key(cache.split, preference, "leak")
    if key is None:
        return matched.future()
    about = f"cross-fitted vectors on split {cache.split.hash}"
    arrays = load_or_compute(key, lambda: _pack_leak(matched.future()), cache_dir=cache.cache_dir, about=about)
    return _unpack_leak(arrays)


def _pack_leak(leak: CrossFittedVectors) -> Arrays:
    spaces = {"reference": leak.reference} | {f"fold {number}": fold for number, fold in enumerate(leak.folds)}
    vectors = {f"{name} vectors": space.vectors for name, space in spaces.items()}
    return vectors | {f"{name} present": space.present for name, space in spaces.items()}


def _unpack_leak(arrays: Arrays) -> CrossFittedVectors:
    def space(name: str) -> ItemVectors:
        return ItemVectors(arrays[f"{name} vectors"], arrays[f"{name} present"])

    num_folds = len(arrays) // 2 - 1
    return CrossFittedVectors(space("reference"), [space(f"fold {number}") for number in range(num_folds)])


def _measure(cache: SplitCache, preference: PreferenceData, matched: MatchedPreference) -> Known:
    split = cache.split
    leak = future_leak(cache, preference, matched)
    arm, missing = leak_arm(cache, leak)
    past = None if matched.past is None else leak_arm(cache, matched.past())[0].gain
    positive = split.events.label[~split.events.train] == 1
    reference = ItemVectors(leak.reference.vectors[: split.num_items], leak.reference.present[: split.num_items])
    return Known(
        Ceiling(
            value=arm.gain.value,
            low=arm.gain.estimate.low,
            high=arm.gain.estimate.high,
            past=math.nan if past is None else past.value,
            missing_positive=float(missing[positive].mean()),
            missing_negative=float(missing[~positive].mean()),
            cross_fitted=matched.cross_fitted,
            influence=arm.gain.influence,
            past_influence=np.zeros(0) if past is None else past.influence,
        ),
        reference,
    )


def leak_arm(cache: SplitCache, leak: CrossFittedVectors) -> tuple[Arm, NDArray[np.bool_]]:
    """Score a leak as if it were a representation.

    Returns:
        The scored arm, and for each test event whether its target has no vector.
    """
    reading = leak_features(cache, leak)
    arm = evaluate(cache.split, prepare(cache), reading.inputs, reading.base)
    return arm, reading.missing[~cache.split.events.train]


@dataclass(frozen=True, eq=False)
class LeakFeatures:
    """A leak as the probe sees it.

    Attributes:
        inputs: Its features at every scored event, each user's from the vectors built without that user.
        base: Logits of the base, with a flag for targets without a vector: where they lack an out-of-fold vector,
            absence itself can be a label (an item bought only inside the held-out fold), and a flag in both arms takes
            that out, [E].
        missing: Whether the target has no vector, [E].
    """

    inputs: ProbeInputs
    base: torch.Tensor
    missing: NDArray[np.bool_]


def leak_features(cache: SplitCache, leak: CrossFittedVectors) -> LeakFeatures:
    """Read a leak at every scored event as if it were a representation."""
    split, prepared = cache.split, prepare(cache)
    num_items = split.num_items
    axes = item_coordinates(leak.reference, num_items).axes
    items = [item_coordinates(vectors, num_items, axes) for vectors in leak.folds]
    fold = user_folds(split, len(items)) if len(items) > 1 else np.zeros(split.num_users, np.int64)
    group = torch.from_numpy(fold[split.events.user])
    missing = ~torch.stack([item.present for item in items])[group, prepared.histories.target]
    base = prepared.refit(missing) if missing.any() else prepared.logits
    inputs = probe_inputs(prepared, look_up_items(prepared.histories, items, group))
    return LeakFeatures(inputs, base, missing.numpy())


def _pack(known: Known) -> Arrays:
    limit = known.ceiling
    return {
        "numbers": np.array([float(getattr(limit, name)) for name in _NUMBERS]),
        "influence": limit.influence,
        "past_influence": limit.past_influence,
        "vectors": known.reference.vectors,
        "present": known.reference.present,
    }


def _unpack(arrays: Arrays) -> Known:
    numbers = dict(zip(_NUMBERS, arrays["numbers"].tolist(), strict=True))
    numbers["cross_fitted"] = bool(numbers["cross_fitted"])
    limit = Ceiling(**numbers, influence=arrays["influence"], past_influence=arrays["past_influence"])
    return Known(limit, ItemVectors(arrays["vectors"], arrays["present"]))
