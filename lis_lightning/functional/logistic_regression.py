"""Ridge logistic regression by Newton's method, and the likelihood-maximising slope of one score."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def fit_logistic(
    features: Float[Tensor, "E f"],
    labels: Float[Tensor, " E"],
    *,
    penalty: float,
    offset: Float[Tensor, " E"] | None = None,
    max_iterations: int = 50,
) -> Float[Tensor, " f"]:
    """Return the coefficients of a ridge logistic regression, by Newton's method.

    Minimises ``sum_e log(1 + exp(-s_e)) + penalty / 2 |w|^2``, where the sign of the logit s_e is set by the label. A
    constant last column is an intercept and is not penalised.

    Args:
        features: Standardised features; the last column may be all ones.
        labels: 0 or 1.
        penalty: Strength of the ridge, at least 0.
        offset: Logit added with a fixed coefficient of 1.
        max_iterations: Newton steps at most; it converges in about 6.

    Returns:
        One coefficient per feature.

    Example:
        >>> import torch
        >>> features = torch.tensor([[-1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
        >>> fit_logistic(features, torch.tensor([0.0, 1, 0, 1], dtype=torch.float64), penalty=1.0).round(decimals=3)
        tensor([ 0.4530, -0.2260], dtype=torch.float64)
    """
    weight = features.new_zeros(features.shape[1])
    ridge = features.new_full((features.shape[1],), penalty)
    if features.shape[1] and bool((features[:, -1] == features[:1, -1]).all()):
        ridge[-1] = 0.0
    base = offset if offset is not None else features.new_zeros(features.shape[0])
    loss = _logistic_loss(base, features, weight, labels, ridge)
    for _ in range(max_iterations):
        probability = torch.sigmoid(base + features @ weight)
        gradient = features.T @ (probability - labels) + ridge * weight
        curvature = (probability * (1 - probability)).clamp_min(1e-12)
        hessian = (features * curvature[:, None]).T @ features + torch.diag(ridge + 1e-9)
        step = torch.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6:  # halve until the loss falls: plain Newton overshoots on separable data
            proposed = weight - size * step
            proposed_loss = _logistic_loss(base, features, proposed, labels, ridge)
            if proposed_loss <= loss:
                break
            size /= 2
        else:
            break
        converged = loss - proposed_loss < 1e-10 * (1 + abs(loss))
        weight, loss = proposed, proposed_loss
        if converged:
            break
    return weight


def _logistic_loss(base: Tensor, features: Tensor, weight: Tensor, labels: Tensor, ridge: Tensor) -> float:
    logits = base + features @ weight
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    return float(loss + 0.5 * (ridge * weight.square()).sum())


def fit_slope(
    scores: Float[Tensor, " E"], labels: Float[Tensor, " E"], offset: Float[Tensor, " E"]
) -> tuple[float, float]:
    """Return the slope a >= 0 that maximises the likelihood of logits ``offset + a * scores``, and its standard error.

    Args:
        scores: Out-of-fold predictions of the residual.
        labels: 0 or 1.
        offset: Logits of the base.

    Returns:
        Slope and standard error, both 0 for constant scores.

    Example:
        >>> import torch
        >>> scores = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
        >>> labels = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
        >>> slope, error = fit_slope(-scores, labels, torch.zeros_like(labels))
        >>> slope, round(error, 3)
        (0.0, 0.816)
    """
    spread = float(scores.std(correction=0)) if scores.numel() else 0.0
    if not spread > 0:
        return 0.0, 0.0
    unit = scores / spread
    slope = max(0.0, float(fit_logistic(unit[:, None], labels, penalty=0.0, offset=offset)[0]))
    # The standard error is that of the Fisher information at the slope.
    probability = torch.sigmoid(offset + slope * unit)
    information = float((probability * (1 - probability) * unit.square()).sum())
    return slope / spread, (information**-0.5 if information > 0 else 0.0) / spread
