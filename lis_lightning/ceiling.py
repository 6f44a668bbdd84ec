"""The Leakage Impact Score: what preference data of the evaluation period would bring in the representation's place.

The future is leaked, the label is not: vectors for a user's events are built without that user. Leaking naively, with
the user's own events inside, exceeds even the gain of the true preferences, since it carries the label itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lis_lightning.base import place_items, prepare, probe_inputs, read_items, user_folds
from lis_lightning.errors import ConfigError
from lis_lightning.evaluate import Arm, evaluate
from lis_lightning.functional.leak import ItemVectors, id_vectors, pair_vectors, rotate_onto
from lis_lightning.result import Ceiling
from lis_lightning.split import Log, PreferenceSplit

NUM_FOLDS = 5

VectorBuilder = Callable[[Log, NDArray[np.bool_]], ItemVectors]


def build_pairs(log: Log, rows: NDArray[np.bool_]) -> ItemVectors:
    """Return vectors of item-to-item co-engagement from the positives among some rows of the log."""
    rows = rows & (log.label == 1)
    return pair_vectors(log.user[rows], log.item[rows], log.num_items)


def build_ids(log: Log, rows: NDArray[np.bool_]) -> ItemVectors:
    """Return ID embeddings of a ranker trained on some rows of the log."""
    return id_vectors(log.user[rows], log.item[rows], log.label[rows].astype(np.float64), log.num_items)


BUILDERS: dict[str, VectorBuilder] = {"pairs": build_pairs, "ids": build_ids}


@dataclass(frozen=True)
class Leak:
    """Preference data as item vectors, per fold of users.

    Attributes:
        reference: Vectors of all users' events.
        folds: Vectors built without each fold's users, rotated onto the reference.
    """

    reference: ItemVectors
    folds: list[ItemVectors]


_ceilings: weakref.WeakKeyDictionary[PreferenceSplit, dict[str, Ceiling]] = weakref.WeakKeyDictionary()
_references: weakref.WeakKeyDictionary[PreferenceSplit, dict[str, ItemVectors]] = weakref.WeakKeyDictionary()


def ceiling(split: PreferenceSplit, kind: str) -> Ceiling:
    """Return the cross-fitted ceiling of one kind of preference data; kept as long as the split lives.

    Args:
        split: The split.
        kind: ``"pairs"`` (co-engagement) or ``"ids"`` (ID embeddings of a ranker).

    Raises:
        ConfigError: If `kind` is unknown.
    """
    if kind not in BUILDERS:
        raise ConfigError(f"Unknown preference data {kind!r}; expected one of {sorted(BUILDERS)}.")
    known = _ceilings.setdefault(split, {})
    if kind not in known:
        leak = cross_fit(split, BUILDERS[kind], future=True)
        _references.setdefault(split, {})[kind] = leak.reference
        arm, missing = leak_arm(split, leak)
        past, _ = leak_arm(split, cross_fit(split, BUILDERS[kind], future=False))
        positive = split.events.label[~split.events.train] == 1
        known[kind] = Ceiling(
            value=arm.gain.value,
            low=arm.gain.estimate.low,
            high=arm.gain.estimate.high,
            past=past.gain.value,
            missing_positive=float(missing[positive].mean()),
            missing_negative=float(missing[~positive].mean()),
            influence=arm.gain.influence,
        )
    return known[kind]


def reference_vectors(split: PreferenceSplit, kind: str) -> ItemVectors:
    """Return the preference data's vectors from all users, as companions compare a representation with."""
    ceiling(split, kind)
    return _references[split][kind]


def cross_fit(split: PreferenceSplit, build: VectorBuilder, *, future: bool) -> Leak:
    """Build vectors from all events up to w2 (or, without the future, to w1), leaving out each fold's users in turn."""
    log = split.log
    rows = log.window < (3 if future else 2)  # window 3 lies after w2
    fold = np.full(log.num_users, -1)
    fold[: split.num_users] = user_folds(split, NUM_FOLDS)
    reference = build(log, rows)
    return Leak(reference, [rotate_onto(build(log, rows & (fold[log.user] != f)), reference) for f in range(NUM_FOLDS)])


def leak_arm(split: PreferenceSplit, leak: Leak) -> tuple[Arm, NDArray[np.bool_]]:
    """Score a leak as if it were a representation.

    Where targets lack an out-of-fold vector, absence itself can be a label (an item bought only inside the held-out
    fold); a flag in both arms takes that out.

    Returns:
        The scored arm, and for each test event whether its target has no vector.
    """
    prepared, num_items = prepare(split), split.num_items
    axes = place_items(leak.reference, num_items).axes
    items = [place_items(vectors, num_items, axes) for vectors in leak.folds]
    group = torch.from_numpy(user_folds(split, NUM_FOLDS)[split.events.user])
    missing = ~torch.stack([item.present for item in items])[group, prepared.histories.target]
    base = prepared.refit(missing) if missing.any() else prepared.logits
    arm = evaluate(split, prepared, probe_inputs(prepared, read_items(prepared.histories, items, group)), base)
    return arm, missing.numpy()[~split.events.train]
