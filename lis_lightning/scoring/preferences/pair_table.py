"""A table of item pairs as preference data."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from typing_extensions import override

from lis_lightning.data import tables
from lis_lightning.data.digest import digest, digest_ids
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.data.times import Time, time_column, timestamps
from lis_lightning.errors import ConfigError, LogError
from lis_lightning.functional.item_vectors import ItemVectors
from lis_lightning.functional.pointwise_mutual_information import cooccurrence_vectors
from lis_lightning.scoring.preferences.cross_fit import leave_users_out
from lis_lightning.scoring.preferences.item_ids import MIN_KNOWN, log_positions, positions, shown, warn_user
from lis_lightning.scoring.preferences.preference_data import (
    NO_EVALUATION_EVENTS,
    NUM_FOLDS,
    CrossFittedVectors,
    MatchedPreference,
    PreferenceData,
    Rows,
)


@dataclass(frozen=True, eq=False)
class PairTable(PreferenceData):
    """A table of item pairs that belong together: co-clicks, co-purchases, an editor's choice.

    Pairs have no direction. The weights of repeated pairs are summed, and pairs of an item with itself are ignored.
    Vectors are made as for ``"pairs"``: weighted co-occurrence, positive pointwise mutual information, truncated SVD.

    Args:
        table: Parquet or CSV path or glob, or a polars, pandas or pyarrow table; read at once.
        item: Column of item ids, as in the interaction log.
        other: Column of the items they are paired with.
        user: Column of the users that the pairs come from, ids as in the interaction log. With it the ceiling is
            cross-fitted: each fold of users is scored on vectors built without its own rows.
        weight: Column of non-negative weights. If None, the weight of a row is 1 without `user`, and with it the number
            of items of its user to the power -1/2, as for ``"pairs"``.
        time: Column of timestamps, in the unit of the log's. With it, rows after the last scored event are left out,
            and the ceiling is also estimated without w2 (``past``).
        holds_no_evaluation_events: States that no row comes from an event of w1 or w2 of a scored user. Required
            without `user`; results then report that the ceiling is not cross-fitted.

    Raises:
        ConfigError: If there is neither `user` nor that statement.
        LogError: If the table cannot be read, lacks a column, or ids, weights or times are missing or malformed.

    Example:
        >>> import polars as pl
        >>> PairTable(pl.DataFrame({"item_a": [1, 1], "item_b": [2, 3], "user_id": [7, 8]}), user="user_id").num_rows
        2
    """

    table: Any = field(repr=False)
    item: str = "item_a"
    other: str = "item_b"
    user: str | None = None
    weight: str | None = None
    time: Time | None = None
    holds_no_evaluation_events: bool = False

    def __post_init__(self) -> None:
        if self.item == self.other:
            raise ConfigError(f"Expected two columns of items in a pair table, got {self.item!r} for both.")
        if self.user is None and not self.holds_no_evaluation_events:
            raise ConfigError(
                "A pair table without `user` cannot be cross-fitted: rows of the scored users' own events would carry "
                "their labels, and such leaks score 3 to 10 times the true ceiling. Name the column of users, or, if "
                f"no row comes from a scored user's events in w1 or w2, set {NO_EVALUATION_EVENTS}."
            )
        _ = self.pairs

    @property
    def num_rows(self) -> int:
        """Number of rows of the table."""
        return int(self.pairs.item.size)

    @cached_property
    def pairs(self) -> Pairs:
        """The validated table as arrays."""
        time_name = None if self.time is None else time_column(self.time)
        columns = (self.item, self.other, self.user, self.weight, time_name)
        named = [name for name in columns if name is not None]
        table = tables.read_table(self.table, "pair table", named, ids=[self.item, self.other, self.user or self.item])
        if not table.height:
            raise LogError("The pair table has no rows.")
        item_ids, item = tables.id_codes(table, self.item)
        other_ids, other = tables.id_codes(table, self.other)
        user_ids, user = (None, None) if self.user is None else tables.id_codes(table, self.user)
        weight = None if self.weight is None else tables.event_weights(table, self.weight)
        time, units_per_day = (None, None) if self.time is None else timestamps(table, self.time)
        if weight is not None and not weight.any():
            raise LogError(f"All {weight.size} weights in column {self.weight!r} of the pair table are 0.")
        return Pairs(item_ids, item, other_ids, other, user_ids, user, weight, time, units_per_day)

    @cached_property
    @override
    def content_key(self) -> str:
        arrays = [value for value in vars(self.pairs).values() if isinstance(value, np.ndarray)]
        parts = [digest_ids(array) if array.dtype == object else array for array in arrays]
        options = repr((self.user, self.weight, self.time, self.holds_no_evaluation_events))
        return digest("pair table", options, repr(self.pairs.units_per_day), *parts)

    @override
    def match(self, split: PreferenceSplit) -> MatchedPreference:
        pairs = self.pairs
        item = log_positions(split, pairs.item_ids, f"column {self.item!r} of the pair table")[pairs.item]
        other = log_positions(split, pairs.other_ids, f"column {self.other!r} of the pair table")[pairs.other]
        usable = (item >= 0) & (other >= 0) & (item != other)
        if not usable.any():
            raise ConfigError(f"None of the {usable.size} rows of the pair table pairs two different items of the log.")
        fold = _folds_of_rows(split, self, pairs)
        past = None
        if pairs.time is not None:
            usable &= _before_the_end(split, self, pairs, pairs.time)
            past = usable & (pairs.time < split.log.time[split.log.window == 2].min())

        def leak(rows: Rows) -> CrossFittedVectors:
            weight = _weights(pairs, item, other, rows)
            return leave_users_out(partial(_pair_vectors, item, other, weight, split.log.num_items), rows, fold)

        build_past = None if past is None else partial(leak, past)
        return MatchedPreference(fold is not None, partial(leak, usable), build_past)


@dataclass(frozen=True)
class Pairs:
    """The columns of a pair table, [num_rows] each but for the ids.

    Attributes:
        item_ids: Distinct ids of the first items.
        item: Index into `item_ids`.
        other_ids: Distinct ids of the second items.
        other: Index into `other_ids`.
        user_ids: Distinct ids of the users.
        user: Index into `user_ids`.
        weight: Weights, at least 0.
        time: Timestamps, all in one unit.
        units_per_day: Number of time units in a day, if known.
    """

    item_ids: NDArray[Any]
    item: NDArray[np.int64]
    other_ids: NDArray[Any]
    other: NDArray[np.int64]
    user_ids: NDArray[Any] | None
    user: NDArray[np.int64] | None
    weight: NDArray[np.float64] | None
    time: NDArray[Any] | None
    units_per_day: int | None


def _folds_of_rows(split: PreferenceSplit, given: PairTable, pairs: Pairs) -> NDArray[np.int64] | None:
    """Return the fold of each row's user, -1 for users that are not scored; None if no user is to be left out."""
    if pairs.user_ids is None or pairs.user is None:
        return None
    user = positions(pairs.user_ids, split.user_ids)
    num_scored = int((user >= 0).sum())
    if num_scored:
        if num_scored < MIN_KNOWN * split.num_users:
            warn_user(
                f"Only {num_scored} of the {split.num_users} scored users are in column {given.user!r} of the pair "
                "table; if the others are there under different ids, their own events leak."
            )
        fold = split.user_folds(NUM_FOLDS)["fold"].to_numpy()
        return np.where(user >= 0, fold[user], -1)[pairs.user]
    if given.holds_no_evaluation_events:
        return None
    raise ConfigError(
        f"None of the {split.num_users} scored users is in column {given.user!r} of the pair table: it has ids "
        f"such as {shown(pairs.user_ids)}, the log such as {shown(split.user_ids)}. Use the ids of the log, or the "
        f"users' own events leak; if all rows come from other users, set {NO_EVALUATION_EVENTS}."
    )


def _before_the_end(split: PreferenceSplit, given: PairTable, pairs: Pairs, time: NDArray[Any]) -> Rows:
    """Return a mask of the rows up to the last event of w2; check the time unit and `holds_no_evaluation_events`."""
    unit = split.settings["units_per_day"]
    if pairs.units_per_day != unit:
        raise ConfigError(
            f"Times of the pair table (column {given.time!r}, {time.min()} to {time.max()}) are not in the unit of the "
            f"log's ({split.log.time.min()} to {split.log.time.max()}); bring both to one unit."
        )
    begin = split.log.time[split.log.window > 0].min()
    inside = int((time >= begin).sum())
    if given.user is None and inside:
        warn_user(
            f"{inside} of {time.size} rows of the pair table are in w1 or w2 (at {begin} or later). Only "
            f"{NO_EVALUATION_EVENTS} states that none of them comes from a scored user's events; check that it is true."
        )
    return np.asarray(time <= split.log.time.max())


def _weights(pairs: Pairs, item: NDArray[np.int64], other: NDArray[np.int64], rows: Rows) -> NDArray[np.float64]:
    """Return the weight of each row: as given, else from the number of the user's items among `rows`."""
    if pairs.weight is not None:
        return pairs.weight
    weight = np.ones(item.size)
    if pairs.user is not None:
        user = np.r_[pairs.user[rows], pairs.user[rows]]
        distinct = sparse.csr_matrix((np.ones(user.size), (user, np.r_[item[rows], other[rows]])))
        weight[rows] = distinct.getnnz(axis=1)[pairs.user[rows]] ** -0.5
    return weight


def _pair_vectors(
    item: NDArray[np.int64], other: NDArray[np.int64], weight: NDArray[np.float64], num_items: int, rows: Rows
) -> ItemVectors:
    rows = rows & (weight > 0)
    first, second, value = item[rows], other[rows], weight[rows]
    together = sparse.csr_matrix((value, (first, second)), shape=(num_items, num_items))
    return cooccurrence_vectors(sparse.csr_matrix(together + together.T))
