"""The conventional curves of a representation on a split: logged beside AIS, to explain it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.functional.companions import linear_cka, pair_auc, rankme
from lis_lightning.functional.leak import ItemVectors
from lis_lightning.split import PreferenceSplit

NUM_PAIRS = 20_000
NUM_ITEMS = 8192


def companions(split: PreferenceSplit, vectors: Tensor, reference: ItemVectors | None = None) -> dict[str, float]:
    """Return what conventional metrics say of the vectors: ``pair_auc``, ``rankme``, and ``cka`` where it has a peer.

    RankMe and CKA are taken of at most 8192 evenly spaced items: both cost a product of N x D x D, more than the score.

    Args:
        split: The split.
        vectors: One row an item.
        reference: Vectors of the preference data, to compare with.
    """
    pairs = successive_pairs(split)
    rng = np.random.default_rng([split.settings["seed"], 11])
    if pairs.shape[0] > NUM_PAIRS:
        pairs = pairs[rng.choice(pairs.shape[0], NUM_PAIRS, replace=False)]
    found = {"pair_auc": pair_auc(vectors, pairs, rng), "rankme": rankme(_evenly(vectors))}
    if reference is not None:
        rows = _evenly(torch.from_numpy(np.flatnonzero(reference.present[: split.num_items])))
        others = torch.from_numpy(reference.vectors[rows]).to(vectors.device)
        found["cka"] = linear_cka(vectors[rows.to(vectors.device)], others)
    return found


def _evenly(rows: Tensor) -> Tensor:
    """Return at most `NUM_ITEMS` evenly spaced rows."""
    return rows[:: max(1, -(-rows.shape[0] // NUM_ITEMS))]


def successive_pairs(split: PreferenceSplit) -> NDArray[np.int64]:
    """Return items that a scored user engaged with in succession in w2, [num_pairs, 2] rows of R."""
    test = np.flatnonzero(~split.events.train & (split.events.label == 1))
    user, item = split.events.user[test], split.events.item[test]
    follows = (user[1:] == user[:-1]) & (item[1:] != item[:-1])
    return np.stack([item[:-1][follows], item[1:][follows]], axis=1)
