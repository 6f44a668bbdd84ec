"""Conventional metrics of representations: RankMe, linear CKA and the AUC of item pairs.

They are logged beside AIS and help to explain its curve. None of them replaces it: each can fall while the ranker
gains, or stay flat while it loses.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.linalg import vecdot

from lis_lightning.functional.auc import auroc
from lis_lightning.functional.item_coordinates import ItemCoordinates
from lis_lightning.functional.threads import map_blocks

_CHUNK = 2**20  # floats of item vectors per block


def rankme(vectors: Float[Tensor, "N D"]) -> float:
    """Return the effective rank: the exponential of the entropy of the singular values (RankMe, Garrido et al. 2023).

    Departs from the paper by centring the rows first, so that a common offset does not hide the variance.

    Args:
        vectors: One row per item.

    Returns:
        Between 0 (no variance: collapsed) and min(N, D).

    Example:
        >>> import torch
        >>> round(rankme(torch.eye(4)), 3)
        3.0
    """
    centered = vectors.double() - vectors.double().mean(0)
    if float(centered.norm()) <= 1e-6 * float(vectors.double().norm()):
        return 0.0
    strength = torch.linalg.eigvalsh(_small_gram(centered)).clamp_min(0).sqrt()
    share = strength / strength.sum()
    return float(torch.exp(-(share * share.clamp_min(1e-300).log()).sum()))


def linear_cka(vectors: Float[Tensor, "N D"], others: Float[Tensor, "N M"]) -> float:
    """Return the linear centred kernel alignment of two sets of vectors of the same items (Kornblith et al. 2019).

    Args:
        vectors: One row per item.
        others: One row per item, in the same order.

    Returns:
        In [0, 1]; 1 for vectors that are equal up to rotation and scale; NaN if one set has no variance.

    Example:
        >>> import torch
        >>> vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
        >>> round(linear_cka(vectors, 5 * vectors.flip(1)), 3), round(linear_cka(vectors, vectors[:, :1]), 3)
        (1.0, 0.926)
    """
    x = vectors.double() - vectors.double().mean(0)
    y = others.double() - others.double().mean(0)
    scale = _small_gram(x).norm() * _small_gram(y).norm()
    return float((x.T @ y).norm().square() / scale) if float(scale) > 0 else float("nan")


def pair_auc(items: ItemCoordinates, pairs: Int[np.ndarray, "p 2"], rng: np.random.Generator) -> float:
    """Return the AUC of cosines that tell item pairs from pairs with a partner drawn from the other pairs.

    Args:
        items: Item vectors in their frame.
        pairs: Rows of items that were engaged with in succession.
        rng: Draws the partners, which keep the popularity of the true ones.

    Returns:
        In [0, 1]; 0.5 without information; NaN with fewer than two pairs.

    Example:
        >>> import numpy as np, torch
        >>> from lis_lightning.functional import principal_coordinates
        >>> directions = torch.tensor([[1.0, 0.0], [-1.0, 0.9], [-1.0, -0.9]])
        >>> items = principal_coordinates(directions.repeat(2, 1))
        >>> pair_auc(items, np.array([[0, 3], [1, 4], [2, 5]]), np.random.default_rng(0))
        1.0
    """
    if pairs.shape[0] < 2:
        return float("nan")
    shuffled = np.stack([pairs[:, 0], rng.permutation(pairs[:, 1])], axis=1)
    shuffled = shuffled[shuffled[:, 0] != shuffled[:, 1]]
    if not shuffled.size:
        return float("nan")
    cosines = [_cosines(items, torch.from_numpy(rows).to(items.profile.device)) for rows in (pairs, shuffled)]
    labels = np.repeat([1, 0], [cosine.size for cosine in cosines])
    return auroc(np.concatenate(cosines), labels)


def _cosines(items: ItemCoordinates, pairs: Tensor) -> Float[np.ndarray, " p"]:
    """Return the cosine of the items of each pair, in blocks."""
    blocks = torch.split(pairs, max(1, _CHUNK // items.vectors.shape[1]))
    cosines = map_blocks(lambda rows: vecdot(items.unit(rows[:, 0]), items.unit(rows[:, 1])), blocks, pairs.device)
    return torch.cat(list(cosines)).cpu().numpy()


def _small_gram(rows: Tensor) -> Tensor:
    """Return the Gram matrix of the rows or of the columns, whichever are fewer: their nonzero spectra are equal."""
    return rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows
