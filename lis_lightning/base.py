"""The ranker without the representation: what AIS is measured against.

Either a production ranker's own logit, recalibrated, or a strong built-in one: counts and rates as of each event,
repeats of the target in the history, the similarity of ID vectors learnt on w0, and the same features of fixed random
vectors. The last three keep a representation from being paid for what any ID or any structure would bring: without
them random vectors "gain" .005 of AUC on MovieLens.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.functional.features import (
    Histories,
    ItemCoordinates,
    attention,
    fit_axes,
    history_cosines,
    profiles,
    project,
    repeats,
)
from lis_lightning.functional.leak import ItemVectors, id_vectors
from lis_lightning.functional.probe import ProbeInputs, fit_logistic
from lis_lightning.split import PreferenceSplit

BASE_PENALTY = 10.0
RANDOM_DIMS = 64
CV_FOLDS = 4


@dataclass(frozen=True, eq=False)
class Prepared:
    """A split as tensors, with its base: computed once, used by every score on the split.

    Attributes:
        histories: Histories of all scored events.
        labels: 0 or 1, [E].
        train: Events of w1, [E].
        folds: Fold of the user for the probe's cross-validation; -1 for test events, [E].
        design: Standardised columns of the base, the last one constant, [E, f].
        penalty: Ridge of the base.
        logits: The base, [E].
    """

    histories: Histories
    labels: Tensor
    train: Tensor
    folds: Tensor
    design: Tensor
    penalty: float
    logits: Tensor

    def refit(self, flag: Tensor) -> Tensor:
        """Return the logits of the base with one more column, as both arms of a ceiling use it."""
        design = torch.cat([standardise(flag.double()[:, None], self.train), self.design], dim=1)
        return design @ fit_logistic(design[self.train], self.labels[self.train], penalty=self.penalty)


_prepared: weakref.WeakKeyDictionary[PreferenceSplit, Prepared] = weakref.WeakKeyDictionary()


def prepare(split: PreferenceSplit) -> Prepared:
    """Return the split as tensors with its base fitted; kept as long as the split lives."""
    if split not in _prepared:
        _prepared[split] = _prepare(split)
    return _prepared[split]


def _prepare(split: PreferenceSplit) -> Prepared:
    events = split.events
    train = torch.from_numpy(events.train)
    histories = Histories(
        item=torch.from_numpy(split.history_item),
        label=torch.from_numpy(split.history_label).double(),
        start=torch.from_numpy(events.start),
        stop=torch.from_numpy(events.stop),
        target=torch.from_numpy(events.item),
        user_rate=torch.from_numpy(events.by_user.rate(split.prior)),
        length=max(1, int((events.stop - events.start).max(initial=0))),
    )
    folds = torch.from_numpy(np.where(events.train, user_folds(split, CV_FOLDS)[events.user], -1))
    labels = torch.from_numpy(events.label).double()
    if events.base_logit is not None:
        columns, penalty = torch.from_numpy(events.base_logit)[:, None], 0.0
    else:
        columns, penalty = _built_in(split, histories, train), BASE_PENALTY
    constant = torch.ones(len(events), 1, dtype=torch.float64)
    design = torch.cat([standardise(columns, train), constant], dim=1)
    logits = design @ fit_logistic(design[train], labels[train], penalty=penalty)
    return Prepared(histories, labels, train, folds, design, penalty, logits)


def _built_in(split: PreferenceSplit, histories: Histories, train: Tensor) -> Tensor:
    """Return the columns of the built-in base, [E, 18]."""
    log, alignment = split.log, split.log.window == 0
    ids = id_vectors(log.user[alignment], log.item[alignment], log.label[alignment].astype(np.float64), log.num_items)
    noise = np.random.default_rng(split.settings["seed"]).standard_normal((split.num_items, RANDOM_DIMS))
    everywhere = ItemVectors(noise, np.ones(split.num_items, bool))
    return torch.cat(
        [
            torch.from_numpy(_counts(split)),
            repeats(histories),
            *(
                attention(history_cosines(coordinates(vectors, split.num_items), histories), histories, train)
                for vectors in (ids, everywhere)
            ),
        ],
        dim=1,
    )


def _counts(split: PreferenceSplit) -> NDArray[np.float64]:
    """Return counts and rates of item and user before each event, [E, 8]."""
    item, user = split.events.by_item, split.events.by_user
    item_rate, user_rate = item.rate(split.prior), user.rate(split.prior)
    item_logit, user_logit = (np.log(rate / (1 - rate)) for rate in (item_rate, user_rate))
    item_count, user_count = np.log1p(item.count), np.log1p(user.count)
    columns = (item_count, item_logit, user_logit, user_count, item_count * item_logit, user_count * user_logit)
    return np.stack([*columns, item.count == 0, user.count == 0], axis=1).astype(np.float64)


def coordinates(vectors: ItemVectors, num_items: int) -> ItemCoordinates:
    """Return the first `num_items` vectors in their own frame."""
    rows, present = torch.from_numpy(vectors.vectors[:num_items]), torch.from_numpy(vectors.present[:num_items])
    return project(rows, fit_axes(rows, present=present), present)


def standardise(columns: Tensor, train: Tensor) -> Tensor:
    """Return columns at zero mean and unit spread over the training events; constant ones become zero."""
    columns = columns.double()
    mean, spread = columns[train].mean(0), columns[train].std(0, correction=0)
    return torch.where(spread > 1e-12, (columns - mean) / spread.clamp_min(1e-300), 0.0)


def user_folds(split: PreferenceSplit, num_folds: int) -> NDArray[np.int64]:
    """Return the fold of each scored user as an array, [num_users]."""
    return split.user_folds(num_folds)["fold"].to_numpy()


def probe_inputs(prepared: Prepared, items: list[ItemCoordinates], group: Tensor | None = None) -> ProbeInputs:
    """Return what the probe sees of item vectors.

    Args:
        prepared: The split.
        items: Item vectors; several matrices of one space where each group of events has its own.
        group: Which matrix each event reads, [E]; None means the only one.
    """
    num_events, k = prepared.labels.numel(), items[0].profile.shape[1]
    profile = prepared.labels.new_zeros(num_events, k)
    target = prepared.labels.new_zeros(num_events, k)
    cosines = prepared.labels.new_zeros(num_events, prepared.histories.length)
    for index, item in enumerate(items):
        rows = torch.arange(num_events) if group is None else (group == index).nonzero()[:, 0]
        histories = prepared.histories.select(rows)
        profile[rows] = profiles(item.profile, histories)
        target[rows] = item.profile[histories.target]
        cosines[rows] = history_cosines(item, histories)
    return ProbeInputs(profile, target, attention(cosines, prepared.histories, prepared.train))
