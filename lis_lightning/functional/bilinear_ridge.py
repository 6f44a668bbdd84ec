"""Ridge regression on a bilinear form ``m^T W p`` of two vectors, with a Kronecker-factored Gram matrix.

A full bilinear form of 64 coordinates has 4,096 products, whose Gram matrix would cost more than everything else of a
score. If profile and target of an event were independent, that Gram matrix would be the Kronecker product of two small
ones, ``n E[m m^T] x E[p p^T]``, as in K-FAC (Martens and Grosse 2015). In the eigenbases of both, with eigenvalues a
and b, the ridge solution is then one division, here in the form that shrinks the eigenvalues towards their mean::

    W_ij = (C_ij / n) / ((1 - rho) a_i b_j + rho mean(a b^T))        rho = lambda / (n + lambda)
    C = sum_e r_e m_e p_e^T

It is the ridge solution times ``1 + lambda / n``, so that the penalty changes the direction of W and hardly its scale.
All products share one scale: strong axes are penalised as much as weak ones, as in a ranker that learns a projection of
the representation. Giving each product unit spread instead, a spectrum that training concentrates would look like a
gain.

Shapes: E events, K axes, G groups of users, P penalties.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK = 4096  # events whose projections are held at once


@dataclass(frozen=True)
class BilinearMoments:
    """What ridge regressions on a bilinear form need of the training events, summed for each group of users.

    Attributes:
        cross: Products of residual, profile and target in the eigenbases of both, [G, K, K].
        counts: Number of events, [G].
        strength: Mean square of each product if profile and target are independent, ``a_i b_j``, [K, K].
        profile_axes: Eigenvectors of the profiles' second moments, in columns, [K, K].
        target_axes: Eigenvectors of the targets' second moments, in columns, [K, K].
        profile_mean: Mean profile, [K].
        target_mean: Mean target, [K].
    """

    cross: Float[Tensor, "G K K"]
    counts: Float[Tensor, " G"]
    strength: Float[Tensor, "K K"]
    profile_axes: Float[Tensor, "K K"]
    target_axes: Float[Tensor, "K K"]
    profile_mean: Float[Tensor, " K"]
    target_mean: Float[Tensor, " K"]


def bilinear_moments(
    profile: Float[Tensor, "E K"],
    target: Float[Tensor, "E K"],
    residual: Float[Tensor, " E"],
    members: list[Int[Tensor, " _"]],
) -> BilinearMoments:
    """Return the moments of the training events, from one pass over them.

    Args:
        profile: Profile of each event's user.
        target: Coordinates of each event's target.
        residual: What is regressed, in float64.
        members: Training events of each group of users.
    """
    events = torch.cat(members)
    means, axes, strengths = [], [], []
    for factor in (profile, target):
        mean, second = _second_moments(factor, events)
        values, vectors = torch.linalg.eigh(second)
        means.append(mean)
        axes.append(vectors)
        strengths.append(values.clamp_min(0.0))
    cross = [_cross(profile, target, residual, group, means) for group in members]
    return BilinearMoments(
        cross=axes[0].T @ torch.stack(cross) @ axes[1],
        counts=residual.new_tensor([group.numel() for group in members]),
        strength=torch.outer(*strengths),
        profile_axes=axes[0],
        target_axes=axes[1],
        profile_mean=means[0],
        target_mean=means[1],
    )


def _second_moments(factor: Tensor, events: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and second central moments of some rows, [K] and [K, K], in float64."""
    width = factor.shape[1]
    total, products = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
    total, products = total.to(factor.device), products.to(factor.device)
    for block in torch.split(events, _BLOCK):
        rows = factor.index_select(0, block)
        total += rows.sum(0, dtype=torch.float64)
        products += rows.T @ rows
    mean = total / max(1, events.numel())
    return mean, products / max(1, events.numel()) - torch.outer(mean, mean)


def _cross(profile: Tensor, target: Tensor, residual: Tensor, events: Tensor, means: list[Tensor]) -> Tensor:
    """Return ``sum_e r_e (m_e - mean) (p_e - mean)^T`` of some events, [K, K], in float64."""
    cross = residual.new_zeros(profile.shape[1], target.shape[1])
    for block in torch.split(events, _BLOCK):
        left = profile.index_select(0, block) - means[0].to(profile.dtype)
        right = target.index_select(0, block) - means[1].to(target.dtype)
        cross += (left * residual[block, None].to(left.dtype)).T @ right
    return cross


def bilinear_weights(
    moments: BilinearMoments, groups: Float[Tensor, "n G"], penalties: Float[Tensor, " n"]
) -> Float[Tensor, "n K K"]:
    """Return the ridge solutions for several choices of training groups, each with a penalty of its own.

    Args:
        moments: Moments of the training events.
        groups: 1 for the groups that a solution is fitted on, else 0.
        penalties: Ridge penalty of each solution, in events: at n events, half of the mean strength is shrinkage.

    Returns:
        Weights W of ``m^T W p`` in the coordinates of profile and target; zeros where nothing varies.
    """
    cross = torch.einsum("ng,gij->nij", groups, moments.cross)
    varying = moments.strength > 1e-9 * moments.strength.max()  # zero axes must not change the mean
    if not varying.any():
        return torch.zeros_like(cross)
    scale = moments.strength[varying].mean()
    count = (groups @ moments.counts).clamp_min(1.0)[:, None, None]
    shrinkage = penalties[:, None, None] / (count + penalties[:, None, None])
    damped = (1 - shrinkage) * moments.strength + shrinkage * scale
    return moments.profile_axes @ (varying * cross / count / damped) @ moments.target_axes.T


def bilinear_predictions(
    moments: BilinearMoments,
    profile: Float[Tensor, "E K"],
    target: Float[Tensor, "E K"],
    events: Int[Tensor, " e"],
    weights: Float[Tensor, "n K K"],
) -> Float[Tensor, "e n"]:
    """Return ``(m - mean)^T W (p - mean)`` of some events for each of n solutions, in float64.

    Args:
        moments: Moments of the training events, for the means.
        profile: Profile of each event's user.
        target: Coordinates of each event's target.
        events: Which events.
        weights: Solutions, as :func:`bilinear_weights` returns them.
    """
    num_weights, width = weights.shape[0], weights.shape[1]
    stacked = weights.permute(1, 0, 2).reshape(width, num_weights * width).to(profile.dtype)
    predictions = weights.new_empty(events.numel(), num_weights)
    for rows, block in zip(torch.split(predictions, _BLOCK), torch.split(events, _BLOCK), strict=True):
        left = profile.index_select(0, block) - moments.profile_mean.to(profile.dtype)
        right = target.index_select(0, block) - moments.target_mean.to(target.dtype)
        projected = (left @ stacked).view(block.numel(), num_weights, width)
        rows.copy_(torch.linalg.vecdot(projected, right[:, None]))
    return predictions
