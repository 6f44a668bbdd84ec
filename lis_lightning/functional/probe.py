"""The probe: how much a ranker's AUC gains from item vectors, in closed form and without a seed of its own.

A logistic base gives every event a logit. A ridge regression on bilinear and attention features explains what the base
leaves, and one non-negative slope puts its prediction on the logit scale. Refitting both arms jointly, or boosting, was
tried and refused: a collapsed representation then scores above zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

NUM_FOLDS = 4  # of users, for the choice of the penalty
NUM_GROUPS = 12  # of users, for the sampling of the training window; fold = group % NUM_FOLDS
PENALTIES = tuple(10.0 ** (3 + step / 2) for step in range(7))  # 1e3 .. 1e6
ATTENTION_GAIN = 3.0  # attention features enter at three times unit spread: a nine times weaker ridge
_BLOCK = 16384  # events whose features are held at once


def fit_logistic(
    features: Float[Tensor, "E f"],
    labels: Float[Tensor, " E"],
    *,
    penalty: float,
    offset: Float[Tensor, " E"] | None = None,
    max_iterations: int = 50,
) -> Float[Tensor, " f"]:
    """Return the coefficients of a ridge logistic regression by Newton's method.

    Minimises ``sum_e log(1 + exp(-s_e)) + penalty / 2 |w|^2`` with the sign of s_e set by the label. The last column is
    not penalised if it is constant (an intercept).

    Args:
        features: Standardised features; the last column may be all ones.
        labels: 0 or 1.
        penalty: Strength of the ridge, at least 0.
        offset: Logit added with a fixed coefficient of 1.
        max_iterations: Newton steps at most; it converges in about 6.
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
    """Return the slope a >= 0 that maximises the likelihood of ``offset + a * scores``, and its standard error.

    Both are 0 where the scores say nothing at all.

    Args:
        scores: Out-of-fold predictions of the residual.
        labels: 0 or 1.
        offset: Logits of the base.
    """
    spread = float(scores.std(correction=0)) if scores.numel() else 0.0
    if not spread > 0:
        return 0.0, 0.0
    unit = scores / spread
    slope = max(0.0, float(fit_logistic(unit[:, None], labels, penalty=0.0, offset=offset)[0]))
    probability = torch.sigmoid(offset + slope * unit)
    information = float((probability * (1 - probability) * unit.square()).sum())
    return slope / spread, (information**-0.5 if information > 0 else 0.0) / spread


@dataclass(frozen=True)
class ProbeInputs:
    """Features of the events, kept in the factors they are made of.

    Attributes:
        profile: Profile of each event's user, [E, k].
        target: Coordinates of each event's target, [E, k].
        attention: Attention features, [E, a].
    """

    profile: Float[Tensor, "E k"]
    target: Float[Tensor, "E k"]
    attention: Float[Tensor, "E a"]

    @property
    def num_features(self) -> int:
        """Width of the full design: k * k bilinear products and the attention features."""
        return self.profile.shape[1] ** 2 + self.attention.shape[1]

    def attention_only(self) -> ProbeInputs:
        """Return the inputs of a ranker that eats cosines and nothing else."""
        return ProbeInputs(self.profile[:, :0], self.target[:, :0], self.attention)

    def design(self, events: Int[Tensor, " e"], *more: Float[Tensor, " e"]) -> Float[Tensor, "e columns"]:
        """Return the features of some events: vec(m p^T), attention, then any more columns that are given."""
        profile, target, attention = (
            part.index_select(0, events) for part in (self.profile, self.target, self.attention)
        )
        num_events, k = profile.shape
        design = profile.new_empty(num_events, self.num_features + len(more))
        torch.mul(profile[:, :, None], target[:, None, :], out=design[:, : k * k].view(num_events, k, k))
        design[:, k * k : self.num_features] = attention
        for column, values in enumerate(more, start=self.num_features):
            design[:, column] = values
        return design


@dataclass(frozen=True)
class ProbeFit:
    """Scores of a fitted probe.

    Attributes:
        score: Slope times prediction for every event, to be added to the base logit, [E]. Training events carry their
            out-of-fold prediction; only test events may be evaluated.
        without: The same for the test events, had the probe been fitted without one group of users, [num_test, G].
        unruled: Where the slope is 0, what the test events would score at a slope of two standard errors, which the
            training events do not rule out, [num_test]; else None. An exact 0 is no certain one.
        slope: The slope; 0 means that the representation adds nothing.
        penalty: Ridge chosen by cross-validation over users.
    """

    score: Float[Tensor, " E"]
    without: Float[Tensor, "t G"]
    unruled: Float[Tensor, " t"] | None
    slope: float
    penalty: float


def fit_probe(
    inputs: ProbeInputs,
    base: Float[Tensor, " E"],
    labels: Float[Tensor, " E"],
    groups: Int[Tensor, " E"],
    *,
    num_groups: int = NUM_GROUPS,
    penalties: tuple[float, ...] = PENALTIES,
) -> ProbeFit:
    """Fit the residual ridge on the training events and score all events.

    ``w = argmin sum_e (y_e - sigma(b_e) - F_e w)^2 + lambda |w|^2`` with F standardised on the training events, lambda
    from cross-validation over folds of users, then one slope a >= 0 by logistic regression on the out-of-fold
    predictions with offset b. The Gram matrix is summed per group of users: cross-validation, whose folds are sums of
    groups, and the fits without one group each, which tell what the sampling of training users does, solve and never
    pass over the events again. Those fits choose their own penalty, by the errors on the groups that are left, and keep
    the slope, on which the AUC hardly depends.

    Args:
        inputs: Features of all events.
        base: Base logit of each event.
        labels: 0 or 1.
        groups: Group of each training event, ``0 .. num_groups - 1``, by user; -1 for test events.
        num_groups: Number of groups, a multiple of the number of folds (4).
        penalties: Ridge strengths to choose from and between.
    """
    residual = labels - torch.sigmoid(base)
    test, *members = ((groups == group).nonzero()[:, 0] for group in range(-1, num_groups))
    parts = torch.stack([_moments(inputs, residual, events) for events in members])
    mean, gain = _standardisation(parts.sum(0), inputs)
    grams, crosses = _standardise(parts, mean, gain)
    rest, errors = _cross_validate(grams, crosses, penalties)
    total = errors.sum(1, keepdim=True)
    strengths = best_penalty(torch.cat([total, total - errors], dim=1), penalties)
    penalty, strengths = strengths[:1], strengths[1:]
    without = _ridge(grams.sum(0) - grams, crosses.sum(0) - crosses, strengths)
    everyone = _ridge(grams.sum(0, keepdim=True), crosses.sum(0, keepdim=True), penalty)
    by_fold = _ridge(*rest, penalty)
    # A training event is predicted by the weights that its fold of users had no part in.
    train = torch.cat(members)
    out_of_fold = torch.cat(
        [_predict(inputs, mean, gain, by_fold[[g % NUM_FOLDS]], events)[:, 0] for g, events in enumerate(members)]
    )
    slope, error = fit_slope(out_of_fold, labels[train], base[train])
    predicted = _predict(inputs, mean, gain, torch.cat([everyone, without]), test)
    unruled = 2 * error * predicted[:, 0] if slope == 0.0 else None
    predicted *= slope
    score = torch.zeros_like(base)
    score[train], score[test] = slope * out_of_fold, predicted[:, 0]
    return ProbeFit(score, predicted[:, 1:], unruled, slope, float(penalty))


def _moments(inputs: ProbeInputs, residual: Tensor, events: Tensor) -> Float[Tensor, "rows columns"]:
    """Return ``[F, 1, r]^T [F, 1]`` of some events: Gram matrix, sums, and products with the residual."""
    width = inputs.num_features + 2
    moments = residual.new_zeros(width, width)
    for block in torch.split(events, _BLOCK):
        design = inputs.design(block, residual.new_ones(block.numel()), residual[block])
        moments += design.T @ design
    return moments[:, :-1]


def _standardisation(moments: Tensor, inputs: ProbeInputs) -> tuple[Tensor, Tensor]:
    """Return mean and gain that give features zero mean and unit spread (attention: three times unit spread)."""
    count = moments[-2, -1]
    mean = moments[-2, :-1] / count
    variance = moments[:-2, :-1].diagonal() / count - mean.square()
    scale = moments[:-2, :-1].diagonal() / count
    # A constant feature has no spread but rounding; it gets gain 0, not a huge one.
    rounding = 1e-12 if inputs.profile.dtype == torch.float64 else 1e-6
    gain = torch.where(variance > rounding * scale, variance.clamp_min(1e-300).rsqrt(), 0.0)
    if num_attention := inputs.attention.shape[1]:
        gain[-num_attention:] *= ATTENTION_GAIN
    return mean, gain


def _standardise(parts: Tensor, mean: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gram matrices of the standardised features, and their products with the residual, of each part."""
    sums, count = parts[:, -2, :-1], parts[:, -2, -1]
    shift = sums[:, :, None] * mean
    gram = parts[:, :-2, :-1] - shift - shift.mT + count[:, None, None] * torch.outer(mean, mean)
    cross = parts[:, -1, :-1] - mean * parts[:, -1, -1:]
    return gain[:, None] * gram * gain, gain * cross


def best_penalty(errors: Float[Tensor, "P n"], penalties: tuple[float, ...]) -> Float[Tensor, " n"]:
    """Return the penalty of the least error, between the given ones by the parabola through it and its neighbours.

    A choice among few jumps where two are nearly as good, and with it a curve of snapshots, and the jackknife.

    Args:
        errors: Cross-validated error of each penalty, for each of n fits.
        penalties: At least three, in equal steps of their logarithm, ascending.
    """
    grid = errors.new_tensor(penalties).log()
    at = errors.argmin(0).clamp(1, len(penalties) - 2)
    low, middle, high = (errors.gather(0, (at + shift)[None])[0] for shift in (-1, 0, 1))
    bend = low - 2 * middle + high
    shift = torch.where(bend > 0, (low - high) / (2 * bend), torch.sign(low - high)).clamp(-1, 1)
    return (grid[at] + shift * (grid[1] - grid[0])).exp()


def _cross_validate(
    grams: Tensor, crosses: Tensor, penalties: tuple[float, ...]
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the moments without each fold of users, and the error that each penalty makes on each group, [P, G].

    Errors are squared errors of the residual, less a constant of the group.
    """
    fold = torch.arange(grams.shape[0], device=grams.device) % NUM_FOLDS
    gram, cross = (torch.stack([part[fold == f].sum(0) for f in range(NUM_FOLDS)]) for part in (grams, crosses))
    rest = gram.sum(0) - gram, cross.sum(0) - cross
    weights = torch.stack([_ridge(*rest, penalty) for penalty in grams.new_tensor(penalties)])
    own = weights[:, fold]
    errors = torch.einsum("pgv,gvw,pgw->pg", own, grams, own) - 2 * torch.einsum("pgv,gv->pg", own, crosses)
    return rest, errors


def _ridge(grams: Float[Tensor, "b f f"], crosses: Float[Tensor, "b f"], penalty: Tensor) -> Float[Tensor, "b f"]:
    """Return the ridge solution of each pair of moments, of one penalty or of one each."""
    # Not `linalg.solve`: of a batch, on several threads, it fails in MKL (github.com/pytorch/pytorch/issues/142815).
    ridge = penalty[..., None, None] * torch.eye(grams.shape[-1], dtype=grams.dtype, device=grams.device)
    factors = torch.linalg.cholesky(grams + ridge)
    solutions: Tensor = torch.cholesky_solve(crosses[:, :, None], factors)[:, :, 0]
    return solutions


def _predict(inputs: ProbeInputs, mean: Tensor, gain: Tensor, weights: Tensor, events: Tensor) -> Float[Tensor, "e w"]:
    """Return the predictions of some events with each row of `weights`."""
    scaled = weights * gain
    shift = scaled @ mean
    columns = scaled.T.to(inputs.profile.dtype)
    blocks = torch.split(events, _BLOCK)
    return torch.cat([(inputs.design(block) @ columns).double() - shift for block in blocks])
