"""The ranker without the representation: what AIS is measured against.

Either a production ranker's own logit, recalibrated, or a strong built-in one: counts and rates as of each event,
repeats of the target in the history, the similarity of ID vectors learnt on w0, and the same features of fixed random
vectors. The last three keep a representation from being paid for what any ID or any structure would bring: without
them random vectors "gain" .005 of AUC on MovieLens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.data.digest import digest, digest_ids
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.functional.alternating_least_squares import id_vectors
from lis_lightning.functional.histories import Histories, repeat_counts, user_profiles
from lis_lightning.functional.item_coordinates import (
    ItemCoordinates,
    PrincipalAxes,
    concatenate_items,
    principal_coordinates,
)
from lis_lightning.functional.item_vectors import ItemVectors
from lis_lightning.functional.logistic_regression import fit_logistic
from lis_lightning.functional.probe import NUM_GROUPS, ProbeInputs
from lis_lightning.functional.target_attention import attention_features, history_cosines
from lis_lightning.scoring.cache import Arrays, SplitCache

BASE_PENALTY = 10.0
RANDOM_DIMS = 64


@dataclass(frozen=True, eq=False)
class Prepared:
    """A split as tensors, with its base: computed once, used by every score on the split.

    Attributes:
        histories: Histories of all scored events.
        labels: 0 or 1, [E].
        train: Events of w1, [E].
        groups: Group of the user of each training event, for cross-validation and jackknife; -1 for test events, [E].
        design: Standardised columns of the base, the last one constant, [E, f].
        penalty: Ridge of the base.
        logits: The base, [E].
    """

    histories: Histories
    labels: Tensor
    train: Tensor
    groups: Tensor
    design: Tensor
    penalty: float
    logits: Tensor

    def to(self, device: torch.device) -> Prepared:
        """Return the same on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved, histories=self.histories.to(device))

    def refit(self, flag: Tensor) -> Tensor:
        """Return the logits of the base with one more column, as both arms of a ceiling use it."""
        design = torch.cat([standardise(flag.double()[:, None], self.train), self.design], dim=1)
        return design @ fit_logistic(design[self.train], self.labels[self.train], penalty=self.penalty)


def content_key(split: PreferenceSplit) -> str:
    """Return a digest of all in a split that any score depends on."""
    return digest(split.hash, str(split.settings["seed"]), digest_ids(split.user_ids))


def prepare(cache: SplitCache, device: torch.device | str = "cpu") -> Prepared:
    """Return a split as tensors on a device, with its base ranker fitted; computed once a split.

    Args:
        cache: The split, and where its base ranker is kept.
        device: Where the tensors are to be.
    """
    device = torch.device(device)

    def compute() -> Prepared:
        return _prepare(cache) if device == torch.device("cpu") else prepare(cache).to(device)

    def content() -> str:
        return digest("base", content_key(cache.split), str(device))

    return cache.value(("base", device), compute, content)


def _prepare(cache: SplitCache) -> Prepared:
    split = cache.split
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
    groups = torch.from_numpy(np.where(events.train, user_folds(split, NUM_GROUPS)[events.user], -1))
    labels = torch.from_numpy(events.label).double()
    penalty = BASE_PENALTY if events.base_logit is None else 0.0

    def fit() -> Arrays:
        if events.base_logit is None:
            columns = _built_in(split, histories, train)
        else:
            columns = torch.from_numpy(events.base_logit)[:, None]
        design = torch.cat([standardise(columns, train), torch.ones(len(events), 1, dtype=torch.float64)], dim=1)
        logits = design @ fit_logistic(design[train], labels[train], penalty=penalty)
        return {"design": design.numpy(), "logits": logits.numpy()}

    fitted = cache.arrays(digest("base", content_key(split)), fit, about=f"base of split {split.hash}")
    design, logits = (torch.from_numpy(fitted[name]) for name in ("design", "logits"))
    return Prepared(histories, labels, train, groups, design, penalty, logits)


def _built_in(split: PreferenceSplit, histories: Histories, train: Tensor) -> Tensor:
    """Return the columns of the built-in base, [E, 18]."""
    log, alignment = split.log, split.log.window == 0
    ids = id_vectors(log.user[alignment], log.item[alignment], log.label[alignment].astype(np.float64), log.num_items)
    noise = np.random.default_rng(split.settings["seed"]).standard_normal((split.num_items, RANDOM_DIMS))
    everywhere = ItemVectors(noise, np.ones(split.num_items, bool))
    return torch.cat(
        [
            torch.from_numpy(_counts(split)),
            repeat_counts(histories),
            *(
                attention_features(history_cosines(place_items(vectors, split.num_items), histories), histories, train)
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


def place_items(vectors: ItemVectors, num_items: int, axes: PrincipalAxes | None = None) -> ItemCoordinates:
    """Return the first `num_items` vectors in their own frame, or in that of another matrix, in single precision."""
    rows, present = torch.from_numpy(vectors.vectors[:num_items]).float(), torch.from_numpy(vectors.present[:num_items])
    return principal_coordinates(rows, axes=axes, present=present)


def standardise(columns: Tensor, train: Tensor) -> Tensor:
    """Return columns at zero mean and unit spread over the training events; constant ones become zero."""
    columns = columns.double()
    mean, spread = columns[train].mean(0), columns[train].std(0, correction=0)
    return torch.where(spread > 1e-12, (columns - mean) / spread.clamp_min(1e-300), 0.0)


def user_folds(split: PreferenceSplit, num_folds: int) -> NDArray[np.int64]:
    """Return the fold of each scored user as an array.

    Args:
        split: The split.
        num_folds: Number of folds.

    Returns:
        Fold numbers from 0, [num_users], rows as ``split.user_ids``.

    Example:
        >>> import polars as pl
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> split = PreferenceSplit.from_log(log)
        >>> user_folds(split, num_folds=2)
        array([0, 1])
    """
    return split.user_folds(num_folds)["fold"].to_numpy()


@dataclass(frozen=True)
class Reading:
    """What events see of item vectors before any label: the one pass over a representation, shared by all tasks.

    Attributes:
        histories: The events, whose items are rows of `profile`; labels are those of one task.
        profile: Profile coordinates, [N, k].
        cosines: Cosine of each event's target to each item of its history, [E, L]; NaN where there is none.
    """

    histories: Histories
    profile: Tensor
    cosines: Tensor


def read_items(histories: Histories, items: Sequence[ItemCoordinates], group: Tensor | None = None) -> Reading:
    """Read item vectors at every event; labels do not enter.

    Args:
        histories: The events, of any task.
        items: Item vectors in their frame; several matrices of one space where each group of users has its own.
        group: Which matrix each event reads, [E], the same for all events of a user; None means the only one.

    Returns:
        Profile coordinates and cosines, before any label.

    Example:
        >>> import polars as pl, torch
        >>> from lis_lightning.functional.item_coordinates import principal_coordinates
        >>> from lis_lightning.scoring import Scorer
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> split = PreferenceSplit.from_log(log)
        >>> histories = Scorer(split, cache_dir="off").base_ranker.histories
        >>> read_items(histories, [principal_coordinates(torch.eye(4))]).profile.shape
        torch.Size([4, 16])
    """
    known = items[0]
    if group is not None:
        known, histories = concatenate_items(items), histories.regroup(group, known.profile.shape[0])
    return Reading(histories, known.profile, history_cosines(known, histories))


def probe_inputs(prepared: Prepared, reading: Reading) -> ProbeInputs:
    """Return what the probe of one task sees of item vectors.

    Args:
        prepared: The split, with the labels of the task.
        reading: Item vectors as its events read them.

    Returns:
        The features of all events.

    Example:
        >>> import polars as pl, torch
        >>> from lis_lightning.functional.item_coordinates import principal_coordinates
        >>> from lis_lightning.scoring import Scorer
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> split = PreferenceSplit.from_log(log)
        >>> prepared = Scorer(split, cache_dir="off").base_ranker
        >>> items = principal_coordinates(torch.eye(4))
        >>> probe_inputs(prepared, read_items(prepared.histories, [items])).attention.shape
        torch.Size([20, 4])
    """
    own = prepared.histories
    histories = replace(reading.histories, label=own.label, user_rate=own.user_rate)
    return ProbeInputs(
        profile=user_profiles(reading.profile, histories),
        target=reading.profile.index_select(0, histories.target),
        attention=attention_features(reading.cosines, histories, prepared.train),
    )
