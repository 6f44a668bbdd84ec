"""Randomised truncated SVD of a sparse matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy import sparse
from torch import Tensor

_DENSE_ENTRIES = 2**24  # up to 64 MB a dense product is faster than a sparse one
_OVERSAMPLING = 32
_POWER_STEPS = 3


def truncated_svd(matrix: sparse.csr_matrix, rank: int) -> tuple[Float[ndarray, "n r"], Float[ndarray, "m r"]]:
    """Return ``U sqrt(S)`` and ``V sqrt(S)`` of the leading components (Halko, Martinsson and Tropp 2011).

    Range finder with power iteration, in single precision: the components are accurate to 1e-6, which is finer than
    what the data determines.

    Args:
        matrix: Sparse matrix, [n, m].
        rank: Number of components, at most ``min(n, m)``.

    Returns:
        Left and right vectors, strongest component first; equal input gives equal output.
    """
    matrix = matrix.astype(np.float32, copy=False)
    forward, back = _products(matrix)
    columns = min(rank + _OVERSAMPLING, *matrix.shape)
    # A generator of its own: equal data gives equal vectors, and the global generator does not move.
    start = np.random.default_rng(0).standard_normal((matrix.shape[1], columns), dtype=np.float32)
    span = torch.linalg.qr(forward(torch.from_numpy(start))).Q
    for _ in range(_POWER_STEPS):
        span = torch.linalg.qr(forward(torch.linalg.qr(back(span)).Q)).Q
    # The SVD of the small projected matrix gives that of the whole within the span.
    right, strength, rotation = torch.linalg.svd(back(span), full_matrices=False)
    root = strength[:rank].sqrt()
    left = span @ rotation[:rank].mT
    return (left * root).double().numpy(), (right[:, :rank] * root).double().numpy()


def _products(matrix: sparse.csr_matrix) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return functions that multiply with a matrix and with its transpose, the fastest way for its size."""
    if matrix.shape[0] * matrix.shape[1] <= _DENSE_ENTRIES:
        dense = torch.from_numpy(matrix.toarray())
        return lambda columns: dense @ columns, lambda columns: dense.mT @ columns
    # SciPy multiplies CSR matrices three times as fast as torch does, and as SciPy does CSC matrices.
    transposed = matrix.T.tocsr()
    return (
        lambda columns: torch.from_numpy(matrix @ columns.numpy()),
        lambda columns: torch.from_numpy(transposed @ columns.numpy()),
    )
