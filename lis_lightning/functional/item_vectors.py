"""Item vectors from preference data: what a representation could at best learn, built without the users it scores.

Two kinds: co-engagement pairs (positive pointwise mutual information and its truncated SVD, Levy and Goldberg 2014) and
ID embeddings of a ranker (alternating least squares on the residuals of user and item means, Hu, Koren and Volinsky
2008 on observed entries). Both start from fixed vectors, so that equal data gives equal vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import sparse
from torch import Tensor

PAIR_DIMS = 32
ID_DIMS = 16
_DENSE_ENTRIES = 2**24  # up to 64 MB a dense product beats a sparse one
COMPLETION_STRENGTH = 30.0
_RIDGES = tuple(10.0 ** (step / 2) for step in range(-12, 3))  # in units of the strongest direction of the content
_TRUSTED = 3.0  # an item with this many events has half the say in the regression that one with many has
_OVERSAMPLING = 32
_POWER_STEPS = 3


@dataclass(frozen=True)
class ItemVectors:
    """Vectors of items, and which items have one.

    Attributes:
        vectors: [num_items, dim] float64; zeros where absent.
        present: Whether the data says anything of the item, [num_items].
    """

    vectors: Float[ndarray, "N D"]
    present: Bool[ndarray, " N"]


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
        items: Its item, in ``[0, num_items)``.
        num_items: Number of rows of the result.
        dim: Dimensions kept, at most the number of items that co-occur, less one.
        smoothing: Power of the context distribution, in (0, 1].
    """
    return cooccurrence_vectors(cooccurrence(users, items, num_items), dim=dim, smoothing=smoothing)


def cooccurrence(users: Int[ndarray, " n"], items: Int[ndarray, " n"], num_items: int) -> sparse.csr_matrix:
    """Return how often two items were engaged with by one user, each user weighted by the number of items to -1/2.

    Args:
        users: User of each positive event.
        items: Its item, in ``[0, num_items)``.
        num_items: Number of rows and columns of the result.
    """
    _, rows = np.unique(users, return_inverse=True)
    engaged = sparse.csr_matrix((np.ones(items.size), (rows, items)), shape=(int(rows.max(initial=-1)) + 1, num_items))
    engaged.data[:] = 1.0  # an item counts once for a user
    degree = np.asarray(engaged.sum(axis=1)).ravel()
    weighted = sparse.diags(np.maximum(degree, 1.0) ** -0.25) @ engaged
    return sparse.csr_matrix(weighted.T @ weighted)


def cooccurrence_vectors(together: sparse.csr_matrix, *, dim: int = PAIR_DIMS, smoothing: float = 0.75) -> ItemVectors:
    """Return item vectors from a co-occurrence matrix, as :func:`pair_vectors` defines them.

    Args:
        together: Symmetric weights of item pairs, [num_items, num_items]; its diagonal is not used, its scale cancels.
        dim: Dimensions kept, at most the number of items that co-occur, less one.
        smoothing: Power of the context distribution, in (0, 1].
    """
    ppmi = _ppmi(together, smoothing)
    present = np.asarray(ppmi.sum(axis=1)).ravel() > 0
    vectors = np.zeros((together.shape[0], dim))
    if rank := min(dim, int(present.sum()) - 1) if present.any() else 0:
        vectors[:, :rank] = _truncated_svd(ppmi, rank, _POWER_STEPS)[0] * present[:, None]
    return ItemVectors(vectors, present)


def _ppmi(cooccurring: sparse.csr_matrix, smoothing: float) -> sparse.csr_matrix:
    """Return the positive pointwise mutual information of item pairs, with the entries of `cooccurring`."""
    together = sparse.csr_matrix(cooccurring, dtype=np.float32, copy=True)
    rows = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
    value, columns = together.data, together.indices
    value[rows == columns] = 0.0
    target = np.asarray(together.sum(axis=1, dtype=np.float64)).ravel()
    context = target**smoothing
    # An item of no weight has only entries of no weight: any divisor will do.
    value *= (context.sum() / np.where(target > 0, target, 1.0)).astype(np.float32)[rows]
    value /= np.where(context > 0, context, 1.0).astype(np.float32)[columns]
    together.data = np.log(np.maximum(value, 1.0))
    return together


def _truncated_svd(
    matrix: sparse.csr_matrix, rank: int, steps: int
) -> tuple[Float[ndarray, "n r"], Float[ndarray, "m r"]]:
    """Return ``U sqrt(S)`` and ``V sqrt(S)`` of the leading components, strongest first (Halko et al. 2011).

    In single precision: the components are then right to 1e-6, and the data says nothing that fine.
    """
    matrix = matrix.astype(np.float32, copy=False)
    forward, back = _products(matrix)
    columns = min(rank + _OVERSAMPLING, *matrix.shape)
    # Equal data must give equal vectors, and nobody's generator may move.
    start = np.random.default_rng(0).standard_normal((matrix.shape[1], columns), dtype=np.float32)
    span = torch.linalg.qr(forward(torch.from_numpy(start))).Q
    for _ in range(steps):
        span = torch.linalg.qr(forward(torch.linalg.qr(back(span)).Q)).Q
    right, strength, turn = torch.linalg.svd(back(span), full_matrices=False)
    root = strength[:rank].sqrt()
    left = span @ turn[:rank].mT
    return (left * root).double().numpy(), (right[:, :rank] * root).double().numpy()


def _products(matrix: sparse.csr_matrix) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return how to multiply with a matrix and with its transpose, the fastest way for its size."""
    if matrix.shape[0] * matrix.shape[1] <= _DENSE_ENTRIES:
        dense = torch.from_numpy(matrix.toarray())
        return lambda columns: dense @ columns, lambda columns: dense.mT @ columns
    transposed = matrix.T.tocsr()  # SciPy multiplies by rows three times as fast as torch, and as by columns
    return (
        lambda columns: torch.from_numpy(matrix @ columns.numpy()),
        lambda columns: torch.from_numpy(transposed @ columns.numpy()),
    )


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
    """Return item vectors as an ID-based ranker would learn them from clicks and non-clicks.

    Alternating least squares on what user and item means leave of the label, over observed entries only.

    Args:
        users: User of each event.
        items: Its item, in ``[0, num_items)``.
        labels: 0 or 1.
        num_items: Number of rows of the result.
        dim: Dimensions.
        penalty: Ridge on each vector, in events.
        iterations: Rounds of user and item solves.
    """
    _, rows = np.unique(users, return_inverse=True)
    num_users = int(rows.max(initial=-1)) + 1
    residual = _residual(rows, items, labels, num_users, num_items, penalty)
    shape = (num_users, num_items)
    # Entries in single precision, as all that is summed of them below: a rating says nothing that fine.
    values = sparse.csr_matrix((residual.astype(np.float32), (rows, items)), shape=shape)
    counts = sparse.csr_matrix((np.ones(items.size, np.float32), (rows, items)), shape=shape)
    present = np.bincount(items, minlength=num_items) > 0
    rank = min(dim, min(shape) - 1)
    vectors = np.zeros((num_items, dim), np.float32)
    if rank >= 1:
        vectors[:, :rank] = _truncated_svd(values, rank, _POWER_STEPS)[1]  # where to start, no more
        by_item = values.T.tocsr(), counts.T.tocsr()
        for _ in range(iterations):
            vectors = _solve_vectors(*by_item, _solve_vectors(values, counts, vectors, penalty), penalty)
    return ItemVectors(vectors.astype(np.float64), present)


def _residual(
    rows: ndarray, items: ndarray, labels: ndarray, num_users: int, num_items: int, penalty: float
) -> Float[ndarray, " n"]:
    """Return the label less the shrunken user mean, less the shrunken item mean of what is left."""
    residual: ndarray = labels - labels.mean()
    for index, size in ((rows, num_users), (items, num_items)):
        total = np.bincount(index, weights=residual, minlength=size)
        residual = residual - (total / (np.bincount(index, minlength=size) + penalty))[index]
    return residual


def _solve_vectors(
    values: sparse.csr_matrix, counts: sparse.csr_matrix, other: Float[ndarray, "m D"], penalty: float
) -> Float[ndarray, "n D"]:
    """Return for each row the ridge solution against `other`, over the entries that row has."""
    dim = other.shape[1]
    first, second = np.triu_indices(dim)  # a Gram matrix is symmetric: half of the sums will do
    whole = np.empty((dim, dim), np.int64)
    whole[first, second] = whole[second, first] = np.arange(first.size)
    gram = np.take(counts @ (other[:, first] * other[:, second]), whole, axis=1)
    gram += penalty * np.eye(dim, dtype=other.dtype)
    factors = torch.linalg.cholesky(torch.from_numpy(gram))
    solutions: ndarray = torch.cholesky_solve(torch.from_numpy(values @ other)[:, :, None], factors)[:, :, 0].numpy()
    return solutions


def rotate_onto(source: ItemVectors, reference: ItemVectors) -> ItemVectors:
    """Return `source` rotated onto `reference` over the items that both have (orthogonal Procrustes, Schoenemann 1966).

    Fold spaces differ by an arbitrary rotation; the probe fits one set of weights for all of them.
    """
    both = source.present & reference.present
    left, _, right = np.linalg.svd(source.vectors[both].T @ reference.vectors[both])
    return ItemVectors(source.vectors @ (left @ right), source.present)


def complete_vectors(
    known: ItemVectors, counts: Int[ndarray, " N"], content: ItemVectors, *, strength: float = COMPLETION_STRENGTH
) -> ItemVectors:
    """Return item vectors filled in, where data is missing or thin, with what content predicts.

    A ridge regression of the vectors on the content, its strength by the left-out error, predicts each item from all
    others; an item with n events keeps ``n / (n + strength)`` of what the prediction leaves (the posterior mean of a
    normal model: James and Stein 1961). Content that predicts nothing changes no direction but those of thin items.

    Args:
        known: Vectors of preference data.
        counts: Events that each item's vector rests on.
        content: Vectors of the same items from what they look like.
        strength: Events at which the data and the content's prediction weigh the same, at least 0.

    Returns:
        The vectors; items with content are all present, others are as they were.
    """
    weight = np.where(known.present & content.present, counts / (counts + _TRUSTED), 0.0)[:, None]
    total = max(float(weight.sum()), 1e-12)
    shift = (weight * known.vectors).sum(0) / total
    given, wanted = content.vectors - (weight * content.vectors).sum(0) / total, known.vectors - shift
    spread, axes = np.linalg.eigh(given.T @ (weight * given))
    given = given @ axes
    moments = given.T @ (weight * wanted)
    smallest, predicted = np.inf, np.zeros_like(wanted)
    for ridge in _RIDGES:
        inverse = 1.0 / (np.maximum(spread, 0.0) + max(ridge * spread[-1], 1e-12))
        fitted = given @ (inverse[:, None] * moments)
        # The closed form of leaving one out: h is the weight of an item in its own prediction.
        leverage = weight * (given**2 @ inverse)[:, None]
        left_out = (wanted - fitted) / np.maximum(1.0 - leverage, 1e-3)
        error = float((weight * left_out**2).sum())
        if error < smallest:
            smallest, predicted = error, np.where(weight > 0, wanted - left_out, fitted)
    kept = np.where(known.present, counts / np.maximum(counts + strength, 1e-12), 0.0)[:, None]
    filled = shift + predicted + kept * (wanted - predicted)
    return ItemVectors(np.where(content.present[:, None], filled, known.vectors), known.present | content.present)
