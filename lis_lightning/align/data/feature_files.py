"""Feature matrices of the items: from files or a column of lists, scaled and concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.align.data.item_table import check_features, first_ids
from lis_lightning.data.tables import require_columns
from lis_lightning.errors import ConfigError, ItemError, LogError, ShapeError


def feature_block(table: pl.DataFrame, source: str | Path) -> NDArray[Any]:
    """Return a matrix of item features, [num_items, dim].

    Args:
        table: The item table.
        source: A ``.npy`` or ``.safetensors`` file with rows in the order of the table, or a column of lists.

    Raises:
        ConfigError: If the file does not exist.
        ItemError: If there is no such column, or it does not hold lists of numbers of one length.
        ShapeError: If the file holds no array or several.
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

    def as_numpy(rows: torch.Tensor) -> NDArray[Any]:
        array: NDArray[Any] = rows.float().numpy() if rows.dtype == torch.bfloat16 else rows.numpy()
        return array

    if not path.is_file():
        raise ConfigError(f"The item features {path} do not exist; give a .npy or .safetensors file, or a column.")
    try:
        if path.suffix == ".npy":
            return {path.stem: np.asarray(np.load(path, allow_pickle=False))}
        tensors = load_file(path)  # through torch, since NumPy has no bfloat16
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise ShapeError(f"The item features {path} are not a matrix of numbers: {error}") from error
    return {name: as_numpy(rows) for name, rows in tensors.items()}


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
    dim = int(np.bincount(lengths).argmax())  # the most frequent length
    others = np.flatnonzero(lengths != dim)
    if others.size or not dim:
        raise ItemError(
            f"The lists in column {values.name!r} must be of one length, most are of {dim}; "
            f"{others.size} are not, the first in rows {first_ids(others)}."
        )
    return lists.explode().to_numpy().reshape(-1, dim)


def concatenated_features(blocks: Sequence[NDArray[Any]], ids: NDArray[Any]) -> NDArray[np.float32] | None:
    """Concatenate blocks of features, the rows of each scaled to unit length so that all blocks have the same weight.

    Args:
        blocks: Matrices [num_items, dim]. Rows of zeros stay zeros.
        ids: The items, for messages.

    Returns:
        [num_items, sum of dims]; None if there are no blocks.

    Raises:
        ShapeError: If a block is not a matrix of numbers with one row an item.
        NonFiniteError: If a block holds NaN or infinity.

    Example:
        >>> concatenated_features([np.array([[3.0, 4.0]]), np.array([[7.0]])], np.array([1])).tolist()
        [[0.6000000238418579, 0.800000011920929, 1.0]]
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
