"""Item vectors rebuilt from semantic IDs: what the other items of a code tell of an item.

Items that share a code share what a ranker learns of it. That is all a code passes on: an item is described here by the
*other* items of its codes.

Shapes: N items, L levels of codes, D dimensions of item vectors.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_NUM_FOLDS = 4  # of items
_PRIOR_ITEMS = 1.0  # at which the mean of a code is shrunk by half


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
        prefixes: Number of each item's prefix at each level, from
            :func:`~lis_lightning.functional.semantic_ids.prefix_numbers`.
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
