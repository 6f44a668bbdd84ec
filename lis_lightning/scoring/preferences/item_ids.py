"""Validation of item ids and vectors that users pass in, and their matching with the items of a log."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, LisWarning, NonFiniteError, ShapeError
from lis_lightning.functional.item_vectors import ItemVectors

MIN_KNOWN = 0.01  # below this share of known ids they are taken to come from another system


def checked_ids(given: Any, what: str) -> NDArray[Any]:
    """Return distinct integer or text ids.

    Raises:
        ShapeError: If ids are of another type, or repeat.
    """
    ids = np.asarray(given).ravel()
    if ids.dtype.kind in "US" or (ids.dtype == object and all(isinstance(value, str) for value in ids)):
        ids = ids.astype(str).astype(object)
    elif ids.dtype.kind not in "iu":
        raise ShapeError(f"Expected integer or text item ids for {what}, got {ids.dtype}, such as {ids[:5].tolist()}.")
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
        ShapeError: If there is not one row an id, or the type is not numeric.
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


def log_vectors(
    split: PreferenceSplit, ids: NDArray[Any], matrix: NDArray[Any], what: str, *, warn: bool
) -> ItemVectors:
    """Return vectors in the order of the log's items; items without a vector, or with a zero vector, are absent."""
    rows = log_positions(split, ids, what, warn=warn)
    vectors = np.zeros((split.log.num_items, matrix.shape[1]))
    vectors[rows[rows >= 0]] = matrix[rows >= 0]
    return ItemVectors(vectors, (vectors != 0).any(axis=1))


def log_positions(split: PreferenceSplit, ids: NDArray[Any], what: str, *, warn: bool = True) -> NDArray[np.int64]:
    """Return the index of each id in ``split.log_item_ids``, -1 for items that are not in the log.

    Args:
        split: The split.
        ids: Distinct ids.
        what: Description of their source, for messages.
        warn: Whether to warn of unknown items.

    Raises:
        ConfigError: If fewer than 1 % of the ids, or of the split's items where these are fewer, are in the log.
    """
    rows = positions(ids, split.log_item_ids)
    unknown = ids[rows < 0]
    num_known = ids.size - unknown.size
    if num_known < MIN_KNOWN * min(ids.size, split.num_items) or not num_known:
        kinds = [_kind(array) for array in (ids, split.log_item_ids)]
        hint = f" ({kinds[0]} here, {kinds[1]} in the log: convert them)" if kinds[0] != kinds[1] else ""
        raise ConfigError(
            f"Only {num_known} of {ids.size} item ids of {what} are known to the log: they are such as "
            f"{shown(unknown)}, the log's such as {shown(split.log_item_ids)}{hint}. Use the item ids of the "
            "interaction log."
        )
    if unknown.size and warn:
        warn_user(
            f"{unknown.size} of {ids.size} items of {what} are not in the log and are left out, such as "
            f"{shown(unknown)}."
        )
    return rows


def positions(ids: NDArray[Any], among: NDArray[Any]) -> NDArray[np.int64]:
    """Return the index of each id in `among`, -1 if it is not there."""
    if _kind(ids) != _kind(among):
        return np.full(ids.size, -1)
    wanted = ids.astype(among.dtype)
    order = np.argsort(among)
    at = order[np.minimum(np.searchsorted(among[order], wanted), among.size - 1)]
    return np.where((among[at] == wanted) & (wanted == ids), at, -1)  # a cast may have wrapped an id


def _kind(ids: NDArray[Any]) -> str:
    return "integers" if ids.dtype.kind in "iu" else "text"


def shown(ids: NDArray[Any]) -> str:
    """Return the first five ids, for messages."""
    return ", ".join(map(repr, ids[:5].tolist()))


def warn_user(message: str) -> None:
    """Issue a :class:`LisWarning`."""
    warnings.warn(message, LisWarning, stacklevel=2)
