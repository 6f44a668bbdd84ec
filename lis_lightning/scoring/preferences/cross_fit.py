"""Leave-users-out cross-fit of preference vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.functional.item_vectors import ItemVectors, rotate_onto
from lis_lightning.functional.threads import map_blocks
from lis_lightning.scoring.preferences.preference_data import NUM_FOLDS, CrossFittedVectors, MatchedPreference, Rows

_MEAN_ROUNDS = 3
_CONCURRENT_ROWS = 1_000_000  # with more, the matrices of several builds would take too much memory together


def user_fold(split: PreferenceSplit) -> NDArray[np.int64]:
    """Return the fold of each user of the log, [log.num_users]; -1 for users that are not scored.

    Args:
        split: The split.
    """
    fold = np.full(split.log.num_users, -1)
    fold[: split.num_users] = split.user_folds(NUM_FOLDS)["fold"].to_numpy()
    return fold


def leave_users_out(
    build: Callable[[Rows], ItemVectors],
    rows: Rows,
    fold: NDArray[np.int64] | None,
    num_folds: int = NUM_FOLDS,
    *,
    concurrent: bool = False,
) -> CrossFittedVectors:
    """Leave-users-out cross-fit of preference vectors: build them once for each fold, without that fold's users.

    Args:
        build: Builds vectors from the rows of a mask, [num_rows].
        rows: The rows to use, [num_rows].
        fold: Fold of each row's user, [num_rows], -1 for users that are never left out; None builds once.
        num_folds: Number of folds of ``split.user_folds(num_folds)``.
        concurrent: Whether `build` may be called from several threads at a time.

    Returns:
        The vectors of all rows, and those of each fold rotated onto them.

    Example:
        >>> import numpy as np
        >>> item = np.array([0, 1, 2, 0])
        >>> def build(rows):
        ...     return ItemVectors(np.eye(3), np.bincount(item[rows], minlength=3) > 0)
        >>> fitted = leave_users_out(build, np.ones(4, bool), np.array([0, 0, 1, 1]), num_folds=2)
        >>> [fold.present.tolist() for fold in fitted.folds]
        [[True, False, True], [True, True, False]]
    """
    if fold is None:
        reference = build(rows)
        return CrossFittedVectors(reference, [reference])
    masks = [rows, *(rows & (fold != held_out) for held_out in range(num_folds))]
    spaces = map_blocks if concurrent and rows.size <= _CONCURRENT_ROWS else map
    reference, *folds = spaces(build, masks)
    return CrossFittedVectors(reference, [rotate_onto(vectors, reference) for vectors in folds])


def cross_fit_log(
    split: PreferenceSplit, build: Callable[[Rows], ItemVectors], *, concurrent: bool = False
) -> MatchedPreference:
    """Leave-users-out cross-fit over the events of the log, with and without w2.

    Args:
        split: The split.
        build: Builds vectors from the events of a mask, [num_events].
        concurrent: Whether `build` may be called from several threads at a time.

    Returns:
        Preference data ready to be built.
    """
    log = split.log
    fold = user_fold(split)[log.user]
    return MatchedPreference(
        cross_fitted=True,
        future=lambda: leave_users_out(build, np.ones(log.user.size, bool), fold, concurrent=concurrent),
        past=lambda: leave_users_out(build, log.window < 2, fold, concurrent=concurrent),
        of_log=True,
    )


def tie_folds(folds: list[ItemVectors]) -> CrossFittedVectors:
    """Generalised Procrustes alignment of the folds' spaces to their mean (Gower 1975), starting at the first fold.

    The mean is taken over the folds that have the item. The order of the folds changes it by a common rotation only,
    to which the probe is invariant.

    Args:
        folds: Vectors of each fold, [num_items, dim] each.

    Returns:
        The mean, and the vectors of each fold rotated onto it.

    Example:
        >>> import numpy as np
        >>> present = np.ones(2, bool)
        >>> spaces = [ItemVectors(np.eye(2), present), ItemVectors(np.eye(2)[::-1].copy(), present)]
        >>> tie_folds(spaces).folds[1].vectors
        array([[1., 0.],
               [0., 1.]])
    """
    reference = folds[0]
    for _ in range(_MEAN_ROUNDS):
        folds = [rotate_onto(fold, reference) for fold in folds]
        count = np.sum([fold.present for fold in folds], axis=0)
        total = np.sum([fold.vectors for fold in folds], axis=0)
        reference = ItemVectors(total / np.maximum(count, 1)[:, None], count > 0)
    return CrossFittedVectors(reference, [rotate_onto(fold, reference) for fold in folds])
