"""What conventional curves say of the same vectors; logged beside AIS, never instead of it.

Each of these can fall while the ranker gains, or stay flat while it loses; they explain a curve.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lis_lightning.functional.auroc import auroc


def rankme(vectors: Float[Tensor, "N D"]) -> float:
    """Return the effective rank: the exponential of the entropy of the singular values (RankMe, Garrido et al. 2023).

    Departs from the paper by centring the rows first, so that a common offset does not hide what varies.

    Args:
        vectors: One row an item.

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
    strength = torch.linalg.eigvalsh(centered.T @ centered).clamp_min(0).sqrt()
    share = strength / strength.sum()
    return float(torch.exp(-(share * share.clamp_min(1e-300).log()).sum()))


def linear_cka(vectors: Float[Tensor, "N D"], others: Float[Tensor, "N M"]) -> float:
    """Return the linear centred kernel alignment of two sets of vectors of the same items (Kornblith et al. 2019).

    Args:
        vectors: One row an item.
        others: One row an item.

    Returns:
        In [0, 1]; 1 for equal up to rotation and scale; NaN where one of them has no variance.
    """
    x = vectors.double() - vectors.double().mean(0)
    y = others.double() - others.double().mean(0)
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return float((x.T @ y).norm().square() / scale) if float(scale) > 0 else float("nan")


def pair_auc(vectors: Float[Tensor, "N D"], pairs: Int[np.ndarray, "p 2"], rng: np.random.Generator) -> float:
    """Return how often the cosine of a pair exceeds that of a pair with a partner drawn from the other pairs.

    Args:
        vectors: One row an item.
        pairs: Rows of items that were engaged with in succession.
        rng: Draws the partners; they keep the popularity of the true ones.

    Returns:
        In [0, 1], 0.5 without information; NaN with fewer than two pairs.
    """
    if pairs.shape[0] < 2:
        return float("nan")
    centered = vectors.double() - vectors.double().mean(0)
    unit = torch.nn.functional.normalize(centered, dim=1)
    shuffled = np.stack([pairs[:, 0], rng.permutation(pairs[:, 1])], axis=1)
    shuffled = shuffled[shuffled[:, 0] != shuffled[:, 1]]
    cosines = [(unit[rows[:, 0]] * unit[rows[:, 1]]).sum(1).cpu().numpy() for rows in (pairs, shuffled)]
    labels = np.repeat([1, 0], [cosine.size for cosine in cosines])
    return auroc(np.concatenate(cosines), labels)
