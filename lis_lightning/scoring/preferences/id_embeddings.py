"""ID embeddings of a ranker as preference data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from numpy.typing import NDArray
from typing_extensions import override

from lis_lightning.data.digest import digest, digest_ids
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, ShapeError
from lis_lightning.scoring.preferences.cross_fit import tie_folds
from lis_lightning.scoring.preferences.item_ids import checked_ids, checked_matrix, log_vectors
from lis_lightning.scoring.preferences.preference_data import (
    NO_EVALUATION_EVENTS,
    NUM_FOLDS,
    CrossFittedVectors,
    MatchedPreference,
    PreferenceData,
)


@dataclass(frozen=True, eq=False)
class IdEmbeddings(PreferenceData):
    """Item embeddings of a ranker that the user trained.

    Embeddings trained on all events contain the scored users' labels. Give either one matrix a fold, each trained
    without that fold's users (see :meth:`lis_lightning.PreferenceSplit.user_folds`), or a single matrix trained on no
    scored event (on w0 only, ``split.alignment``). The spaces of the folds may differ by a rotation: generalised
    Procrustes aligns them to their mean, starting at the first fold.

    Args:
        vectors: Matrix [num_ids, dim], or a mapping of each fold, 0 to 4, to such a matrix, all of one width. A row of
            zeros means that the item has no vector.
        item_ids: Ids of the rows, as in the interaction log, [num_ids].
        holds_no_evaluation_events: States that no event of w1 or w2 of a scored user went into a single matrix.

    Raises:
        ConfigError: If a single matrix is given without that statement, or folds are missing.
        ShapeError: If a matrix does not have one row an id, or widths differ, or ids repeat.
        NonFiniteError: If a row holds NaN or infinity; the first five ids are named.

    Example:
        >>> import numpy as np
        >>> given = IdEmbeddings(np.eye(3), item_ids=[7, 8, 9], holds_no_evaluation_events=True)
        >>> given.matrices[0].shape
        (3, 3)
    """

    vectors: Any = field(repr=False)
    item_ids: Any = field(repr=False)
    holds_no_evaluation_events: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.vectors, Mapping):
            if set(self.vectors) != set(range(NUM_FOLDS)):
                raise ConfigError(
                    f"Expected embeddings for the folds {list(range(NUM_FOLDS))} of `split.user_folds()`, got "
                    f"{sorted(self.vectors, key=str)}."
                )
        elif not self.holds_no_evaluation_events:
            raise ConfigError(
                "One matrix of ID embeddings cannot be cross-fitted: trained on all events it carries the scored "
                "users' labels, and such leaks score 3 to 10 times the true ceiling. Train one for each fold of "
                "`split.user_folds()` without its users and give {0: ..., 4: ...}, or, if nothing of w1 and w2 went "
                f"into it, set {NO_EVALUATION_EVENTS}."
            )
        if len({matrix.shape[1] for matrix in self.matrices}) > 1:
            widths = {fold: matrix.shape[1] for fold, matrix in enumerate(self.matrices)}
            raise ShapeError(f"Expected ID embeddings of one width in all folds, got {widths}.")

    @cached_property
    def ids(self) -> NDArray[Any]:
        """The validated ids."""
        return checked_ids(self.item_ids, "ID embeddings")

    @cached_property
    def matrices(self) -> list[NDArray[Any]]:
        """The validated matrices: a single one, or one a fold."""
        if not isinstance(self.vectors, Mapping):
            return [checked_matrix(self.vectors, self.ids, "ID embeddings")]
        return [
            checked_matrix(self.vectors[fold], self.ids, f"ID embeddings of fold {fold}") for fold in range(NUM_FOLDS)
        ]

    @cached_property
    @override
    def content_key(self) -> str:
        return digest("id embeddings", digest_ids(self.ids), *self.matrices)

    @override
    def match(self, split: PreferenceSplit) -> MatchedPreference:
        folds = [
            log_vectors(split, self.ids, matrix, "ID embeddings", warn=index == 0)
            for index, matrix in enumerate(self.matrices)
        ]
        if len(folds) > 1:
            return MatchedPreference(True, lambda: tie_folds(folds), None)
        return MatchedPreference(False, lambda: CrossFittedVectors(folds[0], folds), None)
