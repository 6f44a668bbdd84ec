"""ID embeddings of a ranker: alternating least squares on observed entries (Hu, Koren and Volinsky 2008)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import sparse

from lis_lightning.functional.item_vectors import ItemVectors
from lis_lightning.functional.randomized_svd import truncated_svd

ID_DIMS = 16


def id_vectors(
    users: Int[ndarray, " n"],
    items: Int[ndarray, " n"],
    labels: Float[ndarray, " n"],
    num_items: int,
    *,
    dim: int = ID_DIMS,
    penalty: float = 5.0,
    iterations: int = 8,
) -> ItemVectors:
    """Return item ID embeddings by alternating least squares, as a ranker would learn them from clicks and non-clicks.

    The factorised values are the residuals of user and item means, over observed entries only. It starts from a
    truncated SVD, so equal data gives equal vectors.

    Args:
        users: User of each event.
        items: Item of each event, in ``[0, num_items)``.
        labels: 0 or 1.
        num_items: Number of rows of the result.
        dim: Dimensions of the result.
        penalty: Ridge on each vector, in events.
        iterations: Rounds of user and item solves.

    Returns:
        The vectors; items without events are absent.

    Example:
        >>> import numpy as np
        >>> users, items = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
        >>> ids = id_vectors(users, items, np.array([1.0, 0.0, 0.0, 1.0]), 3, dim=1)
        >>> ids.present.tolist(), bool(ids.vectors[0, 0] * ids.vectors[1, 0] < 0)
        ([True, True, False], True)
    """
    _, rows = np.unique(users, return_inverse=True)
    num_users = int(rows.max(initial=-1)) + 1
    residual = _residual(rows, items, labels, num_users, num_items, penalty)
    shape = (num_users, num_items)
    # Entries and all sums below are in single precision, which exceeds the precision of a label.
    values = sparse.csr_matrix((residual.astype(np.float32), (rows, items)), shape=shape)
    counts = sparse.csr_matrix((np.ones(items.size, np.float32), (rows, items)), shape=shape)
    present = np.bincount(items, minlength=num_items) > 0
    rank = min(dim, min(shape) - 1)
    vectors = np.zeros((num_items, dim), np.float32)
    if rank >= 1:
        vectors[:, :rank] = truncated_svd(values, rank)[1]
        values_by_item, counts_by_item = values.T.tocsr(), counts.T.tocsr()
        for _ in range(iterations):
            user_vectors = _solve_vectors(values, counts, vectors, penalty)
            vectors = _solve_vectors(values_by_item, counts_by_item, user_vectors, penalty)
    return ItemVectors(vectors.astype(np.float64), present)


def _residual(
    rows: ndarray, items: ndarray, labels: ndarray, num_users: int, num_items: int, penalty: float
) -> Float[ndarray, " n"]:
    """Return the labels minus the shrunken user means, then minus the shrunken item means of that residual."""
    residual: ndarray = labels - labels.mean()
    for index, size in ((rows, num_users), (items, num_items)):
        total = np.bincount(index, weights=residual, minlength=size)
        residual = residual - (total / (np.bincount(index, minlength=size) + penalty))[index]
    return residual


def _solve_vectors(
    values: sparse.csr_matrix, counts: sparse.csr_matrix, fixed: Float[ndarray, "m D"], penalty: float
) -> Float[ndarray, "n D"]:
    """Return for each row the ridge solution against the `fixed` vectors, over the entries of that row."""
    dim = fixed.shape[1]
    # Gram matrices are symmetric: sum one triangle for all rows, then spread it over both.
    first, second = np.triu_indices(dim)
    position = np.empty((dim, dim), np.int64)
    position[first, second] = position[second, first] = np.arange(first.size)
    gram = np.take(counts @ (fixed[:, first] * fixed[:, second]), position, axis=1)
    gram += penalty * np.eye(dim, dtype=fixed.dtype)
    factors = torch.linalg.cholesky(torch.from_numpy(gram))
    solutions: ndarray = torch.cholesky_solve(torch.from_numpy(values @ fixed)[:, :, None], factors)[:, :, 0].numpy()
    return solutions
