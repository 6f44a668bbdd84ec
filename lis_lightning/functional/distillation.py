"""Distillation of a teacher's item vectors (such as ID embeddings of a ranker) into content representations.

All losses are invariant to the scale of the vectors, and the relational one also to rotation; so is a ranker.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lis_lightning.errors import ShapeError
from lis_lightning.functional.contrastive import info_nce
from lis_lightning.functional.loss_inputs import check_rows, check_same_shape, full_precision


def cosine_distillation(rows: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return the cosine distillation loss: the mean cosine distance between each row and the teacher's vector.

    The regression form of feature distillation (Romero et al. 2015, FitNets, eq. 3) on unit rows, where the squared
    distance is twice this loss.

    Args:
        rows: Representations, projected to the teacher's dimension.
        teacher: The teacher's vectors of the same items.

    Returns:
        A scalar in [0, 2], lower is better.

    Raises:
        ShapeError: If the shapes differ.
        NonFiniteError: If a row is NaN or infinite.

    Example:
        >>> import torch
        >>> round(cosine_distillation(torch.eye(3), 5 * torch.eye(3)).item(), 6)
        0.0
    """
    check_same_shape(rows=rows, teacher=teacher)
    check_rows(rows=rows, teacher=teacher)
    with full_precision(rows, teacher) as (student, target):
        return 1 - F.cosine_similarity(student, target, dim=-1).mean()


def gram_distillation(rows: Float[Tensor, "b d"], teacher: Float[Tensor, "b m"]) -> Float[Tensor, ""]:
    """Return the relational distillation loss: the mean squared difference of pairwise cosines from the teacher's.

    Relational distillation (Park et al. 2019, with cosines for distances; Tung and Mori 2019 compare whole Gram
    matrices as here). Invariant to rotation of either side, so no projection is needed.

    Args:
        rows: Representations, two or more.
        teacher: The teacher's vectors of the same items, of any dimension.

    Returns:
        A scalar in [0, 4], lower is better.

    Raises:
        ShapeError: If there are fewer than two rows, or a different number of teacher rows.
        NonFiniteError: If a row is NaN or infinite.

    Example:
        >>> import torch
        >>> round(gram_distillation(torch.eye(3), torch.eye(3).flip(1)).item(), 6)
        0.0
    """
    check_rows(rows=rows, teacher=teacher)
    if len(rows) < 2:
        raise ShapeError("Relations need two rows or more, but got 1.")
    with full_precision(rows, teacher) as both:
        student, target = (F.normalize(part, dim=-1) for part in both)
        difference = student @ student.T - target @ target.T
        # The diagonal is 0 up to rounding and is not counted.
        return difference.square().sum() / (len(student) * (len(student) - 1))


def contrastive_distillation(
    rows: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"], temperature: float | Float[Tensor, ""] = 0.1
) -> Float[Tensor, ""]:
    """Return the contrastive distillation loss (CRD, Tian et al. 2020) with in-batch negatives.

    Symmetric InfoNCE between the representations and the teacher's vectors.

    Args:
        rows: Representations, projected to the teacher's dimension.
        teacher: The teacher's vectors of the same items; each item occurs once.
        temperature: Above 0.

    Returns:
        A scalar of 0 or more, lower is better.

    Raises:
        ShapeError: If the shapes differ.
        NonFiniteError: If a row is NaN or infinite.
        ConfigError: If the temperature is a number of 0 or less.

    Example:
        >>> import torch
        >>> round(contrastive_distillation(torch.eye(3), torch.eye(3), temperature=1.0).item(), 4)
        0.5514
    """
    return info_nce(rows, teacher, temperature)
