"""The base ranker: the ranker without the representation, against which AIS is measured.

It is either a production ranker's own logit, recalibrated, or a strong built-in one. The built-in features are counts
and rates as of each event, repeats of the target in the history, attention over ID vectors learnt on w0, and attention
over fixed random vectors. The last three stop a representation from being credited with what any ID or any structure
would bring: without them random vectors "gain" 0.005 of AUC on MovieLens.
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
    num_axes,
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
    """A split as tensors, with its fitted base ranker: computed once, used by every score on the split.

    Attributes:
        histories: Histories of all scored events.
        labels: 0 or 1, [E].
        train: Events of w1, [E].
        groups: Group of the user of each training event, for cross-validation and jackknife; -1 for test events, [E].
        design: Standardised columns of the base, the last one constant, [E, f].
        penalty: Ridge penalty of the base.
        logits: Logits of the base, [E].
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
    """Return a digest of everything in a split that a score depends on."""
    return digest(split.hash, str(split.settings["seed"]), digest_ids(split.user_ids))


def prepare(cache: SplitCache, device: torch.device | str = "cpu") -> Prepared:
    """Return a split as tensors on a device, with its base ranker fitted; computed once a split.

    Args:
        cache: The split, with the cache of its base ranker.
        device: Device of the returned tensors.
    """
    device = torch.device(device)

    def compute() -> Prepared:
        return _prepare(cache) if device == torch.device("cpu") else prepare(cache).to(device)

    def content() -> str:
        return digest("base", content_key(cache.split), str(device))

    return cache.value(("base", device), compute, content)


def _prepare(cache: SplitCache) -> Prepared:
    """Return a split as tensors on the CPU; the fitted base ranker comes from the cache if it is there."""
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
    columns = [torch.from_numpy(_counts(split)), repeat_counts(histories)]
    for vectors in (ids, ItemVectors(noise, np.ones(split.num_items, bool))):
        cosines = history_cosines(item_coordinates(vectors, split.num_items), histories)
        columns.append(attention_features(cosines, histories, train))
    return torch.cat(columns, dim=1)


def _counts(split: PreferenceSplit) -> NDArray[np.float64]:
    """Return counts and rates of item and user before each event, [E, 8]."""
    item, user = split.events.by_item, split.events.by_user
    item_rate, user_rate = item.rate(split.prior), user.rate(split.prior)
    item_logit, user_logit = (np.log(rate / (1 - rate)) for rate in (item_rate, user_rate))
    item_count, user_count = np.log1p(item.count), np.log1p(user.count)
    columns = (item_count, item_logit, user_logit, user_count, item_count * item_logit, user_count * user_logit)
    return np.stack([*columns, item.count == 0, user.count == 0], axis=1).astype(np.float64)


def item_coordinates(vectors: ItemVectors, num_items: int, axes: PrincipalAxes | None = None) -> ItemCoordinates:
    """Return principal coordinates of the first `num_items` vectors, in single precision.

    Args:
        vectors: Item vectors, [at least num_items, dim].
        num_items: Number of rows to use.
        axes: Principal axes to project on; None fits them to these vectors.
    """
    rows, present = torch.from_numpy(vectors.vectors[:num_items]).float(), torch.from_numpy(vectors.present[:num_items])
    k = min(rows.shape[1], num_axes(num_items))
    return principal_coordinates(rows, k=k, axes=axes, present=present)


def standardise(columns: Tensor, train: Tensor) -> Tensor:
    """Return columns with zero mean and unit variance over the training events; constant columns become zero."""
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
class ItemLookup:
    """Item vectors looked up at every event, before any label: one pass over a representation, shared by all tasks.

    Attributes:
        histories: The events, whose items are rows of `profile`. Their labels are not used.
        profile: Profile coordinates, [N, k].
        cosines: Cosine of each event's target to each item of its history, [E, L]; NaN where there is none.
        log_norm: Logarithm of the length of each item's vector, [N, 1]; [N, 0] if each group of users has its own.
    """

    histories: Histories
    profile: Tensor
    cosines: Tensor
    log_norm: Tensor


def look_up_items(histories: Histories, items: Sequence[ItemCoordinates], group: Tensor | None = None) -> ItemLookup:
    """Look up item vectors at the target and the history of every event; labels are not used.

    Args:
        histories: The events, of any task.
        items: Principal coordinates of item vectors; several matrices of one space if each group of users has its own.
        group: Index of the matrix for each event, [E], the same for all events of a user; None if there is only one.

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
        >>> look_up_items(histories, [principal_coordinates(torch.eye(4))]).profile.shape
        torch.Size([4, 64])
    """
    table, log_norm = items[0], items[0].log_norm
    if group is not None:
        table, histories = concatenate_items(items), histories.regroup(group, table.profile.shape[0])
        # The length of a vector built without a fold of users tells how much of the item's data lies in that fold,
        # and so how likely the fold's users are to have clicked on it.
        log_norm = table.profile.new_zeros(table.profile.shape[0], 0)
    return ItemLookup(histories, table.profile, history_cosines(table, histories), log_norm)


def probe_inputs(prepared: Prepared, lookup: ItemLookup, rates: Tensor | None = None) -> ProbeInputs:
    """Return the probe's features of item vectors for one task.

    Args:
        prepared: The split, with the labels of the task.
        lookup: Item vectors at its events.
        rates: Further columns, [E, r]; None adds none.

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
        >>> probe_inputs(prepared, look_up_items(prepared.histories, [items])).attention.shape
        torch.Size([20, 4])
    """
    task = prepared.histories
    histories = replace(lookup.histories, label=task.label, user_rate=task.user_rate)
    return ProbeInputs(
        profile=user_profiles(lookup.profile, histories),
        target=lookup.profile.index_select(0, histories.target),
        attention=attention_features(lookup.cosines, histories, prepared.train),
        log_norm=lookup.log_norm.index_select(0, histories.target),
        rates=prepared.logits.new_zeros(prepared.logits.numel(), 0) if rates is None else rates,
    )
