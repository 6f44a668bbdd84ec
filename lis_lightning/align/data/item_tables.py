"""Columns and files of an item table, checked: ids, texts, titles and feature matrices."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.align.data.items import check_features, first_ids
from lis_lightning.data.tables import id_codes, read_table, require_columns
from lis_lightning.errors import ConfigError, ItemError, LisWarning, LogError, ShapeError


def read_items(source: Any, columns: Sequence[str]) -> pl.DataFrame:
    """Read the item table and make sure of its columns.

    Args:
        source: Parquet or CSV path or glob, or a polars, pandas or pyarrow table.
        columns: Columns that it must have.

    Raises:
        ItemError: If it cannot be read, is empty, or lacks a column (with the ones it has, and the nearest name).
    """
    try:
        table = read_table(source, "item table")
        require_columns(table, columns, "item table")
    except LogError as error:
        raise ItemError(str(error)) from error
    if not table.height:
        raise ItemError("The item table has no rows; give one row for each item of the log.")
    return table


def read_ids(table: pl.DataFrame, column: str) -> NDArray[Any]:
    """Return the ids in the order of the table, int64 or str.

    Raises:
        ItemError: If ids are missing, or are neither integers nor strings.
    """
    try:
        distinct, codes = id_codes(table, column)
    except LogError as error:
        raise ItemError(f"Item table: {error}") from error
    ids: NDArray[Any] = distinct[codes]
    return ids.astype(np.int64) if ids.dtype.kind in "iu" else ids


def read_titles(table: pl.DataFrame, column: str) -> list[str]:
    """Return the short names, empty where there are none."""
    if column not in table.columns:
        return [""] * table.height
    return table[column].cast(pl.String).fill_null("").str.strip_chars().to_list()


def read_category(table: pl.DataFrame, column: str) -> tuple[str | None, ...]:
    """Return the values of a column as text; None where it is empty."""
    values = table[column].cast(pl.String).str.strip_chars()
    return tuple(values.replace("", None))


def read_texts(table: pl.DataFrame, column: str | None, ids: NDArray[Any], titles: Sequence[str]) -> tuple[str, ...]:
    """Return the texts; the title stands in for a missing one, with a warning.

    Args:
        table: The item table.
        column: Its column of texts; None where the items have none, which gives empty texts.
        ids: The items, for messages.
        titles: What stands in for a missing text.

    Raises:
        ItemError: If the column is not of texts, or an item has neither text nor title.

    Warns:
        LisWarning: How many texts were missing.
    """
    if column is None:
        return ("",) * len(ids)
    if table[column].dtype != pl.String:
        raise ItemError(
            f"Column {column!r} of the item table must hold texts, got {table[column].dtype}; name another column."
        )
    texts = table[column].fill_null("").str.strip_chars().to_list()
    missing = np.array([not text for text in texts])
    nothing = np.array([not (text or title) for text, title in zip(texts, titles, strict=True)])
    if nothing.any():
        raise ItemError(
            f"{int(nothing.sum())} of {len(ids)} items have neither a text in column {column!r} nor a title: item ids "
            f"{first_ids(ids[nothing])}. Fill them in, or set text=null to use no texts at all."
        )
    if missing.any():
        warnings.warn(
            f"{int(missing.sum())} of {len(ids)} items have no text in column {column!r}, and their titles are used: "
            f"item ids {first_ids(ids[missing])}.",
            LisWarning,
            stacklevel=3,
        )
    return tuple(text or title for text, title in zip(texts, titles, strict=True))


def feature_block(table: pl.DataFrame, source: str | Path) -> NDArray[Any]:
    """Return one matrix of item features, [num_items, dim].

    Args:
        table: The item table.
        source: A ``.npy`` or ``.safetensors`` file with rows in the order of the table, or a column of lists.

    Raises:
        ConfigError: If the file does not exist.
        ItemError: If there is no such column, or it does not hold lists of numbers of one length.
        ShapeError: If the file holds anything but one matrix.
    """
    path = Path(source).expanduser()
    if path.suffix in {".npy", ".safetensors"}:
        return load_array(path)
    try:
        require_columns(table, [str(source)], "item table")
    except LogError as error:
        raise ItemError(
            f"features={str(source)!r} is no .npy or .safetensors file, and as a column: {error}"
        ) from error
    return list_column(table[str(source)])


def load_array(path: Path) -> NDArray[Any]:
    """Return the array in a ``.npy`` file, or the only tensor of a ``.safetensors`` file (any float type).

    Raises:
        ConfigError: If the file does not exist.
        ShapeError: If it holds no array, pickled objects, or several tensors.
    """
    tensors = load_tensors(path)
    if len(tensors) != 1:
        raise ShapeError(
            f"{path} holds {len(tensors)} tensors ({', '.join(sorted(tensors))}), expected one of features."
        )
    (array,) = tensors.values()
    return array


def load_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays in a ``.safetensors`` file by name, or the one in a ``.npy`` file by the file's name.

    Raises:
        ConfigError: If the file does not exist.
        ShapeError: If it is damaged, or holds pickled objects.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ConfigError(f"The item features {path} do not exist; give a .npy or .safetensors file, or a column.")
    try:
        if path.suffix == ".npy":
            return {path.stem: np.asarray(np.load(path, allow_pickle=False))}
        # Through torch, since NumPy has no bfloat16.
        tensors = load_file(path)
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise ShapeError(f"The item features {path} are not a matrix of numbers: {error}") from error
    return {name: (rows.float() if rows.dtype == torch.bfloat16 else rows).numpy() for name, rows in tensors.items()}


def list_column(values: pl.Series) -> NDArray[Any]:
    """Return a column of lists as a matrix, [num_rows, dim] float32.

    Raises:
        ItemError: If it does not hold lists of numbers of one length.
    """
    if values.dtype == pl.Object:
        # Lists in a pandas column arrive as opaque objects.
        values = pl.Series(values.name, values.to_list(), strict=False)
    if not isinstance(values.dtype, pl.List | pl.Array) or not values.dtype.inner.is_numeric():
        raise ItemError(f"Column {values.name!r} must hold lists of numbers, got {values.dtype}.")
    lists = values.cast(pl.List(pl.Float32))
    lengths = lists.list.len().fill_null(0).to_numpy()
    usual = int(np.bincount(lengths).argmax())
    odd = np.flatnonzero(lengths != usual)
    if odd.size or not usual:
        raise ItemError(
            f"The lists in column {values.name!r} must be of one length, most are of {usual}; "
            f"{odd.size} are not, the first in rows {first_ids(odd)}."
        )
    return lists.explode().to_numpy().reshape(-1, usual)


def joined_features(blocks: Sequence[NDArray[Any]], ids: NDArray[Any]) -> NDArray[np.float32] | None:
    """Scale the rows of each block to length 1, so that none outweighs the others, and put the blocks side by side.

    Args:
        blocks: Matrices of [num_items, dim] each. Rows of zeros stay zeros.
        ids: The items, for messages.

    Returns:
        [num_items, sum of dims]; None without blocks.

    Raises:
        ShapeError: If a block is not a matrix of numbers with one row an item.
        NonFiniteError: If a block holds NaN or infinity.
    """
    if not blocks:
        return None
    scaled = []
    for block in blocks:
        if block.dtype.kind not in "fiub":
            raise ShapeError(f"Item features must be numbers, got an array of {block.dtype}.")
        values = block.astype(np.float32)
        check_features(values, ids)
        length = np.linalg.norm(values, axis=1, keepdims=True)
        scaled.append(values / np.where(length > 0, length, 1))
    return np.concatenate(scaled, axis=1)
