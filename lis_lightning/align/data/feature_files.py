"""Feature matrices of the items: from files or a column of lists, scaled and concatenated."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.align.data.item_table import check_features
from lis_lightning.data.item_rows import first_ids
from lis_lightning.data.tables import require_columns
from lis_lightning.errors import ConfigError, ItemError, LisWarning, LogError, ShapeError

_FLOAT_BYTES = 4  # of a number in an index of FAISS that is not compressed


def feature_block(table: pl.DataFrame, source: str | Path) -> NDArray[Any]:
    """Return a matrix of item features, [num_items, dim].

    Args:
        table: The item table.
        source: A file of one matrix (see :func:`load_tensors`) with rows in the order of the table, or a column of
            lists.

    Raises:
        ConfigError: If the file does not exist.
        ItemError: If there is no such column, or it does not hold lists of numbers of one length.
        ShapeError: If the file holds no array or several.
    """
    path = Path(source).expanduser()
    if path.suffix in TENSOR_ENDINGS:
        return load_array(path)
    try:
        require_columns(table, [str(source)], "item table")
    except LogError as error:
        raise ItemError(
            f"features={str(source)!r} is no .npy or .safetensors file, and as a column: {error}"
        ) from error
    return list_column(table[str(source)])


def load_array(path: Path) -> NDArray[Any]:
    """Return the only array in a file of tensors (any float type).

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
    """Return the arrays in a file of tensors by name; a single one without a name has the file's name.

    Args:
        path: ``.npy``; ``.safetensors``; ``.pt`` of ``torch.save``, a tensor or a dict of tensors (and of ids); or
            ``.faiss`` or ``.index`` of FAISS, with ``embeddings`` and, of an IndexIDMap, ``item_ids``. Vectors of a
            compressed FAISS index are the approximations that it searches.

    Raises:
        ConfigError: If the file does not exist, or needs FAISS.
        ShapeError: If it is damaged, or holds other objects.
    """
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    if not path.is_file():
        raise ConfigError(f"The item features {path} do not exist; give a .npy or .safetensors file, or a column.")
    errors = (OSError, ValueError, EOFError, RuntimeError, LookupError, TypeError, UnpicklingError, SafetensorError)
    try:
        return _LOADERS[path.suffix](path)
    except errors as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ShapeError(f"The item features {path} are not a matrix of numbers: {reason}") from error


def _load_numpy(path: Path) -> dict[str, NDArray[Any]]:
    return {path.stem: np.asarray(np.load(path, allow_pickle=False))}


def _load_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors.torch import load_file

    return {name: _as_numpy(rows) for name, rows in load_file(path).items()}  # through torch: NumPy has no bfloat16


def _load_torch(path: Path) -> dict[str, NDArray[Any]]:
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)  # runs no code of the file
    tensors = content if isinstance(content, dict) else {path.stem: content}
    return {str(name): _as_numpy(rows) for name, rows in tensors.items()}


def _load_faiss(path: Path) -> dict[str, NDArray[Any]]:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(f"{path.name} is an index of FAISS: pip install faiss-cpu") from error
    index: Any = faiss.read_index(str(path))
    has_ids = isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2)
    vectors: Any = faiss.downcast_index(index.index) if has_ids else index
    if hasattr(vectors, "make_direct_map"):
        vectors.make_direct_map()  # an inverted file finds its vectors by row only with one
    if vectors.sa_code_size() < _FLOAT_BYTES * vectors.d:
        warnings.warn(
            f"{path.name} is a compressed index ({type(vectors).__name__}): its vectors are approximations of those "
            "that were added.",
            LisWarning,
            stacklevel=2,
        )
    tensors = {"embeddings": vectors.reconstruct_n(0, vectors.ntotal)}
    return tensors | {"item_ids": faiss.vector_to_array(index.id_map)} if has_ids else tensors


_LOADERS: dict[str, Callable[[Path], dict[str, NDArray[Any]]]] = {
    ".npy": _load_numpy,
    ".safetensors": _load_safetensors,
    ".pt": _load_torch,
    ".faiss": _load_faiss,
    ".index": _load_faiss,
}
TENSOR_ENDINGS = tuple(_LOADERS)


def _as_numpy(rows: Any) -> NDArray[Any]:
    """Return a tensor, or a list of ids, as an array; bfloat16, which NumPy lacks, as float32."""
    import torch

    if not isinstance(rows, torch.Tensor):
        return np.asarray(rows)
    rows = rows.detach()
    array: NDArray[Any] = rows.float().numpy() if rows.dtype == torch.bfloat16 else rows.numpy()
    return array


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
