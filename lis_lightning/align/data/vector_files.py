"""Read item vectors from files (tensors, an index of FAISS, or a table) in the order of given item ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.align.data.feature_files import TENSOR_ENDINGS, list_column, load_tensors
from lis_lightning.align.data.item_columns import read_ids
from lis_lightning.align.data.item_table import check_features
from lis_lightning.data.files import TABLE_ENDINGS, file_ending
from lis_lightning.data.item_rows import Missing, vectors_in_order
from lis_lightning.data.tables import numbers_of, read_table, require_columns
from lis_lightning.errors import ConfigError, ItemError, LisError, LogError, ShapeError

_MATRIX = "embeddings"
_IDS = "item_ids"
_ENDINGS = (*TENSOR_ENDINGS, *TABLE_ENDINGS)


def read_vectors(
    path: str | Path,
    item_ids: NDArray[Any],
    *,
    ids: str | Path | NDArray[Any] | None = None,
    id_column: str = "item_id",
    missing: Missing = "raise",
) -> NDArray[Any]:
    """Read one vector an item from a file, in the order of `item_ids`.

    Args:
        path: A parquet, CSV or TSV file with a column of ids and the vectors, in one column of lists or in all other
            columns; a ``.safetensors`` or ``.pt`` file with ``item_ids`` and ``embeddings``; a FAISS index with ids
            (IndexIDMap); or one matrix alone (``.npy``, ``.safetensors``, ``.pt`` as of ``SentenceTransformer.encode``,
            or a FAISS index without ids), with `ids` for its rows.
        item_ids: The items whose vectors are returned, [num_items].
        ids: Ids of the rows of a file without ids: an array, a ``.npy`` file, or a table with `id_column`.
        id_column: Name of the column of ids.
        missing: What to do about items without a vector: ``"raise"``, or ``"mean"`` to give them the mean of the
            others.

    Returns:
        [num_items, dim], in the float type of the file.

    Warns:
        LisWarning: How many items got the mean.

    Raises:
        ConfigError: If the file does not exist, or has no ids and none are given.
        ItemError: If items are missing or occur twice (the first five are named), or a column is missing.
        ShapeError: If the file does not hold one matrix of floats with one row for each id.
        NonFiniteError: If the vector of a requested item has NaN or infinity.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "text.parquet"
        >>> pl.DataFrame({"item_id": [7, 8], "embedding": [[0.0, 1.0], [2.0, 3.0]]}).write_parquet(path)
        >>> read_vectors(path, np.array([8])).tolist()
        [[2.0, 3.0]]
    """
    path = Path(path).expanduser()
    try:
        row_ids, values = _checked_rows(path, ids, id_column)
        chosen: NDArray[Any] = vectors_in_order(values, row_ids, item_ids, missing=missing, where=f"file {path.name}")
        check_features(chosen, item_ids)
    except LisError as error:
        raise type(error)(f"{path.name}: {error}") from error
    return chosen


def ids_with_vectors(
    path: str | Path, *, ids: str | Path | NDArray[Any] | None = None, id_column: str = "item_id"
) -> NDArray[Any]:
    """Return the ids of the rows of a file of item vectors; arguments and errors as for :func:`read_vectors`."""
    path = Path(path).expanduser()
    try:
        return _checked_rows(path, ids, id_column)[0]
    except LisError as error:
        raise type(error)(f"{path.name}: {error}") from error


def are_among(wanted: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which wanted ids are among others; an integer is not equal to its text."""
    present = set(ids.tolist())
    return np.array([item_id in present for item_id in wanted.tolist()], bool)


def other_orders(
    path: str | Path, ids: str | Path | NDArray[Any] | None, *, id_column: str = "item_id"
) -> dict[str, NDArray[Any]]:
    """Return other orders that the rows of a file without ids may be in, by name; none for a file with ids.

    Args:
        path: As for :func:`read_vectors`.
        ids: Ids in the order that was assumed.
        id_column: Name of the column of ids.
    """
    path = Path(path).expanduser()
    if ids is None or path.suffix not in TENSOR_ENDINGS or _IDS in load_tensors(path):
        return {}
    assumed = _given_ids(ids, id_column)
    texts = assumed.astype(str)
    orders = {"ids sorted": np.sort(assumed), "ids sorted as text": assumed[np.argsort(texts, kind="stable")]}
    return {name: order for name, order in orders.items() if not np.array_equal(order, assumed)}


def _checked_rows(path: Path, ids: Any, id_column: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the ids of the rows of a file, and its matrix of floats."""
    row_ids, values = _read(path, ids, id_column)
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind != "f":
        raise ShapeError(
            f"expected a matrix [num_items, dim] of floats, got shape {list(values.shape)} of {values.dtype}."
        )
    return row_ids, values


def _read(path: Path, ids: Any, id_column: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the ids of the rows of a file, and its matrix."""
    if not path.is_file():
        raise ConfigError(f"the file {path} does not exist (working directory: {Path.cwd().name}/).")
    if file_ending(str(path)) not in _ENDINGS:
        raise ConfigError(f"expected a file that ends in one of {', '.join(_ENDINGS)}.")
    if path.suffix not in TENSOR_ENDINGS:
        table = _table(path, id_column)
        return read_ids(table, id_column), _columns(table, id_column)
    tensors = load_tensors(path)
    if set(tensors) == {_IDS, _MATRIX}:
        return tensors[_IDS], tensors[_MATRIX]
    if len(tensors) > 1:
        raise ShapeError(f"expected the tensors {_IDS} and {_MATRIX}, or one matrix alone, got {sorted(tensors)}.")
    if ids is None:
        raise ConfigError(
            "its rows have no ids. Set row_ids=FILE to their item ids, in order (.npy, or a table with the "
            f"column {id_column!r}), set data.items if they are in the order of the item table, or write a parquet "
            f"file with the columns {id_column!r} and 'embedding', or a .safetensors file with {_IDS} and {_MATRIX}."
        )
    (values,) = tensors.values()
    return _given_ids(ids, id_column), values


def _given_ids(ids: Any, id_column: str) -> NDArray[Any]:
    """Return the ids for the rows of a file without ids."""
    if isinstance(ids, np.ndarray):
        return ids
    path = Path(ids).expanduser()
    if path.suffix != ".npy":
        return read_ids(_table(path, id_column), id_column)
    (array,) = load_tensors(path).values()
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise ShapeError(
            f"expected a list of integer or string ids in {path.name}, got shape {list(array.shape)} of {array.dtype}."
        )
    return array


def _table(path: Path, id_column: str) -> pl.DataFrame:
    """Read a table that has a column of ids."""
    try:
        table = read_table(path, "table of embeddings", ids=[id_column])
        require_columns(table, [id_column], "table of embeddings")
    except LogError as error:
        raise ItemError(str(error)) from error
    return table


def _columns(table: pl.DataFrame, id_column: str) -> NDArray[Any]:
    """Return the matrix in a table: its only column of lists, or else all columns of numbers."""
    others = table.drop(id_column)
    others = others.with_columns([numbers_of(column) for column in others])
    lists = [name for name, dtype in others.schema.items() if isinstance(dtype, pl.List | pl.Array)]
    if len(lists) == 1:
        return list_column(others[lists[0]])
    not_numeric = [name for name, dtype in others.schema.items() if not dtype.is_numeric()]
    if lists or not_numeric or not others.width:
        raise ItemError(
            f"expected beside {id_column!r} one column of lists, or columns of numbers alone, got "
            f"{dict(others.schema)}. Write a file with the id and the vectors only."
        )
    return others.to_numpy()
