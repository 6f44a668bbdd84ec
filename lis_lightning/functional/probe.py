"""The probe: a residual ridge regression that measures how much a ranker's AUC gains from item vectors.

A logistic base gives every event a logit. Two ridge regressions explain its residual: one on the bilinear form of user
profile and target (:mod:`lis_lightning.functional.bilinear_ridge`), whose out-of-fold prediction is one column of the
other, beside attention features and the target itself. One non-negative slope converts the prediction to the logit
scale. All in closed form, without random numbers. Joint refitting of both arms and boosting were tried and rejected:
with them a collapsed representation scores above zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lis_lightning.functional.bilinear_ridge import (
    BilinearMoments,
    bilinear_moments,
    bilinear_predictions,
    bilinear_weights,
)
from lis_lightning.functional.logistic_regression import fit_slope

NUM_FOLDS = 4  # of users, for the choice of the penalty
NUM_GROUPS = 12  # of users, for the jackknife over the training window; fold = group % NUM_FOLDS
PENALTIES = tuple(10.0 ** (3 + step / 2) for step in range(9))  # 1e3 .. 1e7
# Columns enter the second regression at unit spread times a gain: the larger, the weaker their ridge.
BILINEAR_GAIN = 20.0  # penalised already
ATTENTION_GAIN = 3.0
NORM_GAIN = 1.0
TARGET_GAIN = 1 / 3
RATE_GAIN = 1.0
TARGET_AXES = 16  # whose coordinates of the target are columns of their own: what all users like
_PENALTY_EVENTS = 65_536  # training events that choose the penalty of the bilinear form


@dataclass(frozen=True)
class ProbeInputs:
    """Features of the events: the factors of a bilinear form, and columns.

    Attributes:
        profile: Profile of each event's user, [E, K].
        target: Coordinates of each event's target, [E, K].
        attention: Attention features, [E, a].
        log_norm: Logarithm of the length of each event's target, [E, 1]; [E, 0] leaves it out.
        rates: Further columns: rates of what semantic IDs share, [E, r]; [E, 0] for vectors.

    Example:
        >>> import torch
        >>> factors = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])
        >>> inputs = ProbeInputs(*factors, attention=torch.tensor([[0.5]]),
        ...                      log_norm=torch.tensor([[0.0]]), rates=torch.zeros(1, 0))
        >>> inputs.attention_only().profile.shape
        torch.Size([1, 0])
    """

    profile: Float[Tensor, "E K"]
    target: Float[Tensor, "E K"]
    attention: Float[Tensor, "E a"]
    log_norm: Float[Tensor, "E n"]
    rates: Float[Tensor, "E r"]

    @property
    def columns(self) -> Float[Tensor, "E c"]:
        """Columns of the second regression beside the bilinear prediction: attention, length, target, rates."""
        columns = (self.attention, self.log_norm, self.target[:, :TARGET_AXES], self.rates)
        return torch.cat([column.double() for column in columns], dim=1)

    @property
    def gains(self) -> Float[Tensor, " c"]:
        """Gain of the bilinear prediction and of each of the columns, [1 + c]."""
        target = min(self.target.shape[1], TARGET_AXES)
        widths = (1, self.attention.shape[1], self.log_norm.shape[1], target, self.rates.shape[1])
        gains = torch.tensor([BILINEAR_GAIN, ATTENTION_GAIN, NORM_GAIN, TARGET_GAIN, RATE_GAIN], dtype=torch.float64)
        return gains.repeat_interleave(torch.tensor(widths)).to(self.attention.device)

    def attention_only(self) -> ProbeInputs:
        """Return the inputs of a ranker that reads cosines only."""
        none = self.profile[:, :0]
        return ProbeInputs(none, none, self.attention, none, none)


@dataclass(frozen=True)
class ProbeFit:
    """Scores of a fitted probe.

    Attributes:
        score: Slope times prediction for every event, to be added to the base logit, [E]. Training events have their
            out-of-fold prediction: they are scored by weights that were fitted without their fold of users.
        leave_group_out: Scores of the sampled events by the probes fitted without one group of users each, [s, G].
        score_upper: If the slope is 0, the scores at a slope of two standard errors, the largest that the training
            events do not rule out, [E]; else None. Gives an estimate of exactly 0 an interval.
        slope: The slope; 0 means that the representation adds nothing.
        penalty: Ridge penalty of the bilinear form, chosen by cross-validation over users.

    Example:
        >>> import torch
        >>> zeros = torch.zeros(24, 2, dtype=torch.float64)
        >>> labels, groups = torch.arange(24).remainder(2).double(), torch.arange(24) % 12
        >>> fit = fit_probe(ProbeInputs(zeros, zeros, zeros, *[zeros[:, :0]] * 2), zeros[:, 0], labels, groups)
        >>> fit.slope, float(fit.score.abs().sum())
        (0.0, 0.0)
    """

    score: Float[Tensor, " E"]
    leave_group_out: Float[Tensor, "s G"]
    score_upper: Float[Tensor, " E"] | None
    slope: float
    penalty: float


def fit_probe(
    inputs: ProbeInputs,
    base: Float[Tensor, " E"],
    labels: Float[Tensor, " E"],
    groups: Int[Tensor, " E"],
    sample: Int[Tensor, " s"] | None = None,
    *,
    num_groups: int = NUM_GROUPS,
    penalties: tuple[float, ...] = PENALTIES,
) -> ProbeFit:
    """Fit the residual ridge regressions on the training events and score all events.

    ``residual = y - sigma(b)`` is regressed on ``m^T W p``, then on that prediction, the attention features, the length
    of the target and its leading coordinates, standardised on the training events. One slope a >= 0 is fitted by
    logistic regression on the out-of-fold predictions with offset b. Penalties are chosen by cross-validation over
    folds of users.

    Moments are summed per group of users. Folds are sums of groups, so that cross-validation and the fits of the
    delete-a-group jackknife only solve, without another pass over the events. The jackknife fits share the penalty
    of the bilinear form and the slope.

    Args:
        inputs: Features of all events.
        base: Base logit of each event.
        labels: 0 or 1.
        groups: Group of each training event, ``0 .. num_groups - 1``, by user; -1 for events that are only scored.
        sample: Events that the jackknife fits score; None means all.
        num_groups: Number of groups, a multiple of the number of folds (4).
        penalties: Grid of ridge penalties, in equal steps of the logarithm.

    Returns:
        The scores of all events and how they would vary.

    Example:
        >>> import torch
        >>> signal = torch.linspace(-3, 3, 240, dtype=torch.float64)[:, None]
        >>> inputs = ProbeInputs(signal, torch.cos(9 * signal), torch.zeros_like(signal), *[signal[:, :0]] * 2)
        >>> labels = ((signal * torch.cos(9 * signal))[:, 0] + torch.arange(240) % 3 > 1).double()
        >>> groups = torch.where(torch.arange(240) < 200, torch.arange(240) % 12, -1)
        >>> fit = fit_probe(inputs, torch.zeros(240, dtype=torch.float64), labels, groups)
        >>> fit.slope > 1, fit.leave_group_out.shape
        (True, torch.Size([240, 12]))
    """
    residual = labels - torch.sigmoid(base)
    members = [(groups == group).nonzero()[:, 0] for group in range(num_groups)]
    sample = torch.arange(base.numel(), device=base.device) if sample is None else sample
    bilinear = _fit_bilinear(inputs, residual, groups, members, sample, penalties)
    columns = torch.cat([bilinear.score[:, None], inputs.columns], dim=1)
    stack = _fit_columns(columns, inputs.gains, residual, members, penalties)
    fold = _fold(groups)
    predicted = (columns * stack.weights[fold]).sum(1) - stack.shift[fold]
    train = torch.cat(members)
    slope, error = fit_slope(predicted[train], labels[train], base[train])
    held_out = columns[sample] @ stack.jackknife.T - stack.jackknife_shift
    held_out += (bilinear.leave_group_out - bilinear.score[sample, None]) * stack.jackknife[:, 0]
    upper = 2 * error * predicted if slope == 0.0 else None
    return ProbeFit(slope * predicted, slope * held_out, upper, slope, bilinear.penalty)


@dataclass(frozen=True)
class _BilinearFit:
    """Predictions of the residual by the bilinear form: out-of-fold for training events, and of the jackknife fits."""

    score: Float[Tensor, " E"]
    leave_group_out: Float[Tensor, "s G"]
    penalty: float


def _fit_bilinear(
    inputs: ProbeInputs,
    residual: Tensor,
    groups: Tensor,
    members: list[Tensor],
    sample: Tensor,
    penalties: tuple[float, ...],
) -> _BilinearFit:
    """Fit the bilinear form with cross-validated penalties; predict all events, and the sample without each group."""
    num_groups, factors = len(members), (inputs.profile, inputs.target)
    score, held_out = torch.zeros_like(residual), residual.new_zeros(sample.numel(), num_groups)
    if not inputs.profile.shape[1]:
        return _BilinearFit(score, held_out, float(penalties[-1]))
    moments = bilinear_moments(*factors, residual, members)
    fitted_on = _groups_outside(num_groups, residual)
    penalty = _bilinear_penalty(moments, factors, residual, members, fitted_on, penalties)
    remaining = 1.0 - torch.eye(num_groups, dtype=residual.dtype, device=residual.device)
    part = _fold(groups)
    for number, used in enumerate(fitted_on):
        events, rows = (part == number).nonzero()[:, 0], (part[sample] == number).nonzero()[:, 0]
        weights = bilinear_weights(moments, used[None], penalty)
        score[events] = bilinear_predictions(moments, *factors, events, weights)[:, 0]
        weights = bilinear_weights(moments, used * remaining, penalty.expand(num_groups))
        held_out[rows] = bilinear_predictions(moments, *factors, sample[rows], weights)
    return _BilinearFit(score, held_out, float(penalty))


def _fold(groups: Tensor) -> Tensor:
    """Return the fold of each event, ``NUM_FOLDS`` for events that are only scored."""
    return torch.where(groups >= 0, groups % NUM_FOLDS, NUM_FOLDS)


def _groups_outside(num_groups: int, like: Tensor) -> Float[Tensor, "folds G"]:
    """Return for each fold a 1 for the groups outside of it, and a last row for events that are only scored: all."""
    numbers = torch.arange(num_groups, device=like.device)
    folds = torch.arange(NUM_FOLDS + 1, device=like.device)
    return (folds[:, None] != numbers % NUM_FOLDS).to(like.dtype)


def _bilinear_penalty(
    moments: BilinearMoments,
    factors: tuple[Tensor, Tensor],
    residual: Tensor,
    members: list[Tensor],
    fitted_on: Tensor,
    penalties: tuple[float, ...],
) -> Float[Tensor, " 1"]:
    """Return the cross-validated penalty.

    The jackknife fits share it: the scale of a prediction depends on the penalty, and the second regression is fitted
    to the scale of this one.
    """
    grid = residual.new_tensor(penalties)
    agreement, power = residual.new_zeros(2, len(penalties))
    step = max(1, sum(events.numel() for events in members) // _PENALTY_EVENTS)
    for group, events in enumerate(members):
        chosen = events[::step]
        weights = bilinear_weights(moments, fitted_on[group % NUM_FOLDS].expand(len(penalties), -1), grid)
        predictions = bilinear_predictions(moments, *factors, chosen, weights)
        agreement += predictions.T @ residual[chosen]
        power += predictions.square().sum(0)
    # The squared error of each penalty at the scale that suits it best, less a constant. The factored Gram matrix may
    # misjudge the scale, which the second regression corrects.
    errors = -agreement.clamp_min(0.0).square() / power.clamp_min(1e-300)
    return best_penalty(errors[:, None], penalties)


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


@dataclass(frozen=True)
class _ColumnFit:
    """Ridge solutions on the columns, for columns that are not standardised.

    Attributes:
        weights: Fitted without each fold of users, then on all, [folds + 1, c].
        shift: What is subtracted from their predictions, [folds + 1].
        jackknife: Fitted without each group of users, [G, c].
        jackknife_shift: What is subtracted from their predictions, [G].
    """

    weights: Float[Tensor, "folds c"]
    shift: Float[Tensor, " folds"]
    jackknife: Float[Tensor, "G c"]
    jackknife_shift: Float[Tensor, " G"]


def _fit_columns(
    columns: Float[Tensor, "E c"], gains: Tensor, residual: Tensor, members: list[Tensor], penalties: tuple[float, ...]
) -> _ColumnFit:
    """Fit the ridge regression of the residual on columns, the first of which is the bilinear prediction."""
    moments = torch.stack([_moments(columns[events], residual[events]) for events in members])
    mean, gain = _standardisation(moments.sum(0), gains)
    grams, crosses = _standardise(moments, mean, gain)
    out_of_fold, errors = _cross_validate(grams, crosses, penalties)
    total = errors.sum(1, keepdim=True)
    # The first penalty is that of all groups, the others are those without one group each.
    chosen = best_penalty(torch.cat([total, total - errors], dim=1), penalties)
    full = _ridge(grams.sum(0, keepdim=True), crosses.sum(0, keepdim=True), chosen[:1])
    weights = torch.cat([_ridge(*out_of_fold, chosen[:1]), full]) * gain
    jackknife = _ridge(grams.sum(0) - grams, crosses.sum(0) - crosses, chosen[1:]) * gain
    return _ColumnFit(weights, weights @ mean, jackknife, jackknife @ mean)


def _moments(columns: Tensor, residual: Tensor) -> Float[Tensor, "rows columns"]:
    """Return ``[F, 1, r]^T [F, 1]``: Gram matrix, sums, and products with the residual."""
    design = torch.cat([columns, torch.ones_like(residual)[:, None], residual[:, None]], dim=1)
    return design.T @ design[:, :-1]


def _standardisation(moments: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and gain that give columns zero mean and a spread of their gain."""
    count = moments[-2, -1]
    mean = moments[-2, :-1] / count
    scale = moments[:-2, :-1].diagonal() / count
    variance = scale - mean.square()
    # The variance of a constant column is rounding error: its gain is 0, not a huge number.
    return mean, torch.where(variance > 1e-12 * scale, gains * variance.clamp_min(1e-300).rsqrt(), 0.0)


def _standardise(moments: Tensor, mean: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gram matrix of the standardised columns, and their products with the residual, of each group."""
    sums, count = moments[:, -2, :-1], moments[:, -2, -1]
    shift = sums[:, :, None] * mean
    gram = moments[:, :-2, :-1] - shift - shift.mT + count[:, None, None] * torch.outer(mean, mean)
    cross = moments[:, -1, :-1] - mean * moments[:, -1, -1:]
    return gain[:, None] * gram * gain, gain * cross


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
