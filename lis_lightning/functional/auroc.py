"""Exact area under the ROC curve of raw scores, over all events and per user, with the influence of each event.

Scores are compared as they come, in float64: no sigmoid, no bins. A tie counts one half. (A metric that squashes logits
first loses the order of confident scores: [20, 30, 40, -1] against [0, 1, 1, 0] is 1.0, not .75.)
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from numpy import ndarray

from lis_lightning.errors import LogError, NonFiniteError, ShapeError

Labels = Bool[ndarray, " n"] | Int[ndarray, " n"] | Float[ndarray, " n"]


def auroc(scores: Num[ndarray, " n"], labels: Labels) -> float:
    """Return the probability that a positive outscores a negative, ties counting one half.

    The Mann-Whitney form of the area under the ROC curve (Hanley and McNeil 1982).

    Args:
        scores: One raw score an event; any finite numbers.
        labels: 1 or True for positives, 0 or False for negatives.

    Returns:
        A number in [0, 1]; higher is better; 0.5 for scores without information.

    Raises:
        ShapeError: If the lengths differ.
        NonFiniteError: If a score is NaN (infinities have an order and are welcome).
        LogError: If only one class is present.

    Example:
        >>> import numpy as np
        >>> auroc(np.array([20.0, 30.0, 40.0, -1.0]), np.array([0, 1, 1, 0]))
        1.0
    """
    scores, positive = _checked(scores, labels)
    negatives = np.sort(scores[~positive])
    targets = scores[positive]
    # Sorted queries walk through `negatives` in order, which keeps the binary searches in the cache.
    targets.sort()
    below = int(np.searchsorted(negatives, targets, side="left").sum(dtype=np.int64))
    upto = int(np.searchsorted(negatives, targets, side="right").sum(dtype=np.int64))
    return float((below + upto) / 2 / (negatives.size * targets.size))


def auroc_influence(scores: Num[ndarray, " n"], labels: Labels) -> tuple[float, Float[ndarray, " n"]]:
    """Return the AUC and each event's influence on it.

    ``phi_e = (placement_e - AUC) / n_class``, with the placement of a positive the share of negatives it outscores, and
    of a negative the share of positives that outscore it (DeLong, DeLong and Clarke-Pearson 1988).

    Args:
        scores: One raw score an event.
        labels: 1 or True for positives, 0 or False for negatives.

    Returns:
        The AUC in [0, 1], and the influence values in the order of the events; they sum to 0.

    Raises:
        ShapeError, NonFiniteError, LogError: As :func:`auroc`.

    Example:
        >>> import numpy as np
        >>> auc, phi = auroc_influence(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        >>> auc, phi.tolist()
        (0.75, [0.125, -0.125, -0.125, 0.125])
    """
    scores, positive = _checked(scores, labels)
    placement = np.empty(scores.size)
    placement[positive] = _share_below(scores[positive], scores[~positive])
    placement[~positive] = 1.0 - _share_below(scores[~positive], scores[positive])
    auc = float(placement[positive].mean())
    count = np.where(positive, positive.sum(), (~positive).sum())
    return auc, (placement - auc) / count


def grouped_auroc(
    scores: Num[ndarray, " n"],
    labels: Labels,
    groups: Int[ndarray, " n"],
    *,
    weight: Literal["impressions", "positives"] = "impressions",
) -> float:
    """Return the weighted mean of the AUC within each group (GAUC, Zhu et al. 2017), ties counting one half.

    Args:
        scores: One raw score an event.
        labels: 1 or True for positives.
        groups: Group of each event, usually the user; any integers.
        weight: What a group weighs by: its ``"impressions"`` (FuxiCTR) or its ``"positives"`` (RecBole).

    Returns:
        A number in [0, 1]; groups of one class have no AUC and are left out; NaN if all are.

    Raises:
        ShapeError: If the lengths differ.
        NonFiniteError: If a score is NaN.

    Example:
        >>> import numpy as np
        >>> grouped_auroc(np.array([1.0, 2, 5, 4]), np.array([0, 1, 0, 1]), np.array([7, 7, 8, 8]))
        0.5
    """
    scores, positive = _checked(scores, labels, both_classes=False)
    if groups.shape != scores.shape:
        raise ShapeError(f"Expected one group an event, shape {scores.shape}, got {groups.shape}.")
    if not scores.size:
        return float("nan")
    order = np.lexsort((scores, groups))
    scores, positive, groups = scores[order], positive[order].astype(np.float64), groups[order]
    index = np.arange(scores.size)
    new_group = np.r_[True, groups[1:] != groups[:-1]]
    new_tie = new_group | np.r_[True, scores[1:] != scores[:-1]]
    tie_start, tie = index[new_tie], np.cumsum(new_tie) - 1
    tie_end = np.r_[tie_start[1:], scores.size]
    group = np.cumsum(new_group) - 1
    start = index[new_group]
    midrank = (tie_start + tie_end - 1)[tie] / 2 - start[group] + 1
    impressions = np.bincount(group).astype(np.float64)
    positives = np.bincount(group, weights=positive)
    negatives = impressions - positives
    ranks = np.bincount(group, weights=midrank * positive)
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan")
    wins = ranks[both] - positives[both] * (positives[both] + 1) / 2
    auc = wins / (positives[both] * negatives[both])
    return float(np.average(auc, weights=(impressions if weight == "impressions" else positives)[both]))


def _share_below(targets: Float[ndarray, " m"], others: Float[ndarray, " k"]) -> Float[ndarray, " m"]:
    """Return for each target the share of `others` below it, ties counting one half."""
    ordered = np.sort(others)
    left = np.searchsorted(ordered, targets, side="left")
    right = np.searchsorted(ordered, targets, side="right")
    return (left + right) / (2.0 * others.size)


def _checked(
    scores: Num[ndarray, " n"], labels: ndarray, *, both_classes: bool = True
) -> tuple[Float[ndarray, " n"], Bool[ndarray, " n"]]:
    """Return float64 scores and boolean labels, or say what is wrong with them."""
    if scores.shape != labels.shape:
        raise ShapeError(f"Expected one label a score, got scores {scores.shape} and labels {labels.shape}.")
    scores = scores.astype(np.float64)
    if np.isnan(scores).any():
        raise NonFiniteError(
            f"{int(np.isnan(scores).sum())} of {scores.size} scores are NaN, the first at index "
            f"{int(np.flatnonzero(np.isnan(scores))[0])}; an AUC needs an order of all events."
        )
    positive = labels.astype(bool)
    if both_classes and (positive.all() or not positive.any()):
        raise LogError(
            f"An AUC needs both classes, got {int(positive.sum())} positives among {positive.size} events; "
            "use a longer window or another label."
        )
    return scores, positive
