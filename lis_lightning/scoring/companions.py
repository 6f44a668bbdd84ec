"""Conventional metrics of a representation on a split, logged beside AIS to explain it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.data.random_streams import random_stream
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.functional.item_coordinates import ItemCoordinates
from lis_lightning.functional.item_vectors import ItemVectors
from lis_lightning.functional.representation_metrics import linear_cka, pair_auc, rankme

NUM_PAIRS = 10_000
NUM_ITEMS = 4096
NUM_WIDE_ITEMS = 512  # of vectors with more dimensions than this


def companions(
    split: PreferenceSplit, items: ItemCoordinates, reference: ItemVectors | None = None
) -> dict[str, float]:
    """Return the conventional metrics of item vectors: pair AUC, RankMe and linear CKA.

    RankMe and CKA use at most 4096 evenly spaced items, or 512 if the vectors have more than 512 dimensions, because
    the spectra of more would take longer than the score. RankMe is then at most 511.

    Args:
        split: The split.
        items: The representation in its principal coordinates.
        reference: Vectors of the preference data, for CKA; None leaves it out.

    Returns:
        ``pair_auc``, ``rankme`` and, with a reference, ``cka``.
    """
    vectors, device = items.vectors, items.vectors.device
    pairs = successive_pairs(split)
    rng = random_stream(split.settings["seed"], "companions")
    if pairs.shape[0] > NUM_PAIRS:
        pairs = pairs[rng.choice(pairs.shape[0], NUM_PAIRS, replace=False)]
    most = NUM_ITEMS if vectors.shape[1] <= NUM_WIDE_ITEMS else NUM_WIDE_ITEMS
    rows = _evenly(np.arange(split.num_items), most).to(device)
    metrics = {"pair_auc": pair_auc(items, pairs, rng), "rankme": rankme(vectors[rows])}
    if reference is not None:
        present = _evenly(np.flatnonzero(reference.present[: split.num_items]), most)
        references = torch.from_numpy(reference.vectors[present.numpy()]).to(device)
        metrics["cka"] = linear_cka(vectors[present.to(device)], references)
    return metrics


def _evenly(rows: NDArray[np.int64], most: int) -> Tensor:
    """Return at most `most` evenly spaced rows."""
    return torch.from_numpy(rows[:: max(1, -(-rows.size // most))])


def successive_pairs(split: PreferenceSplit) -> NDArray[np.int64]:
    """Return items that a scored user engaged with in succession in w2.

    Args:
        split: The split.

    Returns:
        Pairs of rows of the representation, [num_pairs, 2].

    Example:
        >>> import polars as pl
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> split = PreferenceSplit.from_log(log)
        >>> successive_pairs(split)
        array([[3, 1]])
    """
    test = np.flatnonzero(~split.events.train & (split.events.label == 1))
    user, item = split.events.user[test], split.events.item[test]
    follows = (user[1:] == user[:-1]) & (item[1:] != item[:-1])
    return np.stack([item[:-1][follows], item[1:][follows]], axis=1)
