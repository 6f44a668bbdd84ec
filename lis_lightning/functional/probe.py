"""The probe: a residual ridge regression that measures how much a ranker's AUC gains from item vectors.

A logistic base gives every event a logit. A ridge regression on bilinear and attention features explains the residual
of the base, and one non-negative slope converts its prediction to the logit scale. All in closed form, without random
numbers. Joint refitting of both arms and boosting were tried and rejected: with them a collapsed representation scores
above zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lis_lightning.functional.logistic_regression import fit_slope

NUM_FOLDS = 4  # of users, for the choice of the penalty
NUM_GROUPS = 12  # of users, for the jackknife over the training window; fold = group % NUM_FOLDS
PENALTIES = tuple(10.0 ** (3 + step / 2) for step in range(7))  # 1e3 .. 1e6
ATTENTION_GAIN = 3.0  # attention features enter at three times unit spread: a nine times weaker ridge
_BLOCK = 16384  # events whose features are held at once


@dataclass(frozen=True)
class ProbeInputs:
    """Features of the events, stored as the factors of their bilinear products.

    Attributes:
        profile: Profile of each event's user, [E, k].
        target: Coordinates of each event's target, [E, k].
        attention: Attention features, [E, a].

    Example:
        >>> import torch
        >>> inputs = ProbeInputs(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]]), torch.tensor([[0.5]]))
        >>> inputs.design(torch.tensor([0])).tolist()
        [[3.0, 5.0, 6.0, 10.0, 0.5]]
    """

    profile: Float[Tensor, "E k"]
    target: Float[Tensor, "E k"]
    attention: Float[Tensor, "E a"]

    @property
    def num_features(self) -> int:
        """Width of the full design: k * k bilinear products and the attention features."""
        return self.profile.shape[1] ** 2 + self.attention.shape[1]

    def attention_only(self) -> ProbeInputs:
        """Return the inputs of a ranker that reads cosines only."""
        return ProbeInputs(self.profile[:, :0], self.target[:, :0], self.attention)

    def design(self, events: Int[Tensor, " e"], *more: Float[Tensor, " e"]) -> Float[Tensor, "e columns"]:
        """Return the design matrix of some events: vec(m p^T), attention, then any further columns given."""
        factors = (self.profile, self.target, self.attention)
        profile, target, attention = (factor.index_select(0, events) for factor in factors)
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
        score: Slope times prediction for every event, to be added to the base logit, [E]. Training events have their
            out-of-fold prediction; only test events may be evaluated.
        leave_group_out: Scores of the test events by the probes fitted without one group of users each, [num_test, G].
        score_upper: If the slope is 0, the scores of the test events at a slope of two standard errors, the largest
            that the training events do not rule out, [num_test]; else None. Gives an estimate of exactly 0 an interval.
        slope: The slope; 0 means that the representation adds nothing.
        penalty: Ridge penalty chosen by cross-validation over users.

    Example:
        >>> import torch
        >>> fit = ProbeFit(torch.zeros(4), torch.zeros(2, 3), None, slope=0.5, penalty=1000.0)
        >>> fit.slope, fit.leave_group_out.shape
        (0.5, torch.Size([2, 3]))
    """

    score: Float[Tensor, " E"]
    leave_group_out: Float[Tensor, "t G"]
    score_upper: Float[Tensor, " t"] | None
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
    """Fit the residual ridge regression on the training events and score all events.

    ``w = argmin sum_e (y_e - sigma(b_e) - F_e w)^2 + lambda |w|^2`` with F standardised on the training events and
    lambda from cross-validation over folds of users, then one slope a >= 0 by logistic regression on the out-of-fold
    predictions with offset b.

    The Gram matrix is summed per group of users. Folds are sums of groups, so that cross-validation and the fits of the
    delete-a-group jackknife only solve, without another pass over the events. Each jackknife fit chooses its own
    penalty, by the errors on the remaining groups; the slope is shared, since the AUC hardly depends on it.

    Args:
        inputs: Features of all events.
        base: Base logit of each event.
        labels: 0 or 1.
        groups: Group of each training event, ``0 .. num_groups - 1``, by user; -1 for test events.
        num_groups: Number of groups, a multiple of the number of folds (4).
        penalties: Grid of ridge penalties, in equal steps of the logarithm.

    Returns:
        The scores of all events and how they would vary.

    Example:
        >>> import torch
        >>> signal = torch.linspace(-3, 3, 240, dtype=torch.float64)[:, None]
        >>> inputs = ProbeInputs(signal, torch.ones_like(signal), torch.zeros_like(signal))
        >>> labels = (signal[:, 0] + torch.arange(240) % 3 > 1).double()
        >>> groups = torch.where(torch.arange(240) < 200, torch.arange(240) % 12, -1)
        >>> fit = fit_probe(inputs, torch.zeros(240, dtype=torch.float64), labels, groups)
        >>> round(fit.penalty), fit.leave_group_out.shape
        (1000, torch.Size([40, 12]))
    """
    residual = labels - torch.sigmoid(base)
    test, *members = ((groups == group).nonzero()[:, 0] for group in range(-1, num_groups))
    moments = torch.stack([_moments(inputs, residual, events) for events in members])
    mean, gain = _standardisation(moments.sum(0), inputs)
    grams, crosses = _standardise(moments, mean, gain)
    out_of_fold_moments, errors = _cross_validate(grams, crosses, penalties)
    # The first penalty is that of all groups, the others are those without one group each.
    total = errors.sum(1, keepdim=True)
    chosen = best_penalty(torch.cat([total, total - errors], dim=1), penalties)
    penalty, jackknife_penalties = chosen[:1], chosen[1:]
    jackknife = _ridge(grams.sum(0) - grams, crosses.sum(0) - crosses, jackknife_penalties)
    full = _ridge(grams.sum(0, keepdim=True), crosses.sum(0, keepdim=True), penalty)
    by_fold = _ridge(*out_of_fold_moments, penalty)
    # A training event is predicted by the weights fitted without its fold of users.
    train, predictions = torch.cat(members), []
    for group, events in enumerate(members):
        predictions.append(_predict(inputs, mean, gain, by_fold[[group % NUM_FOLDS]], events)[:, 0])
    out_of_fold = torch.cat(predictions)
    slope, error = fit_slope(out_of_fold, labels[train], base[train])
    predicted = _predict(inputs, mean, gain, torch.cat([full, jackknife]), test)
    score_upper = 2 * error * predicted[:, 0] if slope == 0.0 else None
    predicted *= slope
    score = torch.zeros_like(base)
    score[train], score[test] = slope * out_of_fold, predicted[:, 0]
    return ProbeFit(score, predicted[:, 1:], score_upper, slope, float(penalty))


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
    # The variance of a constant feature is rounding error: its gain is 0, not a huge number.
    rounding = 1e-12 if inputs.profile.dtype == torch.float64 else 1e-6
    gain = torch.where(variance > rounding * scale, variance.clamp_min(1e-300).rsqrt(), 0.0)
    if num_attention := inputs.attention.shape[1]:
        gain[-num_attention:] *= ATTENTION_GAIN
    return mean, gain


def _standardise(moments: Tensor, mean: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gram matrix of the standardised features, and their products with the residual, of each group."""
    sums, count = moments[:, -2, :-1], moments[:, -2, -1]
    shift = sums[:, :, None] * mean
    gram = moments[:, :-2, :-1] - shift - shift.mT + count[:, None, None] * torch.outer(mean, mean)
    cross = moments[:, -1, :-1] - mean * moments[:, -1, -1:]
    return gain[:, None] * gram * gain, gain * cross


def best_penalty(errors: Float[Tensor, "P n"], penalties: tuple[float, ...]) -> Float[Tensor, " n"]:
    """Return the penalty of least error, interpolated by the parabola through it and its neighbours on the grid.

    A choice from the grid would jump where two penalties are nearly as good, and the jackknife and the curve over
    snapshots would jump with it.

    Args:
        errors: Cross-validated error of each penalty, for each of n fits.
        penalties: At least three, in equal steps of the logarithm, ascending.
    """
    grid = errors.new_tensor(penalties).log()
    at = errors.argmin(0).clamp(1, len(penalties) - 2)
    low, middle, high = (errors.gather(0, (at + shift)[None])[0] for shift in (-1, 0, 1))
    bend = low - 2 * middle + high
    # Without a minimum between the neighbours, go to the lower end.
    shift = torch.where(bend > 0, (low - high) / (2 * bend), torch.sign(low - high)).clamp(-1, 1)
    return (grid[at] + shift * (grid[1] - grid[0])).exp()


def _cross_validate(
    grams: Tensor, crosses: Tensor, penalties: tuple[float, ...]
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the moments without each fold of users, and the error of each penalty on each group, [P, G].

    Errors are squared errors of the residual, less a constant per group.
    """
    fold = torch.arange(grams.shape[0], device=grams.device) % NUM_FOLDS
    fold_grams = torch.stack([grams[fold == held_out].sum(0) for held_out in range(NUM_FOLDS)])
    fold_crosses = torch.stack([crosses[fold == held_out].sum(0) for held_out in range(NUM_FOLDS)])
    out_of_fold = fold_grams.sum(0) - fold_grams, fold_crosses.sum(0) - fold_crosses
    weights = torch.stack([_ridge(*out_of_fold, penalty) for penalty in grams.new_tensor(penalties)])
    # |r - F w|^2 = w' G w - 2 w' c + constant, for each group by the weights fitted without its fold.
    own = weights[:, fold]
    errors = torch.einsum("pgv,gvw,pgw->pg", own, grams, own) - 2 * torch.einsum("pgv,gv->pg", own, crosses)
    return out_of_fold, errors


def _ridge(grams: Float[Tensor, "b f f"], crosses: Float[Tensor, "b f"], penalty: Tensor) -> Float[Tensor, "b f"]:
    """Return the ridge solution of each pair of moments, for one penalty or one each."""
    # Not `linalg.solve`: on a batch, with several threads, it fails in MKL (github.com/pytorch/pytorch/issues/142815).
    ridge = penalty[..., None, None] * torch.eye(grams.shape[-1], dtype=grams.dtype, device=grams.device)
    factors = torch.linalg.cholesky(grams + ridge)
    solutions: Tensor = torch.cholesky_solve(crosses[:, :, None], factors)[:, :, 0]
    return solutions


def _predict(inputs: ProbeInputs, mean: Tensor, gain: Tensor, weights: Tensor, events: Tensor) -> Float[Tensor, "e w"]:
    """Return the predictions of some events with each row of `weights`."""
    # Standardising the weights once is cheaper than standardising the features of every event.
    scaled = weights * gain
    shift = scaled @ mean
    columns = scaled.T.to(inputs.profile.dtype)
    blocks = torch.split(events, _BLOCK)
    return torch.cat([(inputs.design(block) @ columns).double() - shift for block in blocks])
