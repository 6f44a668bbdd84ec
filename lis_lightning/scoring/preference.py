"""What users know of their items, as preference data: a built-in kind, a table of pairs, embeddings, or a callable.

A ceiling leaks the preference data of the evaluation period but never the label: the vectors that a user's events see
are built without that user. Each form says how it is cut by user. What cannot be cut is refused, since a user's own
events inside the vectors are the label (naive leaks score 3 to 10 times the true ceiling), unless its owner says that
it holds none of the events that are scored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import torch
from numpy.typing import ArrayLike, NDArray

from lis_lightning.data import tables as _log
from lis_lightning.data.digest import digest, digest_ids
from lis_lightning.errors import ConfigError, LogError, NonFiniteError, ShapeError

BUILT_IN = ("pairs", "ids")
NUM_FOLDS = 5
_NAME = re.compile(r"[a-z0-9_]+")
_CLAIM = "`holds_no_evaluation_events=True`"


@dataclass(frozen=True, eq=False)
class PairTable:
    """A table of item pairs that belong together: co-clicks, co-purchases, an editor's choice.

    Pairs have no direction; rows of one pair add up, rows that pair an item with itself are left out. Vectors come from
    the table as they come from the log for ``"pairs"``: weighted co-occurrence, positive pointwise mutual information,
    truncated SVD.

    Args:
        table: Parquet or CSV path or glob, or a polars, pandas or pyarrow table; read at once.
        item: Column of item ids, as in the interaction log.
        other: Column of the items they are paired with.
        user: Column of the users that the pairs come from, ids as in the interaction log. With it the ceiling is
            cross-fitted: each fold of users sees vectors built without its own rows.
        weight: Column of non-negative weights. None: with `user`, each row weighs the number of items of its user to
            the power -1/2, as for ``"pairs"``; without, 1.
        time: Column of timestamps, in the unit of the log's. With it, rows after the last scored event are left out,
            and the ceiling is also estimated without w2 (``past``).
        holds_no_evaluation_events: Says that no row comes from an event of w1 or w2 of a scored user. Without `user`
            nothing else can be scored; results then say that the ceiling is not cross-fitted.

    Raises:
        ConfigError: If there is neither `user` nor that claim.
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
    time: str | None = None
    holds_no_evaluation_events: bool = False

    def __post_init__(self) -> None:
        if self.item == self.other:
            raise ConfigError(f"Expected two columns of items in a pair table, got {self.item!r} for both.")
        if self.user is None and not self.holds_no_evaluation_events:
            raise ConfigError(
                "A pair table without `user` cannot be cross-fitted: rows of the scored users' own events would carry "
                "their labels, and such leaks score 3 to 10 times the true ceiling. Name the column of users, or, if "
                f"no row comes from a scored user's events in w1 or w2, say so: {_CLAIM}."
            )
        _ = self.pairs

    @property
    def num_rows(self) -> int:
        """Number of rows of the table."""
        return int(self.pairs.item.size)

    @cached_property
    def pairs(self) -> Pairs:
        """The table as arrays, checked."""
        table = _log.read_table(self.table, "pair table")
        columns = (self.item, self.other, self.user, self.weight, self.time)
        _log.require_columns(table, [name for name in columns if name is not None], "pair table")
        if not table.height:
            raise LogError("The pair table has no rows.")
        item_ids, item = _log.id_codes(table, self.item)
        other_ids, other = _log.id_codes(table, self.other)
        user_ids, user = (None, None) if self.user is None else _log.id_codes(table, self.user)
        weight = None if self.weight is None else _log.event_weights(table, self.weight)
        time, units_per_day = (None, None) if self.time is None else _log.timestamps(table, self.time)
        if weight is not None and not weight.any():
            raise LogError(f"All {weight.size} weights in column {self.weight!r} of the pair table are 0.")
        return Pairs(item_ids, item, other_ids, other, user_ids, user, weight, time, units_per_day)

    @cached_property
    def key(self) -> str:
        """Digest of the content."""
        given = [value for value in vars(self.pairs).values() if isinstance(value, np.ndarray)]
        parts = [digest_ids(value) if value.dtype == object else value for value in given]
        options = repr((self.user, self.weight, self.time, self.holds_no_evaluation_events))
        return digest("pair table", options, repr(self.pairs.units_per_day), *parts)


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
        weight: At least 0.
        time: Timestamps of one unit.
        units_per_day: How many time units make a day, if known.
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


@dataclass(frozen=True, eq=False)
class IdEmbeddings:
    """Item embeddings of a ranker that the user trained.

    Trained on all events they hold the scored users' labels; so they are given either per fold, each trained without
    that fold's users (:meth:`lis_lightning.PreferenceSplit.user_folds` names them), or once, trained on nothing that is
    scored (on w0 only, ``split.alignment``). The spaces of folds may differ by a rotation: they are tied to their mean
    by orthogonal Procrustes (the first fold is the first guess, as no space of all users is at hand).

    Args:
        vectors: Matrix [num_ids, dim], or a mapping of each fold, 0 to 4, to such a matrix, all of one width. A row of
            zeros says nothing of its item, as if the item were absent.
        item_ids: Ids of the rows, as in the interaction log, [num_ids].
        holds_no_evaluation_events: Says of one matrix that no event of w1 or w2 of a scored user went into it.

    Raises:
        ConfigError: If one matrix is given without that claim, or folds are missing.
        ShapeError: If a matrix does not have one row an id, or widths differ, or ids repeat.
        NonFiniteError: If a row holds NaN or infinity; the first five ids are named.
    """

    vectors: Any = field(repr=False)
    item_ids: Any = field(repr=False)
    holds_no_evaluation_events: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.vectors, Mapping):
            if set(self.vectors) != set(range(NUM_FOLDS)):
                raise ConfigError(
                    f"Expected embeddings for the folds {list(range(NUM_FOLDS))} of `split.user_folds()`, got "
                    f"{sorted(self.vectors, key=str)}."
                )
        elif not self.holds_no_evaluation_events:
            raise ConfigError(
                "One matrix of ID embeddings cannot be cross-fitted: trained on all events it carries the scored "
                "users' labels, and such leaks score 3 to 10 times the true ceiling. Train one for each fold of "
                "`split.user_folds()` without its users and give {0: ..., 4: ...}, or, if nothing of w1 and w2 went "
                f"into it, say so: {_CLAIM}."
            )
        if len({matrix.shape[1] for matrix in self.matrices}) > 1:
            widths = {fold: matrix.shape[1] for fold, matrix in enumerate(self.matrices)}
            raise ShapeError(f"Expected ID embeddings of one width in all folds, got {widths}.")

    @cached_property
    def ids(self) -> NDArray[Any]:
        """The ids, checked."""
        return checked_ids(self.item_ids, "ID embeddings")

    @cached_property
    def matrices(self) -> list[NDArray[Any]]:
        """One matrix, or one a fold, checked."""
        if not isinstance(self.vectors, Mapping):
            return [checked_matrix(self.vectors, self.ids, "ID embeddings")]
        return [
            checked_matrix(self.vectors[fold], self.ids, f"ID embeddings of fold {fold}") for fold in range(NUM_FOLDS)
        ]

    @cached_property
    def key(self) -> str:
        """Digest of the content."""
        return digest("id embeddings", digest_ids(self.ids), *self.matrices)


@dataclass(frozen=True, eq=False)
class Completed:
    """Preference data completed by content: what it says of items that look alike fills in cold and rare ones.

    Collaborative data has nothing for items that nobody clicked yet, where content has something; a ceiling of the data
    alone is then too low. Its vectors are regressed on the content, and an item with n positives keeps ``n / (n + 30)``
    of what the prediction leaves (:func:`lis_lightning.functional.item_vectors.complete_vectors`). Give the raw
    embeddings of the model, before any alignment: the ceiling is then one of this data *with this content*.

    Args:
        preference: The preference data: a built-in kind, a table, embeddings or a callable.
        content: Item representations [num_ids, dim]. Items without a row stay as the data has them.
        item_ids: Ids of the rows, as in the interaction log, [num_ids]; ``split.item_ids`` for what is scored.

    Raises:
        ConfigError: If `preference` is no preference data, or completed already.
        ShapeError: If the matrix does not have one row an id, or ids repeat.
        NonFiniteError: If a row holds NaN or infinity; the first five ids are named.

    Example:
        >>> import numpy as np
        >>> Completed("pairs", np.eye(3), item_ids=[7, 8, 9]).matrix.shape
        (3, 3)
    """

    preference: Preference
    content: Any = field(repr=False)
    item_ids: Any = field(repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.preference, Completed):
            raise ConfigError("Expected preference data that is not completed yet, got Completed; complete it once.")
        check_preference(self.preference)
        _ = self.matrix

    @cached_property
    def ids(self) -> NDArray[Any]:
        """The ids, checked."""
        return checked_ids(self.item_ids, "the content")

    @cached_property
    def matrix(self) -> NDArray[Any]:
        """The content, checked."""
        return checked_matrix(self.content, self.ids, "content")

    @cached_property
    def key(self) -> str:
        """Digest of the content, without the preference data."""
        return digest("completed", digest_ids(self.ids), self.matrix)


Builder: TypeAlias = Callable[[pl.DataFrame], "Mapping[Any, ArrayLike] | tuple[ArrayLike, ArrayLike]"]
Preference: TypeAlias = "str | PairTable | IdEmbeddings | Completed | Builder"


def checked_ids(given: Any, what: str) -> NDArray[Any]:
    """Return distinct integer or text ids.

    Raises:
        ShapeError: If they are something else, or repeat.
    """
    ids = np.asarray(given).ravel()
    if ids.dtype.kind in "US" or (ids.dtype == object and all(isinstance(value, str) for value in ids)):
        ids = ids.astype(str).astype(object)
    elif ids.dtype.kind not in "iu":
        shown = ids[:5].tolist()
        raise ShapeError(f"Expected integer or text item ids for {what}, got {ids.dtype}, such as {shown}.")
    distinct, counts = np.unique(ids, return_counts=True)
    if distinct.size < ids.size:
        raise ShapeError(
            f"Item ids of {what} repeat: {ids.size} ids, {distinct.size} of them distinct, repeated are "
            f"{distinct[counts > 1][:5].tolist()}. Give one row an item."
        )
    return ids


def checked_matrix(given: Any, ids: NDArray[Any], what: str) -> NDArray[Any]:
    """Return finite vectors, one row an id, in a float type of NumPy.

    Raises:
        ShapeError: If the shape is another, or the type no number.
        NonFiniteError: If a row holds NaN or infinity.
    """
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = given.float() if given.dtype == torch.bfloat16 else given
    matrix = np.asarray(given)
    if matrix.ndim != 2 or matrix.shape[0] != ids.size or matrix.shape[1] == 0:
        raise ShapeError(f"Expected {what} of shape [{ids.size}, dim], one row an item id, got {list(matrix.shape)}.")
    if matrix.dtype.kind not in "fiu":
        raise ShapeError(f"Expected {what} as numbers, got {matrix.dtype}.")
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        raise NonFiniteError(
            f"The {what} hold NaN or infinity in {int(bad.sum())} of {ids.size} rows, first for the items "
            f"{ids[bad][:5].tolist()}; leave these rows out, or set them to 0 for items without a vector."
        )
    return matrix if matrix.dtype.kind == "f" else matrix.astype(np.float64)


def named(ceilings: Sequence[str] | Mapping[str, Preference]) -> dict[str, Preference]:
    """Return preference data by the name that its ceiling is logged under.

    Args:
        ceilings: Built-in kinds, ``("pairs", "ids")``, or a mapping of names to preference data.

    Raises:
        ConfigError: If a name cannot be part of a logged key, or a value is no preference data.
    """
    if isinstance(ceilings, str):
        raise ConfigError(f"Expected `ceilings` as a list or a mapping, got text; write ({ceilings!r},).")
    if isinstance(ceilings, Mapping):
        chosen = dict(ceilings)
    else:
        unnamed = [item for item in ceilings if not isinstance(item, str)]
        if unnamed:
            raise ConfigError(
                f"Only built-in preference data {BUILT_IN} goes without a name, got {unnamed[0]!r}; write "
                '`ceilings={"mine": ...}`.'
            )
        chosen = {kind: kind for kind in ceilings}
    for name, preference in chosen.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith(("_low", "_high")):
            raise ConfigError(
                f"Expected names of ceilings in lower-case letters, digits and _, not ending in _low or _high, got "
                f"{name!r}; it becomes the logged key lis/ceiling_NAME."
            )
        check_preference(preference)
    return chosen


def check_preference(preference: Any) -> None:
    """Raise ConfigError for what is no preference data."""
    if isinstance(preference, str):
        if preference not in BUILT_IN:
            raise ConfigError(f"Unknown preference data {preference!r}; expected one of {sorted(BUILT_IN)}.")
    elif not isinstance(preference, PairTable | IdEmbeddings | Completed) and not callable(preference):
        raise ConfigError(
            f"Expected preference data as one of {sorted(BUILT_IN)}, a PairTable, IdEmbeddings, Completed or a "
            f"callable, got {type(preference).__name__}; read a table with PairTable(table, user=...)."
        )


def handle(preference: Preference) -> Hashable:
    """Return what tells preference data apart within one process."""
    if isinstance(preference, PairTable | IdEmbeddings):
        return preference.key
    if isinstance(preference, Completed):
        return preference.key, handle(preference.preference)
    try:
        hash(preference)
    except TypeError:
        return _Held(preference)
    return preference


@dataclass(frozen=True, eq=False)
class _Held:
    """A callable that has no hash, told apart by identity, and kept alive so that its id is not given away."""

    build: Any

    def __hash__(self) -> int:
        return id(self.build)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.build is self.build


def content(preference: Preference) -> str | None:
    """Return a digest of the content of preference data; None for a callable without ``cache_key``.

    Raises:
        ConfigError: If a callable's ``cache_key`` is no text.
    """
    if isinstance(preference, str):
        return digest("built in", preference)
    if isinstance(preference, PairTable | IdEmbeddings):
        return preference.key
    if isinstance(preference, Completed):
        data = content(preference.preference)
        return None if data is None else digest(preference.key, data)
    key = getattr(preference, "cache_key", None)
    if key is not None and not isinstance(key, str):
        raise ConfigError(f"Expected the `cache_key` of {describe_builder(preference)} to be text, got {key!r}.")
    return None if key is None else digest("callable", key)


def describe_builder(build: Builder) -> str:
    """Return the name of a callable for messages."""
    return f"`{getattr(build, '__qualname__', type(build).__name__)}`"
