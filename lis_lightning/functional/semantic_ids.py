"""Semantic IDs: items as short tuples of codes, from coarse to fine, that a ranker reads in place of their vectors.

A prefix is the first l codes of an item. Items that share a prefix share what a ranker learns of it.

Shapes: N items, L levels of codes.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array

_MOST_PAIRS = 4096**2  # of codes before and after


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
    (Kuhn 1955); the others have moved. Longer prefixes change at least as much. NaN for codes that differ and are too
    many to be matched, more than 4,096 on each side.

    Args:
        before: Codes of each item.
        after: Later codes of the same items.

    Example:
        >>> import numpy as np
        >>> code_churn(np.array([[0], [0], [1], [1]]), np.array([[5], [5], [3], [5]]))
        0.25
    """
    first, second = (np.unique(codes[:, 0], return_inverse=True)[1] for codes in (before, after))
    if np.array_equal(before[:, 0], after[:, 0]):
        return 0.0
    if (int(first.max()) + 1) * (int(second.max()) + 1) > _MOST_PAIRS:
        return math.nan
    together = coo_array((np.ones(len(before), np.int64), (first, second))).toarray()
    rows, columns = linear_sum_assignment(together, maximize=True)
    return 1.0 - float(together[rows, columns].sum() / len(before))
