"""Objectives on click histories: the pooled history of a user should be close to the next click."""

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
from lis_lightning.align.data.hashing import mix_bits
from lis_lightning.align.objectives.objective import Objective, Temperature
from lis_lightning.errors import ConfigError, LogError
from lis_lightning.functional.contrastive import info_nce
from lis_lightning.functional.loss_inputs import check_above_zero
from lis_lightning.functional.pairwise_losses import bpr, dpo
from lis_lightning.functional.pooling import pool_history
from lis_lightning.scoring.preferences import Preference


class _OnHistories(Objective):
    """Base of objectives on click histories.

    Args:
        history: Number of a user's last clicks in the history.
        temperature: Initial temperature of the cosines; it is learned, and stays at 0.01 or above.
        **options: As of :class:`~lis_lightning.align.objectives.Objective`.
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
        """Return the pooled history of each user, [B, D]."""
        positions = batch["history"].reshape(len(batch["positive"]), -1)
        return pool_history(rows[positions.clamp_min(0)], positions >= 0)


class NextItemContrastive(_OnHistories):
    """InfoNCE between a user's pooled history and the next click, with the next clicks of other users as negatives.

    The two-tower retrieval loss (Yi et al. 2019) with item representations in both towers, and without its correction
    for popularity. The same item, and items of the user's history, are not used as negatives.

    Args:
        **options: `history`, `temperature`, and those of :class:`~lis_lightning.align.objectives.Objective`.

    Example:
        >>> batch = {"history": torch.tensor([0, 1]), "positive": torch.tensor([0, 1]), "known": torch.eye(2).bool()}
        >>> round(NextItemContrastive(temperature=0.5).loss(torch.eye(2), batch).item(), 3)
        0.127
    """

    @override
    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        clicks = events.positives
        histories = past_clicks(clicks.user, clicks.item, self.history)
        usable = histories[:, 0] >= 0
        _check_any(usable, "click with an earlier click of the same user", clicks)
        items = {"history": histories[usable], "positive": clicks.item[usable][:, None]}
        held_out = hold_out(mix_bits(clicks.user[usable], events.seed), self.held_out)  # by user
        return Examples(items, held_out, extras=_known_clicks)

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        users = self._users(rows, batch)
        return info_nce(users, rows[batch["positive"]], self.temperature.value, batch["known"])


class ClickRanking(_OnHistories):
    """Bayesian personalised ranking (Rendle et al. 2009) of a click above a skip of about the same time.

    Args:
        **options: `history`, `temperature`, and those of :class:`~lis_lightning.align.objectives.Objective`.

    Example:
        >>> batch = {"history": torch.tensor([0]), "positive": torch.tensor([0]), "negative": torch.tensor([1])}
        >>> round(ClickRanking(temperature=0.5).loss(torch.eye(2), batch).item(), 3)
        0.127
    """

    @override
    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        clicks, skips = np.flatnonzero(events.label == 1), np.flatnonzero(events.label == 0)
        histories = past_clicks(events.user[clicks], events.item[clicks], self.history)
        skip = _nearest_skips(events, clicks, skips)
        usable = (histories[:, 0] >= 0) & (events.user[skip] == events.user[clicks])
        usable &= (events.item[skip] != events.item[clicks]) & (events.label[skip] == 0)
        _check_any(usable, "click with an earlier click and a skip of the same user", events)
        items = {
            "history": histories[usable],
            "positive": events.item[clicks[usable]][:, None],
            "negative": events.item[skip[usable]][:, None],
        }
        held_out = hold_out(mix_bits(events.user[clicks[usable]], events.seed), self.held_out)  # by user
        return Examples(items, held_out)

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        return bpr(*self._scores(rows, batch))

    def _scores(self, rows: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the scores of clicks and of skips: cosines divided by the temperature."""
        users = self._users(rows, batch)
        clicked, skipped = (
            F.cosine_similarity(users, rows[batch[role]].to(users.dtype), dim=-1) / self.temperature.value
            for role in ("positive", "negative")
        )
        return clicked, skipped


class ClickPreference(ClickRanking):
    """Direct preference optimisation (Rafailov et al. 2023) of a click over a skip.

    The click should be preferred by more than under the reference: the encoder as it was before the first step, whose
    representations of all items are stored.

    Args:
        beta: How closely to stay with the reference, above 0; a smaller value departs further.
        **options: `history`, `temperature`, and those of :class:`~lis_lightning.align.objectives.Objective`.

    Example:
        >>> objective = ClickPreference(temperature=0.5)
        >>> objective.reference = torch.eye(2)
        >>> batch = {"history": torch.tensor([0]), "positive": torch.tensor([0]), "negative": torch.tensor([1])}
        >>> round(objective.loss(torch.eye(2), batch | {"rows": torch.tensor([0, 1])}).item(), 3)  # log 2: no change
        0.693
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
        # Saved with the checkpoint: a resumed run must not take the weights that it starts from for the reference.
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


def past_clicks(users: NDArray[np.int64], items: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return the clicks before each click of the same user, latest first, [n, length]; -1 for missing ones.

    Args:
        users: User of each click, sorted, and by time for each user, [n].
        items: Row of the item of each click, [n].
        length: Number of clicks to return.

    Example:
        >>> past_clicks(np.array([0, 0, 0, 1]), np.array([5, 6, 7, 8]), 2).tolist()
        [[-1, -1], [5, -1], [6, 5], [-1, -1]]
    """
    # Position t - 1 - lag for each click t; it counts if it exists and is of the same user.
    position = np.arange(users.size)[:, None] - 1 - np.arange(length)
    exists = position >= 0
    position = np.maximum(position, 0)
    exists &= users[position] == users[:, None]
    return np.where(exists, items[position], -1)


def _nearest_skips(events: AlignmentEvents, clicks: NDArray[np.int64], skips: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the position of a skip for each click: the next one, or the one before if that is of another user.

    Args:
        events: Sorted by user, then time.
        clicks: Positions of the clicks.
        skips: Positions of the skips; without any, the clicks themselves are returned.
    """
    if not skips.size:
        return clicks
    following = np.searchsorted(skips, clicks)
    after = skips[np.minimum(following, skips.size - 1)]
    before = skips[np.maximum(following - 1, 0)]
    return np.where(events.user[after] == events.user[clicks], after, before)


def _known_clicks(rows: Rows, held_out: bool) -> dict[str, Tensor]:
    """Return the mask of next clicks that are no negatives of a user: the same item, and items of the history."""
    positive, history = rows["positive"][:, 0], rows["history"]
    mask = (positive[:, None] == positive) | (history[:, :, None] == positive).any(axis=1)
    return {"known": torch.from_numpy(mask)}


def _check_any(usable: NDArray[np.bool_], what: str, events: AlignmentEvents) -> None:
    """Raise LogError if no example is usable; the message counts clicks and skips."""
    if not usable.any():
        raise LogError(
            f"The alignment window has no {what}: it holds {int((events.label == 1).sum())} clicks and "
            f"{int((events.label == 0).sum())} skips. Give it a larger share of the log."
        )
