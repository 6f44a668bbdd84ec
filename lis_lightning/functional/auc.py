"""Exact area under the ROC curve of raw scores, with the influence of each event.

Scores are compared as given, in their own type, without a sigmoid or bins; ties count one half. (A metric that squashes
logits first loses the order of confident scores: the AUC of [20, 30, 40, -1] against [0, 1, 1, 0] is 1.0, not 0.75.)
Without weights, wins are counted in integers, so the AUC is correctly rounded for any number of events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer, Num
from numpy import ndarray

from lis_lightning.errors import LogError, NonFiniteError, ShapeError

Labels = Bool[ndarray, " n"] | Integer[ndarray, " n"] | Float[ndarray, " n"]
Weights = Num[ndarray, " n"] | None


def auroc(scores: Num[ndarray, " n"], labels: Labels, weights: Weights = None) -> float:
    """Return the area under the ROC curve: the probability that a positive outscores a negative.

    The Mann-Whitney form (Hanley and McNeil 1982), ties counting one half. With weights, a pair of a positive and a
    negative counts with the product of their weights, as with scikit-learn's ``sample_weight``.

    Args:
        scores: One raw score per event; any numbers but NaN.
        labels: 1 or True for positives, 0 or False for negatives.
        weights: Weight of each event (dwell time, bid value), 0 or more; None weighs all events equally.

    Returns:
        A number in [0, 1]; higher is better; 0.5 for scores without information.

    Raises:
        ShapeError: If the lengths differ.
        NonFiniteError: If a score is NaN (infinities have an order and are allowed), or a weight is NaN or infinite.
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
    # Both are sorted, so the binary searches walk through `negatives` in order and stay in the cache.
    # `compress` takes a third of the time of an index by a mask.
    negatives, targets = np.compress(~positive, scores), np.compress(positive, scores)
    negatives.sort()
    targets.sort()
    if negatives[-1] != negatives[-1] or targets[-1] != targets[-1]:  # sorting puts NaN last
        check_no_nan(scores)
    below = np.searchsorted(negatives, targets, side="left")
    wins = 2 * int(below.sum(dtype=np.int64))  # a tie counts half of a win
    # The second search, for the upper end of a tie, is needed for tied positives only.
    tied = negatives.take(below, mode="clip") == targets
    if tied.any():
        wins += int((np.searchsorted(negatives, targets[tied], side="right") - below[tied]).sum(dtype=np.int64))
    return wins / (2 * negatives.size * targets.size)


def auroc_influence(
    scores: Num[ndarray, " n"], labels: Labels, weights: Weights = None
) -> tuple[float, Float[ndarray, " n"]]:
    """Return the AUC and each event's influence on it.

    ``phi_e = w_e (placement_e - AUC) / W_class``, with ``W_class`` the total weight of the event's class and
    ``placement_e`` its placement value: for a positive the share of negatives it outscores, for a negative the share of
    positives that outscore it (DeLong, DeLong and Clarke-Pearson 1988, where all weights are 1). To first order, the
    change of the AUC when the event counts twice.

    Args:
        scores: One raw score per event; any numbers but NaN.
        labels: 1 or True for positives, 0 or False for negatives.
        weights: Weight of each event, 0 or more; None weighs all events equally.

    Returns:
        The AUC in [0, 1], and the influence values in the order of the events; those of each class sum to 0.

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
    if weights is not None:
        share = share * weights
    return auc, (ranked.placements(positive) - auc) * share


@dataclass(frozen=True)
class _TieGroups:
    """Events sorted by score, as groups of equal score, with the cumulative weight of each class.

    Attributes:
        order: Events by score, [n].
        size: Number of events in each group, [g].
        positives: Weight of the positives below each group, then of all of them, [g + 1]; integers if unweighted.
        negatives: The same for the negatives.
    """

    order: ndarray
    size: ndarray
    positives: ndarray
    negatives: ndarray

    def auc(self) -> float:
        """Return the AUC: each group's positives win against the negatives below and half of those within."""
        below = self.negatives[1:] + self.negatives[:-1]
        if below.dtype.kind == "i":
            wins = int((np.diff(self.positives) * below).sum())
            return wins / (2 * int(self.positives[-1]) * int(self.negatives[-1]))
        # Centred, so that scores that are all equal give exactly 0.5.
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
    """Sort the events once, and return the cumulative weight of each class at the edges of the ties."""
    order = np.argsort(scores)
    ordered, hits = scores[order], positive[order]
    if ordered[-1] != ordered[-1]:  # sorting puts NaN last
        check_no_nan(scores)
    edges = np.r_[0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, scores.size]
    by_event: tuple[ndarray, ndarray] = (hits, ~hits)
    dtype: type[np.generic] = np.int64
    if weights is not None:
        by_event = np.where(hits, weights[order], 0.0), np.where(hits, 0.0, weights[order])
        dtype = np.float64
    cumulative = np.zeros((2, scores.size + 1), dtype)
    for row, values in zip(cumulative, by_event, strict=True):
        np.cumsum(values, out=row[1:])
    return _TieGroups(order, np.diff(edges), cumulative[0, edges], cumulative[1, edges])


def binary_labels(scores: ndarray, labels: ndarray) -> ndarray:
    """Return one boolean label per score.

    Raises:
        ShapeError: If the lengths differ.
        LogError: If a label is neither 0 nor 1.
    """
    if scores.shape != labels.shape:
        raise ShapeError(f"Expected one label per score, got scores {scores.shape} and labels {labels.shape}.")
    positive: ndarray = labels == 1
    wrong = np.flatnonzero(~positive & (labels != 0))
    if wrong.size:
        raise LogError(
            f"Labels must be 0 or 1, got {np.unique(labels[wrong])[:5].tolist()} in {wrong.size} of {labels.size} "
            f"events, the first at index {wrong[0]}; make them binary first (such as `ratings >= 4`)."
        )
    return positive


def check_no_nan(scores: ndarray) -> None:
    """Raise a NonFiniteError if a score is NaN."""
    wrong = np.flatnonzero(np.isnan(scores))
    if wrong.size:
        raise NonFiniteError(
            f"{wrong.size} of {scores.size} scores are NaN, the first at index {wrong[0]}; an AUC needs an order of "
            "all events."
        )


def _two_classes(scores: ndarray, labels: ndarray) -> ndarray:
    """Return boolean labels, or raise if they are not binary or one class is missing."""
    positive = binary_labels(scores, labels)
    count = int(np.count_nonzero(positive))
    if not 0 < count < positive.size:
        raise LogError(
            f"An AUC needs both classes, got {count} positives among {positive.size} events; use a longer window or "
            "another label."
        )
    return positive


def _checked_weights(weights: ndarray | None, positive: ndarray) -> ndarray | None:
    """Return float64 weights, or raise if they cannot weigh an AUC."""
    if weights is None:
        return None
    if weights.shape != positive.shape:
        raise ShapeError(f"Expected one weight per event, shape {positive.shape}, got {weights.shape}.")
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
