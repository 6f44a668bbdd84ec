"""Per-user AUC (GAUC): the impression-weighted mean of the AUC within each group, with its influence values."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer, Num
from numpy import ndarray

from lis_lightning.errors import ShapeError
from lis_lightning.functional.auc import Labels, binary_labels, check_no_nan


def grouped_auroc_influence(
    scores: Num[ndarray, " n"], labels: Labels, groups: Integer[ndarray, " n"], num_groups: int
) -> tuple[float, Float[ndarray, " g"]]:
    """Return the grouped AUC (GAUC, Zhu et al. 2017) and each group's influence on it.

    GAUC is the mean of the AUC within each group, weighted by the group's number of events; ties count one half. Groups
    of one class have no AUC and are left out. The influence values are those of the linearised ratio estimator with
    groups as the sampled units (Cochran 1977, section 6.3): ``I_g = m_g (AUC_g - GAUC) / sum m`` with ``m_g`` the
    events of group g. For the interval of a GAUC gain on the same events, pass the difference of two arms' influence
    values to :func:`~lis_lightning.functional.intervals.cluster_interval`.

    Args:
        scores: One raw score per event; any numbers but NaN.
        labels: 1 or True for positives, 0 or False for negatives.
        groups: Group of each event, usually the user, in ``[0, num_groups)``.
        num_groups: Number of groups, including those without events.

    Returns:
        The GAUC in [0, 1], and one influence value per group, 0 for groups without an AUC. Both are NaN if no group has
        an AUC.

    Raises:
        ShapeError: If the lengths differ, or a group is out of range.
        NonFiniteError: If a score is NaN.
        LogError: If a label is neither 0 nor 1.

    Example:
        >>> import numpy as np
        >>> scores, labels = np.array([1.0, 2, 5, 4]), np.array([0, 1, 0, 1])
        >>> gauc, influence = grouped_auroc_influence(scores, labels, np.array([0, 0, 2, 2]), 3)
        >>> gauc, influence.tolist()
        (0.5, [0.25, 0.0, -0.25])
    """
    positive = binary_labels(scores, labels)
    if groups.shape != scores.shape:
        raise ShapeError(f"Expected one group per event, shape {scores.shape}, got {groups.shape}.")
    if groups.size and not 0 <= groups.min() <= groups.max() < num_groups:
        raise ShapeError(f"Expected `groups` in [0, {num_groups}), got {groups.min()} to {groups.max()}.")
    check_no_nan(scores)
    scored, auc, impressions = _group_aucs(scores, positive, groups)
    if not auc.size:
        return float("nan"), np.full(num_groups, np.nan)
    mean = float(np.average(auc, weights=impressions))
    influence = np.zeros(num_groups)
    influence[scored] = impressions * (auc - mean) / impressions.sum()
    return mean, influence


def _group_aucs(scores: ndarray, positive: ndarray, groups: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Return the groups that have both classes, their AUC, and their number of events.

    The rank-sum form of the AUC with midranks for ties (Mann and Whitney 1947), for all groups at once: the
    events are sorted by score, then by group.
    """
    order = np.argsort(scores)
    # NumPy sorts 16-bit integers in linear time.
    keys = groups.astype(np.uint16) if groups.size and groups.max() < 2**16 else groups
    order = order[np.argsort(keys[order], kind="stable")]
    scores, hits, groups = scores[order], positive[order].astype(np.float64), groups[order]
    # Runs of equal group, and within them runs of equal score.
    new_group = np.r_[True, groups[1:] != groups[:-1]][: scores.size]
    new_tie = new_group | np.r_[True, scores[1:] != scores[:-1]][: scores.size]
    start, tie_start = np.flatnonzero(new_group), np.flatnonzero(new_tie)
    group, tie = np.cumsum(new_group) - 1, np.cumsum(new_tie) - 1
    # Tied events share the mean of their ranks; ranks start at 1 in each group.
    tie_end = np.r_[tie_start, scores.size][1:]
    midrank = (tie_start + tie_end - 1)[tie] / 2 - start[group] + 1
    impressions = np.bincount(group).astype(np.float64)
    positives = np.bincount(group, weights=hits)
    negatives = impressions - positives
    # U statistic: the rank sum of the positives less its smallest possible value.
    wins = np.bincount(group, weights=midrank * hits) - positives * (positives + 1) / 2
    both = (positives > 0) & (negatives > 0)
    auc = wins[both] / (positives[both] * negatives[both])
    return groups[start][both], auc, impressions[both]
