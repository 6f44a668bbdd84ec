"""Pairwise preference losses: of two items that a user was shown, the chosen one should score higher."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from lis_lightning.functional.loss_inputs import check_above_zero, check_rows, check_same_shape, full_precision


def bpr(chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return the loss of Bayesian personalised ranking, ``-mean log sigmoid(s_i - s_j)`` (Rendle et al. 2009, sec. 4).

    Args:
        chosen: Scores of the preferred items.
        rejected: Scores of the items that the same users did not choose.

    Returns:
        A scalar of 0 or more; log 2 for equal scores.

    Raises:
        ShapeError: If the two differ in shape.
        NonFiniteError: If a score is NaN or infinite.

    Example:
        >>> import torch
        >>> round(bpr(torch.zeros(2), torch.zeros(2)).item(), 4)
        0.6931
    """
    check_same_shape(chosen=chosen, rejected=rejected)
    check_rows(chosen=chosen[:, None], rejected=rejected[:, None])
    with full_precision(chosen, rejected) as (higher, lower):
        return F.softplus(lower - higher).mean()


def dpo(
    chosen: Float[Tensor, " b"],
    rejected: Float[Tensor, " b"],
    reference_chosen: Float[Tensor, " b"],
    reference_rejected: Float[Tensor, " b"],
    beta: float = 1.0,
) -> Float[Tensor, ""]:
    """Return the direct preference optimisation loss, ``-mean log sigmoid(beta ((s_i - r_i) - (s_j - r_j)))``.

    Rafailov et al. 2023, eq. 7, with the log-probabilities of the policy and of the frozen reference replaced by the
    scores of an item under the trained and the frozen encoder: over a fixed set of items the log-partition is the same
    for both items and cancels. A difference that the reference already makes does not lower the loss.

    Args:
        chosen: Scores of the preferred items.
        rejected: Scores of the items that the same users did not choose.
        reference_chosen: Scores of the preferred items under the frozen reference.
        reference_rejected: Scores of the rejected items under the frozen reference.
        beta: Strength of the tie to the reference, above 0; smaller values allow larger departures.

    Returns:
        A scalar of 0 or more; log 2 if the scores equal those of the reference.

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
    check_same_shape(
        chosen=chosen, rejected=rejected, reference_chosen=reference_chosen, reference_rejected=reference_rejected
    )
    return bpr(beta * (chosen - reference_chosen), beta * (rejected - reference_rejected))
