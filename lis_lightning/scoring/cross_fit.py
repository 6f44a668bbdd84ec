"""Preference data as item vectors that do not hold the events they are scored on: the cross-fit by user."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse

from lis_lightning.data.events import Log
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, LisWarning, ShapeError
from lis_lightning.functional.alternating_least_squares import id_vectors
from lis_lightning.functional.item_coordinates import principal_coordinates
from lis_lightning.functional.item_vectors import ItemVectors, complete_vectors, rotate_onto
from lis_lightning.functional.pointwise_mutual_information import cooccurrence_vectors, pair_vectors
from lis_lightning.scoring.preference import (
    NUM_FOLDS,
    Builder,
    Completed,
    IdEmbeddings,
    Pairs,
    PairTable,
    Preference,
    check_preference,
    checked_ids,
    checked_matrix,
    describe_builder,
)

MIN_KNOWN = 0.01  # share of ids; below it they are those of another system
CONTENT_DIMS = 64  # principal axes of the content that complete preference data
_MEAN_ROUNDS = 3

Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Leak:
    """Preference data as item vectors, rows as ``split.log_item_ids``.

    Attributes:
        reference: Vectors of all users' events.
        folds: Vectors built without each fold's users, rotated onto the reference; the reference alone where nothing
            of the scored users is inside.
    """

    reference: ItemVectors
    folds: list[ItemVectors]


@dataclass(frozen=True)
class Source:
    """Preference data matched with a split, ready to be built.

    Attributes:
        cross_fitted: Whether vectors are built without the users that they are scored on.
        future: Builds from all events.
        past: Builds from the events before w2; None where events have no time.
    """

    cross_fitted: bool
    future: Callable[[], Leak]
    past: Callable[[], Leak] | None


def source(split: PreferenceSplit, preference: Preference) -> Source:
    """Match preference data with a split.

    Args:
        split: The split.
        preference: See :data:`lis_lightning.scoring.preference.Preference`.

    Raises:
        ConfigError: If the preference data does not exist, or does not go with the split.

    Warns:
        LisWarning: If items are unknown to the split, or a claim looks doubtful.
    """
    check_preference(preference)
    if isinstance(preference, PairTable):
        return _of_table(split, preference)
    if isinstance(preference, IdEmbeddings):
        return _of_embeddings(split, preference)
    if isinstance(preference, Completed):
        return _completed(split, preference)
    log = split.log
    fold = np.full(log.num_users, -1)
    fold[: split.num_users] = split.user_folds(NUM_FOLDS)["fold"].to_numpy()
    build = _log_builder(log, preference) if isinstance(preference, str) else _called(split, preference)
    return Source(
        cross_fitted=True,
        future=lambda: cross_fit(build, np.ones(log.user.size, bool), fold[log.user]),
        past=lambda: cross_fit(build, log.window < 2, fold[log.user]),
    )


def cross_fit(
    build: Callable[[Rows], ItemVectors], rows: Rows, fold: NDArray[np.int64] | None, num_folds: int = NUM_FOLDS
) -> Leak:
    """Build vectors from some rows, leaving out each fold's users in turn.

    Args:
        build: Makes vectors from a choice of rows.
        rows: The rows to use.
        fold: Fold of each row's user, -1 for users that are never left out; None builds once.
        num_folds: Number of folds of ``split.user_folds(num_folds)``.
    """
    reference = build(rows)
    if fold is None:
        return Leak(reference, [reference])
    return Leak(reference, [rotate_onto(build(rows & (fold != held)), reference) for held in range(num_folds)])


def build_pairs(log: Log, rows: Rows) -> ItemVectors:
    """Return vectors of item-to-item co-engagement from the positives among some rows of the log."""
    rows = rows & (log.label == 1)
    return pair_vectors(log.user[rows], log.item[rows], log.num_items)


def build_ids(log: Log, rows: Rows) -> ItemVectors:
    """Return ID embeddings of a ranker trained on some rows of the log."""
    return id_vectors(log.user[rows], log.item[rows], log.label[rows].astype(np.float64), log.num_items)


BUILDERS: dict[str, Callable[[Log, Rows], ItemVectors]] = {"pairs": build_pairs, "ids": build_ids}


def _log_builder(log: Log, kind: str) -> Callable[[Rows], ItemVectors]:
    return lambda rows: BUILDERS[kind](log, rows)


def _called(split: PreferenceSplit, build: Builder) -> Callable[[Rows], ItemVectors]:
    """Return a builder that hands events to a callable, and checks what comes back."""
    log, name = split.log, describe_builder(build)
    events = pl.DataFrame(
        {
            "user": split.log_user_ids[log.user],
            "item": split.log_item_ids[log.item],
            "time": log.time,
            "label": log.label,
        }
    )
    widths: list[int] = []

    def called(rows: Rows) -> ItemVectors:
        ids, matrix = _returned(build(events.filter(rows)), name)
        if widths and matrix.shape[1] != widths[0]:
            raise ShapeError(f"Expected vectors of width {widths[0]} from {name}, as before, got {matrix.shape[1]}.")
        found = _vectors(split, ids, matrix, f"the vectors of {name}", tell=not widths)
        widths.append(matrix.shape[1])
        return found

    return called


def _returned(given: Any, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ids and vectors from what a callable returned."""
    what = f"the vectors of {name}"
    if isinstance(given, Mapping):
        rows = [np.asarray(row) for row in given.values()]
        shapes = sorted({row.shape for row in rows})
        if len(shapes) != 1 or len(shapes[0]) != 1:
            raise ShapeError(f"Expected {what} to be one vector an item, all of one width, got shapes {shapes[:5]}.")
        ids = checked_ids(list(given), what)
        return ids, checked_matrix(np.stack(rows), ids, what)
    if isinstance(given, tuple) and len(given) == 2:
        ids = checked_ids(given[0], what)
        return ids, checked_matrix(given[1], ids, what)
    raise ConfigError(
        f"Expected {name} to return a mapping of item ids to vectors, or (item ids, matrix), got "
        f"{type(given).__name__}."
    )


def _of_embeddings(split: PreferenceSplit, given: IdEmbeddings) -> Source:
    """Match embeddings with the split."""
    folds = [
        _vectors(split, given.ids, matrix, "ID embeddings", tell=index == 0)
        for index, matrix in enumerate(given.matrices)
    ]
    cross_fitted = len(folds) > 1
    return Source(cross_fitted, lambda: tied(folds) if cross_fitted else Leak(folds[0], folds), None)


def tied(folds: list[ItemVectors]) -> Leak:
    """Rotate the spaces of folds onto their mean (generalised Procrustes, Gower 1975), from the first fold on.

    The mean is over the folds that have the item. It does not depend on the order of the folds but by the rotation of
    all of them, which the probe does not see.
    """
    reference = folds[0]
    for _ in range(_MEAN_ROUNDS):
        folds = [rotate_onto(fold, reference) for fold in folds]
        count = np.sum([fold.present for fold in folds], axis=0)
        total = np.sum([fold.vectors for fold in folds], axis=0)
        reference = ItemVectors(total / np.maximum(count, 1)[:, None], count > 0)
    return Leak(reference, [rotate_onto(fold, reference) for fold in folds])


def _completed(split: PreferenceSplit, given: Completed) -> Source:
    """Match preference data and the content that completes it with the split."""
    inner, log = source(split, given.preference), split.log
    raw = _vectors(split, given.ids, given.matrix, "the content", tell=True)
    axes = principal_coordinates(torch.from_numpy(raw.vectors), k=CONTENT_DIMS, present=torch.from_numpy(raw.present))
    content = ItemVectors(axes.profile.double().numpy(), raw.present)
    fold = np.full(log.num_users, -1)
    fold[: split.num_users] = split.user_folds(NUM_FOLDS)["fold"].to_numpy()

    def completed(leak: Leak, rows: Rows) -> Leak:
        def fill(vectors: ItemVectors, rows: Rows) -> ItemVectors:
            return complete_vectors(vectors, np.bincount(log.item[rows], minlength=log.num_items), content)

        positive = rows & (log.label == 1)
        if not inner.cross_fitted:  # counts of the scored events would bring back the labels that the data leaves out
            reference = fill(leak.reference, positive & (log.window == 0))
            return Leak(reference, [reference])
        folds = [fill(part, positive & (fold[log.user] != held)) for held, part in enumerate(leak.folds)]
        return Leak(fill(leak.reference, positive), folds)

    built_past = inner.past
    return Source(
        inner.cross_fitted,
        lambda: completed(inner.future(), np.ones(log.user.size, bool)),
        None if built_past is None else lambda: completed(built_past(), log.window < 2),
    )


def _of_table(split: PreferenceSplit, given: PairTable) -> Source:
    """Match a table of pairs with the split."""
    pairs = given.pairs
    item = known_items(split, pairs.item_ids, f"column {given.item!r} of the pair table")[pairs.item]
    other = known_items(split, pairs.other_ids, f"column {given.other!r} of the pair table")[pairs.other]
    usable = (item >= 0) & (other >= 0) & (item != other)
    if not usable.any():
        raise ConfigError(f"None of the {usable.size} rows of the pair table pairs two different items of the log.")
    fold = _folds_of_rows(split, given, pairs)
    past = None
    if pairs.time is not None:
        usable &= _until_the_end(split, given, pairs, pairs.time)
        past = usable & (pairs.time < split.log.time[split.log.window == 2].min())

    def leak(rows: Rows) -> Leak:
        weight = _weights(pairs, item, other, rows)
        return cross_fit(lambda kept: _pair_vectors(item, other, weight, kept, split.log.num_items), rows, fold)

    return Source(fold is not None, lambda: leak(usable), None if past is None else lambda: leak(past))


def _folds_of_rows(split: PreferenceSplit, given: PairTable, pairs: Pairs) -> NDArray[np.int64] | None:
    """Return the fold of each row's user, -1 for users that are not scored; None where no user is to be left out."""
    if pairs.user_ids is None or pairs.user is None:
        return None
    at = _positions(pairs.user_ids, split.user_ids)
    found = int((at >= 0).sum())
    if found:
        if found < MIN_KNOWN * split.num_users:
            _warn(
                f"Only {found} of the {split.num_users} scored users stand in column {given.user!r} of the pair table; "
                "if the others do under other ids, their own events leak."
            )
        fold = split.user_folds(NUM_FOLDS)["fold"].to_numpy()
        return np.where(at >= 0, fold[at], -1)[pairs.user]
    if given.holds_no_evaluation_events:
        return None
    raise ConfigError(
        f"None of the {split.num_users} scored users stands in column {given.user!r} of the pair table: it has ids "
        f"such as {_shown(pairs.user_ids)}, the log such as {_shown(split.user_ids)}. Use the ids of the log, or the "
        "users' own events leak; if all rows come from other users, say `holds_no_evaluation_events=True`."
    )


def _until_the_end(split: PreferenceSplit, given: PairTable, pairs: Pairs, time: NDArray[Any]) -> Rows:
    """Return the rows up to the last event of w2, after checks of unit and claim."""
    unit = split.settings["units_per_day"]
    if pairs.units_per_day != unit:
        raise ConfigError(
            f"Times of the pair table (column {given.time!r}, {time.min()} to {time.max()}) are not in the unit of the "
            f"log's ({split.log.time.min()} to {split.log.time.max()}); bring both to one unit."
        )
    begin = split.log.time[split.log.window > 0].min()
    inside = int((time >= begin).sum())
    if given.user is None and inside:
        _warn(
            f"{inside} of {time.size} rows of the pair table lie in w1 or w2 (at {begin} or later). That none of them "
            "comes from a scored user's events rests on `holds_no_evaluation_events=True` alone."
        )
    return np.asarray(time <= split.log.time.max())


def _weights(pairs: Pairs, item: NDArray[np.int64], other: NDArray[np.int64], rows: Rows) -> NDArray[np.float64]:
    """Return the weight of each row: as given, else by the number of items that the row's user has among `rows`."""
    if pairs.weight is not None:
        return pairs.weight
    weight = np.ones(item.size)
    if pairs.user is not None:
        user = np.r_[pairs.user[rows], pairs.user[rows]]
        distinct = sparse.csr_matrix((np.ones(user.size), (user, np.r_[item[rows], other[rows]])))
        weight[rows] = distinct.getnnz(axis=1)[pairs.user[rows]] ** -0.5
    return weight


def _pair_vectors(
    item: NDArray[np.int64], other: NDArray[np.int64], weight: NDArray[np.float64], rows: Rows, num_items: int
) -> ItemVectors:
    rows = rows & (weight > 0)
    first, second, value = item[rows], other[rows], weight[rows]
    together = sparse.csr_matrix((value, (first, second)), shape=(num_items, num_items))
    return cooccurrence_vectors(sparse.csr_matrix(together + together.T))


def _vectors(split: PreferenceSplit, ids: NDArray[Any], matrix: NDArray[Any], what: str, *, tell: bool) -> ItemVectors:
    """Return vectors in the order of the log's items; items without one, or with one of zeros, are absent."""
    rows = known_items(split, ids, what, tell=tell)
    vectors = np.zeros((split.log.num_items, matrix.shape[1]))
    vectors[rows[rows >= 0]] = matrix[rows >= 0]
    return ItemVectors(vectors, (vectors != 0).any(axis=1))


def known_items(split: PreferenceSplit, ids: NDArray[Any], what: str, *, tell: bool = True) -> NDArray[np.int64]:
    """Return the index of each id in ``split.log_item_ids``, -1 for items that the log does not have.

    Args:
        split: The split.
        ids: Distinct ids.
        what: What they come from, for messages.
        tell: Whether to warn of unknown items.

    Raises:
        ConfigError: If hardly any is known: fewer than 1 % of the ids or of the split's items, whichever are fewer.
    """
    at = _positions(ids, split.log_item_ids)
    unknown = ids[at < 0]
    known = ids.size - unknown.size
    if known < MIN_KNOWN * min(ids.size, split.num_items) or not known:
        numeric = [array.dtype.kind in "iu" for array in (ids, split.log_item_ids)]
        kinds = ["integers" if integer else "text" for integer in numeric]
        hint = f" ({kinds[0]} here, {kinds[1]} in the log: convert them)" if numeric[0] != numeric[1] else ""
        raise ConfigError(
            f"Only {known} of {ids.size} item ids of {what} are known to the log: they are such as {_shown(unknown)}, "
            f"the log's such as {_shown(split.log_item_ids)}{hint}. Use the item ids of the interaction log."
        )
    if unknown.size and tell:
        _warn(
            f"{unknown.size} of {ids.size} items of {what} are not in the log and are left out, such as "
            f"{_shown(unknown)}."
        )
    return at


def _positions(ids: NDArray[Any], among: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each id stands in `among`, -1 where it does not."""
    if (ids.dtype.kind in "iu") != (among.dtype.kind in "iu"):
        return np.full(ids.size, -1)
    wanted = ids.astype(among.dtype)
    order = np.argsort(among)
    at = order[np.minimum(np.searchsorted(among[order], wanted), among.size - 1)]
    return np.where((among[at] == wanted) & (wanted == ids), at, -1)  # a cast may have wrapped an id


def _shown(ids: NDArray[Any]) -> str:
    return ", ".join(map(repr, ids[:5].tolist()))


def _warn(message: str) -> None:
    warnings.warn(message, LisWarning, stacklevel=2)
