"""Pairs of items that the same users engage with closely in time: the preference data that InfoNCE aligns to.

Pairs come from the alignment window only; a pair of a later window would let the run see what it is scored on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import DataLoader, Dataset, Sampler
from typing_extensions import override

from lis_lightning.errors import ConfigError, LogError, ShapeError

_MAX_ROW = 2**31  # two rows share one int64 key
_MIN_HELD_OUT = 2  # one pair alone has no negative


def co_engagement_pairs(
    users: ArrayLike, items: ArrayLike, times: ArrayLike, *, window: int = 5
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of different items that a user engaged with within a few successive events, and how often.

    Events of one user at the same time have no order in the log; they get a random one, drawn from the ids, so that
    neither the order of the rows nor that of the item numbers matters.

    Args:
        users: The user of each positive event of the alignment window, as integers.
        items: The item's row in the item table, from 0.
        times: When, as numbers or datetimes.
        window: How many of the user's next positives an event is paired with.

    Returns:
        Pairs [num_pairs, 2] with the smaller row first, sorted, each once; and the number of times [num_pairs] that
        each was seen.

    Raises:
        ShapeError: If the three differ in length.
        ConfigError: If `window` is below 1.
        LogError: If no user engaged with two different items within the window.

    Example:
        >>> pairs, counts = co_engagement_pairs(users=[7, 7, 7, 8, 8], items=[0, 1, 2, 1, 0], times=[1, 2, 3, 1, 9])
        >>> pairs.tolist(), counts.tolist()
        ([[0, 1], [0, 2], [1, 2]], [2, 1, 1])
    """
    users, items, times = np.asarray(users), np.asarray(items, dtype=np.int64), np.asarray(times)
    if users.ndim != 1 or not users.shape == items.shape == times.shape:
        raise ShapeError(
            f"`users`, `items` and `times` must be of one length, but got {users.shape}, {items.shape}, {times.shape}."
        )
    if window < 1:
        raise ConfigError(f"`window` must be 1 or more successive positives, but got {window}.")
    user = np.unique(users, return_inverse=True)[1].astype(np.int64)
    order = np.lexsort((_hash(_key(user, items), seed=0), times, user))
    user, items = user[order], _checked_rows(items[order])
    keys = []
    for lag in range(1, min(window, len(items) - 1) + 1):
        first, second = items[:-lag], items[lag:]
        keep = (user[:-lag] == user[lag:]) & (first != second)
        keys.append(_key(np.minimum(first, second)[keep], np.maximum(first, second)[keep]))
    unique, counts = np.unique(np.concatenate(keys) if keys else np.empty(0, np.int64), return_counts=True)
    if len(unique) == 0:
        raise LogError(
            f"No pair of items: the alignment window has {len(items)} positive events of {len(np.unique(user))} users, "
            f"and no user engaged with two different items within {window} successive ones. Give the alignment window "
            "a larger share of the log, count more labels as positive, or raise `window`."
        )
    return np.stack([unique >> 32, unique & (2**32 - 1)], axis=1), counts.astype(np.int64)


class KnownPairs:
    """Tells which of many pairs of rows are known to go together, in either order, or are the same item.

    Args:
        pairs: [num_pairs, 2] rows of the item table.

    Example:
        >>> known = KnownPairs(np.array([[0, 3], [2, 1]]))
        >>> known.mask(np.array([0, 1]), np.array([3, 2, 1])).tolist()
        [[True, False, False], [False, True, True]]
    """

    def __init__(self, pairs: NDArray[np.int64]) -> None:
        self._keys = np.unique(_pair_keys(pairs))

    def __len__(self) -> int:
        return len(self._keys)

    def mask(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a mask [rows, columns], True where the two are a known pair or the same item."""
        first, second = np.broadcast_arrays(rows[:, None], columns[None, :])
        keys = _key(np.minimum(first, second), np.maximum(first, second))
        place = np.minimum(np.searchsorted(self._keys, keys), max(len(self._keys) - 1, 0))
        known = self._keys[place] == keys if len(self._keys) else np.zeros(keys.shape, dtype=bool)
        return np.asarray(known | (first == second), dtype=np.bool_)


def held_out_pairs(
    pairs: NDArray[np.int64], *, share: float = 0.05, maximum: int = 2000, seed: int = 0
) -> NDArray[np.bool_]:
    """Return a mask [num_pairs], True for the pairs that training must not see, chosen by a hash of the pair.

    A pair keeps its side when others come or go, so that runs on slightly different logs stay comparable.

    Raises:
        ConfigError: If `share` is not between 0 and 1, or fewer than two pairs would be left on a side.
    """
    if not 0.0 < share < 1.0:
        raise ConfigError(f"`share` of held-out pairs must lie between 0 and 1, but got {share}; try 0.05.")
    number = max(_MIN_HELD_OUT, min(round(share * len(pairs)), maximum))
    if len(pairs) - number < _MIN_HELD_OUT:
        raise ConfigError(
            f"{len(pairs)} pairs are too few to hold {number} out and train on the rest; give alignment more events."
        )
    chosen = np.argsort(_hash(_pair_keys(pairs), seed=seed), kind="stable")[:number]
    mask = np.zeros(len(pairs), dtype=bool)
    mask[chosen] = True
    return mask


class PairDataset(Dataset[tuple[int, int]]):
    """The pairs, one at a time, as two rows of the item table."""

    def __init__(self, pairs: NDArray[np.int64]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    @override
    def __getitem__(self, index: int) -> tuple[int, int]:
        first, second = self.pairs[index]
        return int(first), int(second)


class WeightedPairSampler(Sampler[int]):
    """Draws pairs with replacement, each epoch by a generator of its own.

    Args:
        weights: [num_pairs], 0 or more; need not sum to 1.
        num_samples: How many to draw an epoch.
        seed: Epoch e of seed s is always the same sequence, whatever else draws random numbers.
    """

    def __init__(self, weights: NDArray[np.float64], num_samples: int, *, seed: int = 0) -> None:
        self.weights = weights
        self.num_samples = num_samples
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples

    @override
    def __iter__(self) -> Iterator[int]:
        ends = np.cumsum(self.weights)
        points = np.random.default_rng((self.seed, self.epoch)).random(self.num_samples) * ends[-1]
        drawn = np.searchsorted(ends, points, side="right")
        yield from np.minimum(drawn, len(ends) - 1).tolist()


class PairCollator:
    """Makes a batch of pairs in which every item stands once.

    Args:
        items: The prepared items.
        collate: Makes a batch of their rows.
        known: The pairs that must not serve as negatives.
    """

    def __init__(
        self, items: Dataset[dict[str, Any]], collate: Callable[..., dict[str, Any]], known: KnownPairs
    ) -> None:
        self.items = items
        self.collate = collate
        self.known = known

    def __call__(self, pairs: list[tuple[int, int]]) -> dict[str, Any]:
        """Return the batch of B pairs of U different items.

        ``items`` is one item batch of U; ``anchor`` and ``positive`` are int64 [B], places among the U; ``known`` is
        bool [B, B], anchors by positives.
        """
        anchors, positives = np.array(pairs, dtype=np.int64).T
        rows, places = np.unique(np.concatenate([anchors, positives]), return_inverse=True)
        anchor, positive = torch.from_numpy(places.astype(np.int64)).chunk(2)
        return {
            "items": self.collate([self.items[int(row)] for row in rows]),
            "anchor": anchor,
            "positive": positive,
            "known": torch.from_numpy(self.known.mask(anchors, positives)),
        }


class PairDataModule(pl.LightningDataModule):
    """Batches of co-engagement pairs for training, and held-out pairs for the validation loss.

    Training masks the training pairs only, so that it never learns which pairs were held out; validation masks all.

    Args:
        pairs: [num_pairs, 2] rows of `items`, each pair once; see `co_engagement_pairs`.
        counts: [num_pairs] how often each was seen.
        items: The prepared items, one row an item of the table.
        collate: Makes a batch of such rows; an encoder's `collate`.
        batch_size: Pairs a batch.
        count_power: A pair is drawn with weight count ** count_power; 0 draws all alike, 1 as often as seen.
        held_out: Share of the pairs that is held out, at most 2000 pairs.
        seed: Of the choice of held-out pairs and of the draws.
        num_workers: Processes that load items; 0 suits prepared items, which are read from memory-mapped files.

    Raises:
        ShapeError: If pairs and counts do not belong together.
        ConfigError: If there are fewer pairs than a batch needs.
    """

    def __init__(
        self,
        pairs: NDArray[np.int64],
        counts: NDArray[np.int64],
        items: Dataset[dict[str, Any]],
        collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
        *,
        batch_size: int = 64,
        count_power: float = 0.5,
        held_out: float = 0.05,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if pairs.ndim != 2 or pairs.shape[1] != 2 or counts.shape != pairs.shape[:1]:
            raise ShapeError(f"`pairs` must be [P, 2] and `counts` [P], but got {pairs.shape} and {counts.shape}.")
        validation = held_out_pairs(pairs, share=held_out, seed=seed)
        if batch_size < _MIN_HELD_OUT or (~validation).sum() < batch_size:
            raise ConfigError(
                f"`batch_size` is {batch_size}, and there are {(~validation).sum()} pairs to train on "
                f"({validation.sum()} more are held out): it must be from 2 to {(~validation).sum()}."
            )
        self.items = items
        self.collate = collate
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.train_pairs, self.validation_pairs = pairs[~validation], pairs[validation]
        self.weights = counts[~validation].astype(np.float64) ** count_power
        self._train_known, self._all_known = KnownPairs(self.train_pairs), KnownPairs(pairs)

    @override
    def train_dataloader(self) -> DataLoader[tuple[int, int]]:
        sampler = WeightedPairSampler(self.weights, len(self.train_pairs), seed=self.seed)
        return self._loader(self.train_pairs, self._train_known, sampler=sampler, drop_last=True)

    @override
    def val_dataloader(self) -> DataLoader[tuple[int, int]]:
        # The loss depends on the number of negatives, so a short last batch would not be comparable.
        enough = len(self.validation_pairs) >= self.batch_size
        return self._loader(self.validation_pairs, self._all_known, sampler=None, drop_last=enough)

    def _loader(
        self, pairs: NDArray[np.int64], known: KnownPairs, *, sampler: Sampler[int] | None, drop_last: bool
    ) -> DataLoader[tuple[int, int]]:
        return DataLoader(
            PairDataset(pairs),
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=PairCollator(self.items, self.collate, known),
            generator=torch.Generator().manual_seed(self.seed),  # else every pass draws from the global generator
        )


def _key(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    return (first << 32) | second


def _checked_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if rows.size and not 0 <= rows.min() <= rows.max() < _MAX_ROW:
        raise LogError(
            f"Items must be rows of the item table, from 0 to {_MAX_ROW - 1}, but got {rows.min()} to {rows.max()}; "
            "look up each item's row first."
        )
    return rows


def _pair_keys(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    pairs = _checked_rows(pairs.astype(np.int64).reshape(-1, 2))
    return _key(pairs.min(axis=1), pairs.max(axis=1))


def _hash(keys: NDArray[np.int64], *, seed: int) -> NDArray[np.uint64]:
    """Return 64 well-mixed bits a key: the finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    mixed = keys.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
