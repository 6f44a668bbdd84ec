"""Objectives on users: a history of clicks, pooled, is to lie near what is clicked next."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from typing_extensions import override

from lis_lightning.align.data.events import AlignmentEvents
from lis_lightning.align.data.examples import Examples, Rows, hold_out
from lis_lightning.align.data.pairs import mixed
from lis_lightning.align.objectives.base import Objective, Temperature
from lis_lightning.errors import ConfigError, LogError
from lis_lightning.functional.contrastive import info_nce
from lis_lightning.functional.loss_inputs import check_above_zero
from lis_lightning.functional.pairwise_losses import bpr, dpo
from lis_lightning.functional.pooling import pool_history
from lis_lightning.scoring.preference import Preference


class _OnHistories(Objective):
    """What objectives on users share.

    Args:
        history: Last clicks of a user that make the history.
        temperature: Of cosines, at the start. It is learned, and never falls below 0.01.
        **options: As of :class:`~lis_lightning.align.objectives.base.Objective`.
    """

    def __init__(self, *, history: int = 20, temperature: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        if history < 1:
            raise ConfigError(f"`history` must be 1 click or more, but got {history}.")
        self.history = history
        self.temperature = Temperature(temperature)

    @property
    @override
    def preference(self) -> Preference:
        return "ids"  # what a ranker learns from the same clicks and skips

    def _users(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        """Return users as pooled histories, [B, D]."""
        places = batch["history"].reshape(len(batch["positive"]), -1)
        return pool_history(rows[places.clamp_min(0)], places >= 0)


class NextItemContrastive(_OnHistories):
    """InfoNCE between a user's pooled history and the next click; the next clicks of other users are negatives.

    The two-tower retrieval loss (Yi et al. 2019) with items for both towers, and no correction for popularity: what a
    user clicked before is no negative, nor is the same item.
    """

    @override
    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        clicks = events.positives
        histories, last = past_clicks(clicks.user, clicks.item, self.history)
        some = histories[:, 0] >= 0
        _check_some(some, "click with an earlier click of the same user", clicks)
        items = {"history": histories[some], "positive": last[some][:, None]}
        return Examples(items, hold_out(mixed(clicks.user[some], events.seed), self.held_out), extras=_known_clicks)

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        users = self._users(rows, batch)
        return info_nce(users, rows[batch["positive"]], self.temperature.value, batch["known"])


class ClickRanking(_OnHistories):
    """Bayesian personalised ranking: a click is to be nearer the user's history than a skip of about the same time."""

    @override
    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        clicks, skips = events.label == 1, np.flatnonzero(events.label == 0)
        histories, clicked = past_clicks(events.user[clicks], events.item[clicks], self.history)
        at = np.flatnonzero(clicks)
        skip = skips[np.minimum(np.searchsorted(skips, at), skips.size - 1)] if skips.size else at
        before = skips[np.maximum(np.searchsorted(skips, at) - 1, 0)] if skips.size else at
        skip = np.where(events.user[skip] == events.user[at], skip, before)
        some = (histories[:, 0] >= 0) & (events.user[skip] == events.user[at]) & (events.item[skip] != clicked)
        some &= events.label[skip] == 0
        _check_some(some, "click with an earlier click and a skip of the same user", events)
        items = {"history": histories, "positive": clicked[:, None], "negative": events.item[skip][:, None]}
        held_out = hold_out(mixed(events.user[at][some], events.seed), self.held_out)
        return Examples({name: rows[some] for name, rows in items.items()}, held_out)

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        return bpr(*self._scores(rows, batch))

    def _scores(self, rows: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the scores of clicks and skips: cosines over the temperature."""
        users = self._users(rows, batch)
        chosen, left = (
            F.cosine_similarity(users, rows[batch[role]].to(users.dtype), dim=-1) / self.temperature.value
            for role in ("positive", "negative")
        )
        return chosen, left


class ClickPreference(ClickRanking):
    """Direct preference optimisation: the click is preferred to the skip by more than under the frozen reference.

    The reference is the encoder as it is before the first step; its representations of all items are kept.

    Args:
        beta: How closely to stay with the reference; smaller departs further.
        **options: As of the classes above.
    """

    needs_reference = True
    reference: Tensor | None

    def __init__(self, *, beta: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        check_above_zero(beta=beta)
        self.beta = beta
        self.register_buffer("reference", None, persistent=False)

    @override
    def get_extra_state(self) -> dict[str, Any]:
        # A run that is resumed must not take the weights that it goes on from for the reference.
        return {"reference": self.reference}

    @override
    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.reference = state["reference"]

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        if self.reference is None:
            raise ConfigError("The reference is not known yet: it is taken when a fit starts.")
        reference = self.reference[batch["rows"]][:, : rows.shape[1]]
        return dpo(*self._scores(rows, batch), *self._scores(reference, batch), beta=self.beta)


def past_clicks(
    users: NDArray[np.int64], items: NDArray[np.int64], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the clicks before each click of the same user, latest first, [n, length], -1 where there are no more.

    Args:
        users: Sorted, then by time, [n].
        items: Row of the item of each click, [n].
        length: How many.

    Returns:
        The histories, and the items themselves.

    Example:
        >>> past_clicks(np.array([0, 0, 0, 1]), np.array([5, 6, 7, 8]), 2)[0].tolist()
        [[-1, -1], [5, -1], [6, 5], [-1, -1]]
    """
    place = np.arange(users.size)[:, None] - 1 - np.arange(length)
    inside = place >= 0
    place = np.maximum(place, 0)
    inside &= users[place] == users[:, None]
    return np.where(inside, items[place], -1), items


def _known_clicks(rows: Rows, held_out: bool) -> dict[str, Tensor]:
    """Return which next clicks are no negatives of a user: the same item, and those of the history."""
    positive, history = rows["positive"][:, 0], rows["history"]
    known = (positive[:, None] == positive) | (history[:, :, None] == positive).any(axis=1)
    return {"known": torch.from_numpy(known)}


def _check_some(some: NDArray[np.bool_], what: str, events: AlignmentEvents) -> None:
    if not some.any():
        raise LogError(
            f"The alignment window has no {what}: it holds {int((events.label == 1).sum())} clicks and "
            f"{int((events.label == 0).sum())} skips. Give it a larger share of the log."
        )
