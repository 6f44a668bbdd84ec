"""Rows by item id: what holds one row an item, in any order, is put into the order of other items."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lis_lightning.errors import ConfigError, ItemError, LisWarning, ShapeError

Missing = Literal["raise", "mean"]


def vectors_in_order(
    vectors: Any, row_ids: NDArray[Any], item_ids: NDArray[Any], *, missing: Missing = "raise", where: str
) -> Any:
    """Return vectors in the order of items.

    Args:
        vectors: Array or tensor [num_rows, dim].
        row_ids: Ids of its rows, [num_rows].
        item_ids: The items whose vectors are returned, [num_items].
        missing: What to do about items without a row: ``"raise"``, or ``"mean"`` to give them the mean of the others.
        where: What holds the rows, for messages.

    Returns:
        [num_items, dim], of the kind and float type of `vectors`.

    Raises:
        ConfigError: If `missing` is neither.
        ShapeError: If the vectors are no matrix of numbers, or there is not one row for each of `row_ids`.
        ItemError: If items are absent (all of them, for ``"mean"``) or ids occur twice; the first five are named.

    Warns:
        LisWarning: How many items got the mean.

    Example:
        >>> vectors_in_order(np.array([[1.0], [2.0]]), np.array([7, 8]), np.array([8, 7]), where="file").tolist()
        [[2.0], [1.0]]
    """
    if missing not in {"raise", "mean"}:
        raise ConfigError(f"Expected `missing` to be 'raise' or 'mean', got {missing!r}.")
    if row_ids.ndim != 1 or row_ids.dtype.kind not in "iuUO":
        raise ShapeError(
            f"Expected item ids as a list of integers or text, got {row_ids.dtype} of shape {row_ids.shape}."
        )
    if vectors.ndim != 2 or getattr(vectors.dtype, "kind", "f") not in "fiu":
        raise ShapeError(
            f"Expected vectors as a matrix [num_rows, dim] of numbers, got {vectors.dtype} of shape "
            f"{tuple(vectors.shape)}."
        )
    if len(row_ids) != len(vectors):
        raise ShapeError(f"there are {len(vectors)} rows for {len(row_ids)} ids; one row is needed for each id.")
    distinct, counts = np.unique(row_ids, return_counts=True)
    if (counts > 1).any():
        raise ItemError(f"item ids occur more than once: {first_ids(distinct[counts > 1])}. Keep one row an item.")
    present = set(row_ids.tolist())
    has_vector = np.array([item in present for item in item_ids.tolist()], bool)
    if missing == "raise" or not has_vector.any():
        has_vector[:] = True  # so that those that are absent are an error that names the cause
    advice = "Add their rows, or set missing=mean (or missing=drop in an audit)."
    rows = rows_of(item_ids[has_vector], row_ids, where, advice)
    if has_vector.all():
        return vectors[rows]
    warnings.warn(
        f"{where}: {int(has_vector.sum())} of {len(item_ids)} items ({has_vector.mean():.1%}) have a vector; the "
        "others get the mean of these.",
        LisWarning,
        stacklevel=3,
    )
    chosen = vectors[np.zeros(len(item_ids), np.int64)]
    chosen[has_vector] = vectors[rows]
    chosen[~has_vector] = vectors[rows].mean(0)
    return chosen


def rows_of(wanted: Iterable[Any], ids: NDArray[Any], where: str, advice: str) -> NDArray[np.int64]:
    """Return the row of each wanted id among `ids`.

    Args:
        wanted: Item ids, in any order, possibly repeated.
        ids: The ids of the rows, each once.
        where: What holds the rows, for the error message.
        advice: What to do about absent ids, a sentence for the error message.

    Raises:
        ItemError: If ids are absent; the message counts them and names the first five.
    """
    requested = wanted.tolist() if isinstance(wanted, np.ndarray) else list(wanted)
    row_of = {item: row for row, item in enumerate(ids.tolist())}
    absent = [item for item in dict.fromkeys(requested) if item not in row_of]
    if absent:
        raise ItemError(
            f"{len(absent)} of {len(set(requested))} item ids have no row in the {where} of {len(ids)} items: "
            f"{first_ids(absent)}.{_type_hint(absent[0], ids)} {advice}"
        )
    return np.array([row_of[item] for item in requested], dtype=np.int64)


def first_ids(ids: Iterable[Any], count: int = 5) -> str:
    """Return the first ids as Python writes them, and how many more there are.

    Args:
        ids: Any ids.
        count: How many to name.

    Example:
        >>> first_ids(["a", "b", "c"], count=2)
        "'a', 'b' and 1 more"
    """
    listed = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(repr(item) for item in listed[:count]) + more


def _type_hint(wanted: Any, ids: NDArray[Any]) -> str:
    """Return the likely cause of absent ids if one side has integers and the other strings."""
    has_strings, wants_string = ids.dtype.kind in "OU", isinstance(wanted, str)
    if not len(ids) or has_strings == wants_string:
        return ""
    types = ("integers", "strings")
    return (
        f" The likely cause: its ids are {types[has_strings]} ({ids.tolist()[0]!r}) and the others "
        f"{types[wants_string]} ({wanted!r}); write both with one type."
    )
