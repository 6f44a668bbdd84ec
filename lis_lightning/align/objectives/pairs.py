"""Objectives on pairs of items that belong together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from typing_extensions import override

from lis_lightning.align.data.events import AlignmentEvents
from lis_lightning.align.data.examples import Examples, Rows, hold_out
from lis_lightning.align.data.pairs import KnownPairs, co_engagement_pairs, mixed, pair_keys, pointwise_information
from lis_lightning.align.objectives.base import Objective, Temperature
from lis_lightning.errors import ConfigError
from lis_lightning.functional.contrastive import info_nce
from lis_lightning.functional.distillation import cosine_distillation
from lis_lightning.functional.pointwise_mutual_information import cooccurrence_vectors
from lis_lightning.scoring.preference import PairTable, Preference


@dataclass(frozen=True, kw_only=True)
class CoEngagement:
    """Pairs of items that a user clicked within a few successive clicks.

    Attributes:
        window: Successive clicks of a user that make pairs.
        max_gap: Longest time between the two, in the unit of the log (of datetimes: seconds), as within a session; None
            for any.
        user_power: How much less the pairs of a heavy user count; see
            :func:`~lis_lightning.align.data.pairs.co_engagement_pairs`.
        min_information: Least pointwise mutual information of a pair, in nats; None keeps all.
        shuffled: Trade the items between the clicks first: a negative control, which no ranker gains from.
    """

    window: int = 5
    max_gap: float | None = None
    user_power: float = 0.0
    min_information: float | None = None
    shuffled: bool = False

    def of(self, users: Any, items: Any, times: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return pairs [num_pairs, 2] and how often each was seen.

        Raises:
            LogError: If there is none.
            ConfigError: If the threshold leaves none.
        """
        pairs, counts = co_engagement_pairs(
            users, items, times, window=self.window, max_gap=self.max_gap, user_power=self.user_power
        )
        if self.min_information is None:
            return pairs, counts
        keep = pointwise_information(pairs, counts) >= self.min_information
        if not keep.any():
            highest = pointwise_information(pairs, counts).max()
            raise ConfigError(
                f"`min_information` is {self.min_information}, and no pair has more than {highest:.2f} nats; lower it."
            )
        return pairs[keep], counts[keep]

    @property
    def cache_key(self) -> str:
        """What the vectors depend on; a ceiling is kept under it."""
        return repr(self)

    def __call__(self, events: pl.DataFrame) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return item ids and vectors of these pairs: as preference data, they are leaked for their ceiling.

        Args:
            events: Columns user, item, time, label.
        """
        clicks = events.filter(pl.col("label") == 1)
        ids, items = np.unique(clicks["item"].to_numpy(), return_inverse=True)
        if self.shuffled:
            items = np.random.default_rng(11).permutation(items)
        users = np.unique(clicks["user"].to_numpy(), return_inverse=True)[1]
        pairs, counts = self.of(users, items, clicks["time"].to_numpy())
        together = sparse.csr_matrix((counts, pairs.T), shape=(ids.size, ids.size))
        return ids, cooccurrence_vectors(sparse.csr_matrix(together + together.T)).vectors


class _OnPairs(Objective):
    """What objectives on pairs share: where pairs come from.

    Args:
        pairs: How pairs are made of the alignment window, or a table of one's own, of which rows from the evaluation
            windows are left out.
        count_power: A pair is drawn with weight count ** count_power; 0 draws all alike, 1 as often as seen.
        **options: As of :class:`~lis_lightning.align.objectives.base.Objective`.
    """

    def __init__(
        self, *, pairs: CoEngagement | PairTable | None = None, count_power: float = 0.5, **options: Any
    ) -> None:
        super().__init__(**options)
        self.pairs = pairs or CoEngagement()
        self.count_power = count_power

    @property
    @override
    def preference(self) -> Preference:
        return self.pairs

    @override
    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        if isinstance(self.pairs, PairTable):
            pairs, counts = table_pairs(self.pairs, events)
        else:
            clicks = events.positives
            clicks = clicks.shuffled() if self.pairs.shuffled else clicks
            pairs, counts = self.pairs.of(clicks.user, clicks.item, clicks.time)
        held_out = hold_out(mixed(pair_keys(pairs), events.seed), self.held_out)
        known = KnownPairs(pairs[~held_out]), KnownPairs(pairs)
        return Examples(
            {"anchor": pairs[:, :1], "positive": pairs[:, 1:]},
            held_out,
            counts**self.count_power,
            partial(_known_pairs, known),
        )


def _known_pairs(known: tuple[KnownPairs, KnownPairs], rows: Rows, held_out: bool) -> dict[str, Tensor]:
    """Return which pairs of a batch are no negatives; training must not learn from it which pairs are held out."""
    return {"known": torch.from_numpy(known[held_out].mask(rows["anchor"][:, 0], rows["positive"][:, 0]))}


class PairContrastive(_OnPairs):
    """Symmetric InfoNCE on pairs; the other pairs of the batch are negatives.

    Args:
        temperature: At the start. It is learned, and never falls below 0.01.
        hard_negatives: For each pair, items that users of its first item were shown and left, drawn once; never a
            partner of it. An item is a negative of its own pair only.
        across_devices: Take the batches of all processes as negatives.
        **options: As of the classes above.
    """

    def __init__(
        self, *, temperature: float = 0.07, hard_negatives: int = 0, across_devices: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        if hard_negatives < 0:
            raise ConfigError(f"`hard_negatives` must be 0 or more, but got {hard_negatives}.")
        self.temperature = Temperature(temperature)
        self.hard_negatives = hard_negatives
        self.across_devices = across_devices

    @override
    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        found = super().examples(events, dim)
        if not self.hard_negatives:
            return found
        anchors = found.items["anchor"]
        skipped = skipped_items(events, anchors[:, 0], self.hard_negatives)
        partners = KnownPairs(np.concatenate([anchors, found.items["positive"]], axis=1)[~found.held_out])
        skipped = np.where(partners.has(anchors, np.maximum(skipped, 0)), -1, skipped)
        return Examples({**found.items, "negative": skipped}, found.held_out, found.weights, found.extras)

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        anchors, positives = rows[batch["anchor"]], rows[batch["positive"]]
        negatives, hidden = self._negatives(rows, batch)
        if self.across_devices and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            elsewhere, theirs = _elsewhere(positives, batch["rows"][batch["positive"]])
            own = batch["rows"][batch["anchor"]]
            # Of pairs on other devices only equal items are known; their pairs are not sent.
            negatives = torch.cat([negatives, elsewhere])
            hidden = torch.cat([hidden, own[:, None] == theirs], dim=1)
        return info_nce(anchors, positives, self.temperature.value, batch["known"], negatives, hidden)

    def _negatives(self, rows: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the hard negatives of the batch, and which anchors they must not be told from."""
        size = len(batch["anchor"])
        if "negative" not in batch:
            return rows[:0], batch["known"].new_zeros(size, 0)
        place, pair = batch["negative"].reshape(size, -1), torch.arange(size, device=rows.device)[:, None]
        there = place >= 0
        # Of other pairs of the batch it may be a partner.
        return rows[place[there]], pair.expand_as(place)[there] != pair


class PairAttraction(_OnPairs):
    """The alignment half of a contrastive loss, alone (Wang and Isola 2020): a negative control.

    Pairs are drawn together and nothing keeps items apart, so that representations lose what tells them from each
    other.
    """

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        return cosine_distillation(rows[batch["anchor"]], rows[batch["positive"]])


def table_pairs(table: PairTable, events: AlignmentEvents) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pairs and weights of a table before the evaluation windows, as rows of the item table.

    Args:
        table: The table; without times, all of its rows.
        events: All that alignment may see.

    Raises:
        ConfigError: If no row is left.
    """
    given, row = table.pairs, {item: row for row, item in enumerate(events.items.ids.tolist())}
    first = np.array([row.get(item, -1) for item in given.item_ids.tolist()])[given.item]
    second = np.array([row.get(item, -1) for item in given.other_ids.tolist()])[given.other]
    usable = (first >= 0) & (second >= 0) & (first != second)
    if given.time is not None:
        if given.units_per_day != events.units_per_day:
            raise ConfigError(
                f"Times of the pair table (column {table.time!r}) are not in the unit of the log's; bring both to one."
            )
        usable &= given.time <= events.time.max()
    usable &= ~np.isin(first, events.withheld) & ~np.isin(second, events.withheld)
    if not usable.any():
        raise ConfigError(
            f"None of the {usable.size} rows of the pair table pairs two items that alignment may see, before the "
            "evaluation windows begin."
        )
    weight = np.ones(usable.size) if given.weight is None else given.weight
    low, high = np.minimum(first, second)[usable], np.maximum(first, second)[usable]
    pairs, place = np.unique(np.stack([low, high], axis=1), axis=0, return_inverse=True)
    counts = np.bincount(place.ravel(), weights=weight[usable]).astype(np.float64)
    return pairs[counts > 0].astype(np.int64), counts[counts > 0]


def skipped_items(events: AlignmentEvents, anchors: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Return, for each anchor, items that a user who clicked it was shown and left, [n, number]; -1 where none was.

    Args:
        events: All that alignment may see.
        anchors: Rows of items.
        number: How many to draw, with replacement.
    """
    left = events.label == 0
    begin = np.searchsorted(events.user[left], np.arange(events.user.max(initial=-1) + 2))
    items = events.item[left]
    clicks = events.positives
    order = np.argsort(clicks.item, kind="stable")
    first, past = (np.searchsorted(clicks.item[order], anchors, side=side) for side in ("left", "right"))
    rng = np.random.default_rng([events.seed, 12])
    shape = (anchors.size, number)
    chosen = first[:, None] + (rng.random(shape) * (past - first)[:, None]).astype(np.int64)
    user = clicks.user[order][np.minimum(chosen, order.size - 1)]
    place = begin[user] + (rng.random(shape) * (begin[user + 1] - begin[user])).astype(np.int64)
    some = (past > first)[:, None] & (begin[user + 1] > begin[user])
    drawn = np.where(some, items[np.minimum(place, items.size - 1)] if items.size else -1, -1)
    return np.where(drawn == anchors[:, None], -1, drawn)


def _elsewhere(positives: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positives of the other processes, through which gradients flow back, and their rows."""
    rank = torch.distributed.get_rank()
    gathered, known = all_gather(positives), all_gather(rows)  # type: ignore[no-untyped-call]
    others = [index for index in range(len(gathered)) if index != rank]
    return torch.cat([gathered[index] for index in others]), torch.cat([known[index] for index in others])
