"""Attribution of an AUC to events and groups: contributions that sum to the AUC."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray

from lis_lightning.errors import ShapeError


def auroc_shares(influence: Float[ndarray, " n"], auc: float, labels: Integer[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Return each event's contribution to the AUC; the contributions add up to the AUC.

    The mean placement of either class is the AUC (DeLong, DeLong and Clarke-Pearson 1988), so half of the AUC is
    credited to the positives and half to the negatives: an event contributes ``placement_e / (2 n_class)``. The
    difference between the shares of two arms attributes a gain in the same way.

    Args:
        influence: ``(placement_e - AUC) / n_class`` of each event, as
            :func:`~lis_lightning.functional.auc.auroc_influence` returns it without weights.
        auc: The AUC that the influence values belong to.
        labels: 0 or 1.

    Returns:
        Numbers that sum to `auc`.

    Raises:
        ShapeError: If the lengths differ.

    Example:
        >>> import numpy as np
        >>> from lis_lightning.functional import auroc_influence
        >>> labels = np.array([0, 0, 1, 1])
        >>> auc, influence = auroc_influence(np.array([0.1, 0.4, 0.35, 0.8]), labels)
        >>> auroc_shares(influence, auc, labels).tolist()
        [0.25, 0.125, 0.125, 0.25]
    """
    if influence.shape != labels.shape:
        raise ShapeError(f"Expected one label per event, shape {influence.shape}, got {labels.shape}.")
    of_class = np.bincount(labels, minlength=2)
    return np.asarray(0.5 * (influence + auc / of_class[labels]))


def group_totals(
    shares: Float[ndarray, " n"], groups: Integer[ndarray, " n"], users: Integer[ndarray, " n"], num_groups: int
) -> tuple[Float[ndarray, " g"], Float[ndarray, " g"]]:
    """Return the sum of the events' shares in each group, and its standard error over users.

    ``Var_g = sum_u T_gu^2`` with ``T_gu`` the total of user u's events in group g. This covers the sampling of users,
    including how often a group occurs; it does not include the sampling of the events that each placement compares
    with.

    Args:
        shares: Contribution of each event, from :func:`auroc_shares` or a difference of two.
        groups: Group of each event, in ``[0, num_groups)``, for example its item.
        users: User of each event; any integers of 0 or more.
        num_groups: Number of groups, including those without events.

    Returns:
        Sums and standard errors; both 0 for groups without events.

    Raises:
        ShapeError: If the lengths differ, or a group is out of range.

    Example:
        >>> import numpy as np
        >>> totals, errors = group_totals(np.array([1.0, 2.0, -1.0]), np.array([0, 0, 2]), np.array([5, 5, 6]), 3)
        >>> totals.tolist(), errors.tolist()
        ([3.0, 0.0, -1.0], [3.0, 0.0, 1.0])
    """
    if not shares.shape == groups.shape == users.shape:
        raise ShapeError(
            f"Expected shares, groups and users of one length, got {shares.shape}, {groups.shape} and {users.shape}."
        )
    if groups.size and not 0 <= groups.min() <= groups.max() < num_groups:
        raise ShapeError(f"Expected `groups` in [0, {num_groups}), got {groups.min()} to {groups.max()}.")
    # One integer key for each pair of group and user.
    num_users = int(users.max(initial=0)) + 1
    pairs, pair_of_event = np.unique(groups * num_users + users, return_inverse=True)
    pair_totals = np.bincount(pair_of_event, shares, minlength=pairs.size)
    return (
        np.bincount(groups, shares, minlength=num_groups).astype(np.float64),
        np.sqrt(np.bincount(pairs // num_users, np.square(pair_totals), minlength=num_groups)),
    )
