"""Leave-users-out cross-fit of preference vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.functional.item_vectors import ItemVectors, rotate_onto
from lis_lightning.scoring.preferences.preference_data import NUM_FOLDS, CrossFittedVectors, Rows

_MEAN_ROUNDS = 3


def user_fold(split: PreferenceSplit) -> NDArray[np.int64]:
    """Return the fold of each user of the log, [log.num_users]; -1 for users that are not scored.

    Args:
        split: The split.
    """
    fold = np.full(split.log.num_users, -1)
    fold[: split.num_users] = split.user_folds(NUM_FOLDS)["fold"].to_numpy()
    return fold


def leave_users_out(
    build: Callable[[Rows], ItemVectors], rows: Rows, fold: NDArray[np.int64] | None, num_folds: int = NUM_FOLDS
) -> CrossFittedVectors:
    """Build vectors from some rows, leaving out each fold's users in turn.

    Args:
        build: Makes vectors from a choice of rows.
        rows: The rows to use.
        fold: Fold of each row's user, -1 for users that are never left out; None builds once.
        num_folds: Number of folds of ``split.user_folds(num_folds)``.
    """
    reference = build(rows)
    if fold is None:
        return CrossFittedVectors(reference, [reference])
    return CrossFittedVectors(
        reference, [rotate_onto(build(rows & (fold != held)), reference) for held in range(num_folds)]
    )


def tie_folds(folds: list[ItemVectors]) -> CrossFittedVectors:
    """Rotate the spaces of folds onto their mean (generalised Procrustes, Gower 1975), starting at the first fold.

    The mean is taken over the folds that have the item. The order of the folds changes it by a common rotation only,
    to which the probe is invariant.
    """
    reference = folds[0]
    for _ in range(_MEAN_ROUNDS):
        folds = [rotate_onto(fold, reference) for fold in folds]
        count = np.sum([fold.present for fold in folds], axis=0)
        total = np.sum([fold.vectors for fold in folds], axis=0)
        reference = ItemVectors(total / np.maximum(count, 1)[:, None], count > 0)
    return CrossFittedVectors(reference, [rotate_onto(fold, reference) for fold in folds])
