"""Losses on preferences: of two items that a user was shown, the clicked one is to score higher."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lis_lightning.functional.losses import check_above_zero, check_rows, check_same_shape, full_precision


def pool_history(rows: Float[Tensor, "b l d"], present: Bool[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    """Return users as the mean of the unit rows of their history; zeros for an empty one.

    Args:
        rows: Representations of the items of each history, padded.
        present: Which places hold an item.

    Example:
        >>> import torch
        >>> pool_history(torch.tensor([[[2.0, 0.0], [0.0, 4.0]]]), torch.tensor([[True, False]])).tolist()
        [[1.0, 0.0]]
    """
    with full_precision(rows) as (full,):
        unit = F.normalize(full, dim=-1) * present[..., None]
        return unit.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp_min(1)


def bpr(scores: Float[Tensor, " b"], others: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return ``-mean log sigmoid(s_i - s_j)``: Bayesian personalised ranking (Rendle et al. 2009, section 4).

    Args:
        scores: Scores of the preferred items.
        others: Scores of the items that they were preferred to, by the same users.

    Returns:
        A scalar of 0 or more; log 2 where the scores say nothing.

    Raises:
        ShapeError: If the two differ in shape.
        NonFiniteError: If a score is NaN or infinite.

    Example:
        >>> import torch
        >>> round(bpr(torch.zeros(2), torch.zeros(2)).item(), 4)
        0.6931
    """
    check_same_shape(scores=scores, others=others)
    check_rows(scores=scores[:, None], others=others[:, None])
    with full_precision(scores, others) as (preferred, rest):
        return F.softplus(rest - preferred).mean()


def dpo(
    scores: Float[Tensor, " b"],
    others: Float[Tensor, " b"],
    reference_scores: Float[Tensor, " b"],
    reference_others: Float[Tensor, " b"],
    beta: float = 1.0,
) -> Float[Tensor, ""]:
    """Return ``-mean log sigmoid(beta ((s_i - r_i) - (s_j - r_j)))``: direct preference optimisation.

    Rafailov et al. 2023, eq. 7, with the log-probabilities of the policy and of the frozen reference replaced by the
    scores of an item under the trained and the frozen encoder: over a fixed set of items the log-partition is the same
    for both items and cancels. What the reference already tells apart earns nothing.

    Args:
        scores: Scores of the preferred items.
        others: Scores of the items that they were preferred to, by the same users.
        reference_scores: Of the preferred items under the frozen reference.
        reference_others: Of the others under it.
        beta: How closely to stay with the reference; above 0, smaller departs further.

    Returns:
        A scalar of 0 or more; log 2 where nothing has departed from the reference.

    Raises:
        ShapeError: If shapes differ.
        NonFiniteError: If a score is NaN or infinite.
        ConfigError: If `beta` is 0 or less.

    Example:
        >>> import torch
        >>> s, r = torch.tensor([2.0]), torch.tensor([1.0])
        >>> round(dpo(s, r, s, r).item(), 4)
        0.6931
    """
    check_above_zero(beta=beta)
    check_same_shape(scores=scores, others=others, reference_scores=reference_scores, reference_others=reference_others)
    return bpr(beta * (scores - reference_scores), beta * (others - reference_others))
