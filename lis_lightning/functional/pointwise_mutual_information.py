"""Item vectors of co-engagement: truncated SVD of positive pointwise mutual information (Levy and Goldberg 2014)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from scipy import sparse

from lis_lightning.functional.item_vectors import ItemVectors
from lis_lightning.functional.randomized_svd import truncated_svd

PAIR_DIMS = 32


def pair_vectors(
    users: Int[ndarray, " n"],
    items: Int[ndarray, " n"],
    num_items: int,
    *,
    dim: int = PAIR_DIMS,
    smoothing: float = 0.75,
) -> ItemVectors:
    """Return item vectors from the items that users engaged with together.

    Two items co-occur once for each user who engaged with both, weighted by that user's number of items to the power
    -1/2. Vectors are ``U sqrt(S)`` of the truncated SVD of the positive pointwise mutual information, with the context
    distribution smoothed to the power 0.75.

    Args:
        users: User of each positive event.
        items: Item of each positive event, in ``[0, num_items)``.
        num_items: Number of rows of the result.
        dim: Dimensions of the result; those beyond the number of items that co-occur, less one, are zero.
        smoothing: Power of the context distribution, in (0, 1].

    Returns:
        The vectors; items that co-occur with none are absent.

    Example:
        >>> import numpy as np
        >>> users, items = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 4, 5])
        >>> pairs = pair_vectors(users, items, 7, dim=2)
        >>> pairs.present.tolist(), np.abs(pairs.vectors[0] @ pairs.vectors[[1, 3]].T).round(2).tolist()
        ([True, True, True, True, True, True, False], [0.73, 0.0])
    """
    return cooccurrence_vectors(cooccurrence(users, items, num_items), dim=dim, smoothing=smoothing)


def cooccurrence(users: Int[ndarray, " n"], items: Int[ndarray, " n"], num_items: int) -> sparse.csr_matrix:
    """Return the co-occurrence matrix of items, each user weighted by the number of items to the power -1/2.

    Args:
        users: User of each positive event.
        items: Item of each positive event, in ``[0, num_items)``.
        num_items: Number of rows and columns of the result.
    """
    _, rows = np.unique(users, return_inverse=True)
    engaged = sparse.csr_matrix((np.ones(items.size), (rows, items)), shape=(int(rows.max(initial=-1)) + 1, num_items))
    engaged.data[:] = 1.0  # an item counts once per user
    degree = np.asarray(engaged.sum(axis=1)).ravel()
    weighted = sparse.diags(np.maximum(degree, 1.0) ** -0.25) @ engaged
    return sparse.csr_matrix(weighted.T @ weighted)


def cooccurrence_vectors(together: sparse.csr_matrix, *, dim: int = PAIR_DIMS, smoothing: float = 0.75) -> ItemVectors:
    """Return item vectors from a co-occurrence matrix, as :func:`pair_vectors` defines them.

    Args:
        together: Symmetric weights of item pairs, [num_items, num_items]; the diagonal and the scale have no effect.
        dim: See :func:`pair_vectors`.
        smoothing: See :func:`pair_vectors`.

    Returns:
        The vectors; items that co-occur with none are absent.

    Example:
        >>> import numpy as np
        >>> from scipy import sparse
        >>> together = sparse.csr_matrix(1.0 - np.eye(3))
        >>> np.abs(cooccurrence_vectors(together, dim=1).vectors).round(2).tolist()
        [[0.52], [0.52], [0.52]]
    """
    ppmi = _positive_pmi(together, smoothing)
    present = np.asarray(ppmi.sum(axis=1)).ravel() > 0
    vectors = np.zeros((together.shape[0], dim))
    rank = min(dim, int(present.sum()) - 1)
    if rank > 0:
        vectors[:, :rank] = truncated_svd(ppmi, rank)[0] * present[:, None]
    return ItemVectors(vectors, present)


def _positive_pmi(cooccurring: sparse.csr_matrix, smoothing: float) -> sparse.csr_matrix:
    """Return the positive pointwise mutual information of item pairs, with the entries of `cooccurring`."""
    together = sparse.csr_matrix(cooccurring, dtype=np.float32, copy=True)
    rows = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
    value, columns = together.data, together.indices
    value[rows == columns] = 0.0
    target = np.asarray(together.sum(axis=1, dtype=np.float64)).ravel()
    context = target**smoothing
    # An item of no weight has only entries of no weight: divide by 1 there.
    value *= (context.sum() / np.where(target > 0, target, 1.0)).astype(np.float32)[rows]
    value /= np.where(context > 0, context, 1.0).astype(np.float32)[columns]
    together.data = np.log(np.maximum(value, 1.0))
    return together
