"""Exact area under the ROC curve of raw scores, over all events and per user, with the influence of each event.

Scores are compared as they come, in their own type: no sigmoid, no bins. A tie counts one half. (A metric that squashes
logits first loses the order of confident scores: [20, 30, 40, -1] against [0, 1, 1, 0] is 1.0, not .75.) Without
weights, wins are counted in whole numbers, so that the AUC is the correctly rounded one at any number of events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer, Num
from numpy import ndarray

from lis_lightning.errors import ConfigError, LogError, NonFiniteError, ShapeError

Labels = Bool[ndarray, " n"] | Integer[ndarray, " n"] | Float[ndarray, " n"]
Weights = Num[ndarray, " n"] | None
Weighting = Literal["impressions", "positives"]


def auroc(scores: Num[ndarray, " n"], labels: Labels, weights: Weights = None) -> float:
    """Return the probability that a positive outscores a negative, ties counting one half.

    The Mann-Whitney form of the area under the ROC curve (Hanley and McNeil 1982). With weights, a pair of a positive
    and a negative counts with the product of its weights, as scikit-learn's ``sample_weight`` does.

    Args:
        scores: One raw score an event; any numbers but NaN.
        labels: 1 or True for positives, 0 or False for negatives.
        weights: What each event counts (dwell time, bid value), zero or more; None counts each once.

    Returns:
        A number in [0, 1]; higher is better; 0.5 for scores without information.

    Raises:
        ShapeError: If the lengths differ.
        NonFiniteError: If a score is NaN (infinities have an order and are welcome), or a weight NaN or infinite.
        LogError: If a label is neither 0 nor 1, only one class is present, or a weight is negative.

    Example:
        >>> import numpy as np
        >>> auroc(np.array([20.0, 30.0, 40.0, -1.0]), np.array([0, 1, 1, 0]))
        1.0
        >>> auroc(np.array([1.0, 3.0, 2.0]), np.array([0, 0, 1]), weights=np.array([3.0, 1.0, 1.0]))
        0.75
    """
    positive = _two_classes(scores, labels)
    if weights is not None:
        return _tie_groups(scores, positive, _checked_weights(weights, positive)).auc()
    # Both sorted: the binary searches walk through `negatives` in order and stay in the cache.
    negatives, targets = np.sort(scores[~positive]), np.sort(scores[positive])
    if negatives[-1] != negatives[-1] or targets[-1] != targets[-1]:  # sorting puts NaN last
        _refuse_nan(scores)
    below = np.searchsorted(negatives, targets, side="left")
    upto = below.sum(dtype=np.int64)
    tied = negatives[np.minimum(below, negatives.size - 1)] == targets
    if tied.any():
        upto += (np.searchsorted(negatives, targets[tied], side="right") - below[tied]).sum(dtype=np.int64)
    return (int(below.sum(dtype=np.int64)) + int(upto)) / (2 * negatives.size * targets.size)


def placements(scores: Num[ndarray, " n"], labels: Labels, weights: Weights = None) -> Float[ndarray, " n"]:
    """Return the placement value of each event: its own share of pairs that are in order, ties counting one half.

    Of a positive the (weighted) share of negatives it outscores, of a negative the share of positives that outscore it
    (DeLong, DeLong and Clarke-Pearson 1988). The mean of either class is the AUC.

    Args:
        scores: One raw score an event.
        labels: 1 or True for positives, 0 or False for negatives.
        weights: What each event counts; None counts each once.

    Returns:
        Numbers in [0, 1], in the order of the events.

    Raises:
        ShapeError, NonFiniteError, LogError: As :func:`auroc`.

    Example:
        >>> import numpy as np
        >>> placements(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])).tolist()
        [1.0, 0.5, 0.5, 1.0]
    """
    positive = _two_classes(scores, labels)
    return _tie_groups(scores, positive, _checked_weights(weights, positive)).placements(positive)


def auroc_influence(
    scores: Num[ndarray, " n"], labels: Labels, weights: Weights = None
) -> tuple[float, Float[ndarray, " n"]]:
    """Return the AUC and each event's influence on it.

    ``phi_e = w_e (placement_e - AUC) / W_class``, with ``W_class`` the weight of the event's class (DeLong, DeLong and
    Clarke-Pearson 1988, where all weights are 1): the change of the AUC, to first order, when the event counts twice.

    Args:
        scores: One raw score an event.
        labels: 1 or True for positives, 0 or False for negatives.
        weights: What each event counts; None counts each once.

    Returns:
        The AUC in [0, 1], and the influence values in the order of the events; those of a class sum to 0.

    Raises:
        ShapeError, NonFiniteError, LogError: As :func:`auroc`.

    Example:
        >>> import numpy as np
        >>> auc, phi = auroc_influence(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        >>> auc, phi.tolist()
        (0.75, [0.125, -0.125, -0.125, 0.125])
    """
    positive = _two_classes(scores, labels)
    weights = _checked_weights(weights, positive)
    ranked = _tie_groups(scores, positive, weights)
    auc = ranked.auc()
    share = np.where(positive, 1.0 / ranked.positives[-1], 1.0 / ranked.negatives[-1])
    return auc, (ranked.placements(positive) - auc) * (share if weights is None else share * weights)


def grouped_auroc(
    scores: Num[ndarray, " n"], labels: Labels, groups: Integer[ndarray, " n"], *, weight: Weighting = "impressions"
) -> float:
    """Return the weighted mean of the AUC within each group (GAUC, Zhu et al. 2017), ties counting one half.

    Args:
        scores: One raw score an event.
        labels: 1 or True for positives, 0 or False for negatives.
        groups: Group of each event, usually the user; any integers.
        weight: What a group weighs by: its ``"impressions"`` (FuxiCTR) or its ``"positives"`` (RecBole).

    Returns:
        A number in [0, 1]; groups of one class have no AUC and are left out; NaN if all are.

    Raises:
        ShapeError: If the lengths differ.
        NonFiniteError: If a score is NaN.
        LogError: If a label is neither 0 nor 1.
        ConfigError: If `weight` is neither of the two.

    Example:
        >>> import numpy as np
        >>> grouped_auroc(np.array([1.0, 2, 5, 4]), np.array([0, 1, 0, 1]), np.array([7, 7, 8, 8]))
        0.5
    """
    _, auc, mass = _group_aucs(scores, labels, groups, weight)
    return float(np.average(auc, weights=mass)) if auc.size else float("nan")


def grouped_auroc_influence(
    scores: Num[ndarray, " n"],
    labels: Labels,
    groups: Integer[ndarray, " n"],
    num_groups: int,
    *,
    weight: Weighting = "impressions",
) -> tuple[float, Float[ndarray, " g"]]:
    """Return the GAUC and each group's influence on it.

    ``I_g = m_g (AUC_g - GAUC) / sum m``, the linearised ratio estimator with groups as the units that were sampled
    (Cochran 1977, section 6.3). Two arms on the same events differ by the difference of theirs:
    :func:`~lis_lightning.functional.intervals.cluster_interval` of it is the interval of a GAUC gain.

    Args:
        scores: One raw score an event.
        labels: 1 or True for positives, 0 or False for negatives.
        groups: Group of each event, in ``[0, num_groups)``.
        num_groups: Number of groups, those without events included.
        weight: As :func:`grouped_auroc`.

    Returns:
        The GAUC, and one influence value a group, 0 for groups without an AUC; NaN throughout if all are such.

    Raises:
        ShapeError, NonFiniteError, LogError, ConfigError: As :func:`grouped_auroc`; also for a group out of range.

    Example:
        >>> import numpy as np
        >>> scores, labels = np.array([1.0, 2, 5, 4]), np.array([0, 1, 0, 1])
        >>> gauc, influence = grouped_auroc_influence(scores, labels, np.array([0, 0, 2, 2]), 3)
        >>> gauc, influence.tolist()
        (0.5, [0.25, 0.0, -0.25])
    """
    if groups.size and not 0 <= groups.min() <= groups.max() < num_groups:
        raise ShapeError(f"Expected `groups` in [0, {num_groups}), got {groups.min()} to {groups.max()}.")
    found, auc, mass = _group_aucs(scores, labels, groups, weight)
    if not auc.size:
        return float("nan"), np.full(num_groups, np.nan)
    mean = float(np.average(auc, weights=mass))
    influence = np.zeros(num_groups)
    influence[found] = mass * (auc - mean) / mass.sum()
    return mean, influence


@dataclass(frozen=True)
class _TieGroups:
    """Events sorted by score, as groups of equal score, with what each class weighs up to each group.

    Attributes:
        order: Events by score, [n].
        size: Events of each group, [g].
        positives: Weight of the positives below each group, and of all of them, [g + 1]; whole numbers if unweighted.
        negatives: The same of the negatives.
    """

    order: ndarray
    size: ndarray
    positives: ndarray
    negatives: ndarray

    def auc(self) -> float:
        """Return the area: of each group's positives, the negatives below and half of those within."""
        below = self.negatives[1:] + self.negatives[:-1]
        if below.dtype.kind == "i":
            return int((np.diff(self.positives) * below).sum()) / (
                2 * int(self.positives[-1]) * int(self.negatives[-1])
            )
        # Centred, so that scores which are all equal give .5 to the bit.
        centred = np.diff(self.positives / self.positives[-1]) * (below / self.negatives[-1] - 1.0)
        return 0.5 + 0.5 * float(centred.sum())

    def placements(self, positive: ndarray) -> ndarray:
        """Return the placement values in the order of the events."""
        of_positive = (self.negatives[1:] + self.negatives[:-1]) / (2.0 * self.negatives[-1])
        of_negative = 1.0 - (self.positives[1:] + self.positives[:-1]) / (2.0 * self.positives[-1])
        if self.size.size < self.order.size:
            of_positive, of_negative = np.repeat(of_positive, self.size), np.repeat(of_negative, self.size)
        values = np.empty(self.order.size)
        values[self.order] = np.where(positive[self.order], of_positive, of_negative)
        return values


def _tie_groups(scores: ndarray, positive: ndarray, weights: ndarray | None) -> _TieGroups:
    """Sort the events once; everything else reads the running weight of each class."""
    order = np.argsort(scores)
    ordered, hits = scores[order], positive[order]
    if ordered[-1] != ordered[-1]:  # sorting puts NaN last
        _refuse_nan(scores)
    edges = np.r_[0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, scores.size]
    running = np.zeros((2, scores.size + 1), np.int64 if weights is None else np.float64)
    by_event: tuple[ndarray, ndarray] = (hits, ~hits)
    if weights is not None:
        by_event = np.where(hits, weights[order], 0.0), np.where(hits, 0.0, weights[order])
    for row, values in zip(running, by_event, strict=True):
        np.cumsum(values, out=row[1:])
    return _TieGroups(order, np.diff(edges), running[0, edges], running[1, edges])


def _group_aucs(scores: ndarray, labels: ndarray, groups: ndarray, weight: str) -> tuple[ndarray, ndarray, ndarray]:
    """Return the groups of two classes, their AUC, and what they weigh; by midranks, all groups at once."""
    if weight not in {"impressions", "positives"}:
        raise ConfigError(f"Expected `weight` to be 'impressions' or 'positives', got {weight!r}.")
    positive = _positive(scores, labels)
    if groups.shape != scores.shape:
        raise ShapeError(f"Expected one group an event, shape {scores.shape}, got {groups.shape}.")
    if np.isnan(scores).any():
        _refuse_nan(scores)
    order = np.lexsort((scores, groups))
    scores, hits, groups = scores[order], positive[order].astype(np.float64), groups[order]
    new_group = np.r_[True, groups[1:] != groups[:-1]][: scores.size]
    new_tie = new_group | np.r_[True, scores[1:] != scores[:-1]][: scores.size]
    start, tie_start = np.flatnonzero(new_group), np.flatnonzero(new_tie)
    group, tie = np.cumsum(new_group) - 1, np.cumsum(new_tie) - 1
    tie_end = np.r_[tie_start, scores.size][1:]
    midrank = (tie_start + tie_end - 1)[tie] / 2 - start[group] + 1
    impressions = np.bincount(group).astype(np.float64)
    positives = np.bincount(group, weights=hits)
    negatives = impressions - positives
    wins = np.bincount(group, weights=midrank * hits) - positives * (positives + 1) / 2
    both = (positives > 0) & (negatives > 0)
    auc = wins[both] / (positives[both] * negatives[both])
    return groups[start][both], auc, (impressions if weight == "impressions" else positives)[both]


def _positive(scores: ndarray, labels: ndarray) -> ndarray:
    """Return labels as booleans, or say which are neither 0 nor 1."""
    if scores.shape != labels.shape:
        raise ShapeError(f"Expected one label a score, got scores {scores.shape} and labels {labels.shape}.")
    positive: ndarray = labels == 1
    wrong = np.flatnonzero(~positive & (labels != 0))
    if wrong.size:
        raise LogError(
            f"Labels must be 0 or 1, got {np.unique(labels[wrong])[:5].tolist()} in {wrong.size} of {labels.size} "
            f"events, the first at index {wrong[0]}; make them binary first (such as `ratings >= 4`)."
        )
    return positive


def _two_classes(scores: ndarray, labels: ndarray) -> ndarray:
    """Return labels as booleans, or say that one class is missing."""
    positive = _positive(scores, labels)
    count = int(np.count_nonzero(positive))
    if not 0 < count < positive.size:
        raise LogError(
            f"An AUC needs both classes, got {count} positives among {positive.size} events; use a longer window or "
            "another label."
        )
    return positive


def _checked_weights(weights: ndarray | None, positive: ndarray) -> ndarray | None:
    """Return float64 weights, or say what is wrong with them."""
    if weights is None:
        return None
    if weights.shape != positive.shape:
        raise ShapeError(f"Expected one weight an event, shape {positive.shape}, got {weights.shape}.")
    weights = weights.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(weights))
    if wrong.size:
        raise NonFiniteError(
            f"{wrong.size} of {weights.size} weights are NaN or infinite, the first at index {wrong[0]}; fill them, or "
            "leave these events out."
        )
    wrong = np.flatnonzero(weights < 0)
    if wrong.size:
        raise LogError(
            f"Weights must not be negative, got {weights[wrong[0]]} at index {wrong[0]} ({wrong.size} of "
            f"{weights.size} are negative)."
        )
    if not (weights[positive].any() and weights[~positive].any()):
        raise LogError(
            "A weighted AUC needs weight on both classes, got a total of "
            f"{weights[positive].sum()} on the positives and {weights[~positive].sum()} on the negatives."
        )
    return weights


def _refuse_nan(scores: ndarray) -> None:
    wrong = np.flatnonzero(np.isnan(scores))
    raise NonFiniteError(
        f"{wrong.size} of {scores.size} scores are NaN, the first at index {wrong[0]}; an AUC needs an order of all "
        "events."
    )
