"""Semantic IDs: items as short tuples of codes, from coarse to fine, that a ranker reads in place of their vectors.

A prefix is the first l codes of an item. Items that share a prefix share what a ranker learns of it; that is all a code
passes on, so items are described here by the *other* items of their prefixes.

Shapes: N items, L levels of codes, D dimensions of item vectors.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from torch import Tensor

_NUM_FOLDS = 4  # of items
_PRIOR_ITEMS = 1.0  # at which the mean of a code is shrunk by half


def prefix_numbers(codes: Int[ndarray, "N L"]) -> Int[ndarray, "N L"]:
    """Return the number of each item's prefix at each level, counted from 0.

    Args:
        codes: Codes of each item, the coarsest first, at least 0.

    Returns:
        Two items have one number at level l if and only if their first l codes are equal.

    Example:
        >>> import numpy as np
        >>> prefix_numbers(np.array([[0, 7], [0, 9], [5, 7]])).tolist()
        [[0, 0], [0, 1], [1, 2]]
    """
    prefixes = np.empty(codes.shape, np.int64)
    parent = np.zeros(codes.shape[0], np.int64)
    for level in range(codes.shape[1]):
        code = codes[:, level].astype(np.int64)
        parent = np.unique(parent * (int(code.max(initial=0)) + 1) + code, return_inverse=True)[1]
        prefixes[:, level] = parent
    return prefixes


def rebuilt_vectors(
    vectors: Float[Tensor, "N D"], codes: Int[Tensor, "N L"], prefixes: Int[Tensor, "N L"], known: Bool[Tensor, " N"]
) -> Float[Tensor, "N D"]:
    """Return item vectors rebuilt from their codes, cross-fitted over items.

    A vector is the sum of a vector for each code, as in residual quantisation, and of one for each prefix. Each is the
    mean of what those before it have left of the vectors of its items, shrunk by one item (backfitting, Breiman and
    Friedman 1985). An item has no part in what it is rebuilt from: a code that nothing else has says nothing of its
    content.

    Args:
        vectors: The vectors that the codes stand for.
        codes: Codes of each item, the coarsest first.
        prefixes: Number of each item's prefix at each level; see :func:`prefix_numbers`.
        known: Items whose vectors count in the means: those that the codes were learnt on.

    Returns:
        The rebuilt vectors, less the mean of all; in the type of `vectors`, at least float32.

    Example:
        >>> import numpy as np, torch
        >>> codes = torch.arange(1000)[:, None] % 2
        >>> vectors = torch.tensor([[1.0], [3.0]])[codes[:, 0]]
        >>> rebuilt_vectors(vectors, codes, codes, torch.ones(1000, dtype=torch.bool))[:2].round(decimals=1)
        tensor([[-1.],
                [ 1.]])
    """
    rows = vectors.to(torch.float64 if vectors.dtype == torch.float64 else torch.float32)
    fold = torch.from_numpy(np.random.default_rng(0).permutation(len(rows)) % _NUM_FOLDS).to(rows.device)
    groupings = [group for group in (*codes.T, *prefixes.T[1:]) if bool((group != group[0]).any())]
    rebuilt = torch.zeros_like(rows)
    for number in range(_NUM_FOLDS):
        fitted, own = (known & (fold != number)).to(rows.dtype)[:, None], fold == number
        centered = rows - (rows * fitted).sum(0) / fitted.sum().clamp_min(1)
        estimate = torch.zeros_like(rows)
        for group in groupings:
            size = int(group.max()) + 1
            left = (centered - estimate).mul_(fitted)
            total = left.new_zeros(size, rows.shape[1]).index_add_(0, group, left)
            count = left.new_zeros(size, 1).index_add_(0, group, fitted)
            estimate += total.div_(count + _PRIOR_ITEMS)[group]
        rebuilt[own] = estimate[own]
    return rebuilt


def code_statistics(codes: Int[ndarray, "N L"], sizes: Int[ndarray, " L"]) -> dict[str, float]:
    """Return how well codes are spread over a codebook.

    Args:
        codes: Codes of each item.
        sizes: Number of codes that each level has.

    Returns:
        ``collision_rate``, the share of items that share all their codes with another item; ``utilisation``, the share
        of codes in use, and ``entropy`` of their use as a share of the largest possible one, each a mean over levels.

    Example:
        >>> import numpy as np
        >>> code_statistics(np.array([[0, 0], [0, 0], [1, 0], [1, 1]]), np.array([2, 4]))["collision_rate"]
        0.5
    """
    items_of = np.bincount(prefix_numbers(codes)[:, -1])
    uses = [np.bincount(codes[:, level]) for level in range(codes.shape[1])]
    used = [np.count_nonzero(use) / size for use, size in zip(uses, sizes, strict=True)]
    spread = [_entropy(use) / math.log(size) for use, size in zip(uses, sizes, strict=True) if size > 1]
    return {
        "collision_rate": float(items_of[items_of > 1].sum() / len(codes)),
        "utilisation": float(np.mean(used)),
        "entropy": float(np.mean(spread)) if spread else 0.0,
    }


def _entropy(counts: Int[ndarray, " C"]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def code_churn(before: Int[ndarray, "N L"], after: Int[ndarray, "N L"]) -> float:
    """Return the share of items that change their first code between two sets of codes.

    A new codebook numbers its codes anew. Codes are matched one to one so that as many items as possible keep theirs
    (Kuhn 1955); the others have moved. Longer prefixes change at least as much.

    Args:
        before: Codes of each item.
        after: Later codes of the same items.

    Example:
        >>> import numpy as np
        >>> code_churn(np.array([[0], [0], [1], [1]]), np.array([[5], [5], [3], [5]]))
        0.25
    """
    together = coo_array((np.ones(len(before), np.int64), (before[:, 0], after[:, 0]))).toarray()
    rows, columns = linear_sum_assignment(together, maximize=True)
    return 1.0 - float(together[rows, columns].sum() / len(before))
