"""Preference data completed by content, for cold and rare items."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from lis_lightning.data.digest import digest, digest_ids
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError
from lis_lightning.functional.item_coordinates import principal_coordinates
from lis_lightning.functional.item_vectors import ItemVectors, complete_vectors
from lis_lightning.scoring.preferences.cross_fit import user_fold
from lis_lightning.scoring.preferences.item_ids import checked_ids, checked_matrix, log_vectors
from lis_lightning.scoring.preferences.naming import Preference, as_preference
from lis_lightning.scoring.preferences.preference_data import (
    CrossFittedVectors,
    MatchedPreference,
    PreferenceData,
    Rows,
)

CONTENT_DIMS = 64  # principal axes of the content that complete preference data


@dataclass(frozen=True, eq=False)
class Completed(PreferenceData):
    """Preference data completed by content: cold and rare items get vectors predicted from their content.

    Collaborative data has no vectors for items without clicks, so a ceiling of the data alone is too low. The vectors
    are regressed on the content, and an item with n positives keeps ``n / (n + 30)`` of its residual
    (:func:`lis_lightning.functional.item_vectors.complete_vectors`). Use the raw embeddings of the model, before any
    alignment, as content: the result is then the ceiling of this data *with this content*.

    Args:
        preference: The preference data: a built-in kind, a table, embeddings or a callable.
        content: Item representations [num_ids, dim]. Items without a row keep the vectors of the data.
        item_ids: Ids of the rows, as in the interaction log, [num_ids]; such as ``split.item_ids``.

    Raises:
        ConfigError: If `preference` is not preference data, or is already completed.
        ShapeError: If the matrix does not have one row an id, or ids repeat.
        NonFiniteError: If a row holds NaN or infinity; the first five ids are named.

    Example:
        >>> import numpy as np
        >>> Completed("pairs", np.eye(3), item_ids=[7, 8, 9]).matrix.shape
        (3, 3)
    """

    preference: Preference
    content: Any = field(repr=False)
    item_ids: Any = field(repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.preference, Completed):
            raise ConfigError("Expected preference data that is not completed yet, got Completed; complete it once.")
        _ = self.inner
        _ = self.matrix

    @cached_property
    def ids(self) -> NDArray[Any]:
        """The validated ids."""
        return checked_ids(self.item_ids, "the content")

    @cached_property
    def matrix(self) -> NDArray[Any]:
        """The validated content."""
        return checked_matrix(self.content, self.ids, "content")

    @cached_property
    def inner(self) -> PreferenceData:
        """The preference data that is completed."""
        return as_preference(self.preference)

    @cached_property
    def _matrix_key(self) -> str:
        return digest("completed", digest_ids(self.ids), self.matrix)

    @property
    @override
    def handle(self) -> Hashable:
        return self._matrix_key, self.inner.handle

    @property
    @override
    def content_key(self) -> str | None:
        data = self.inner.content_key
        return None if data is None else digest(self._matrix_key, data)

    @override
    def match(self, split: PreferenceSplit) -> MatchedPreference:
        inner, log = self.inner.match(split), split.log
        raw = log_vectors(split, self.ids, self.matrix, "the content", warn=True)
        axes = principal_coordinates(
            torch.from_numpy(raw.vectors), k=CONTENT_DIMS, present=torch.from_numpy(raw.present)
        )
        content = ItemVectors(axes.profile.double().numpy(), raw.present)
        fold = user_fold(split)

        def completed(leak: CrossFittedVectors, rows: Rows) -> CrossFittedVectors:
            def fill(vectors: ItemVectors, rows: Rows) -> ItemVectors:
                return complete_vectors(vectors, np.bincount(log.item[rows], minlength=log.num_items), content)

            positive = rows & (log.label == 1)
            if not inner.cross_fitted:
                # Counts of w0 only: counts of the scored events would bring back the labels that the data leaves out.
                reference = fill(leak.reference, positive & (log.window == 0))
                return CrossFittedVectors(reference, [reference])
            folds = [fill(part, positive & (fold[log.user] != held_out)) for held_out, part in enumerate(leak.folds)]
            return CrossFittedVectors(fill(leak.reference, positive), folds)

        built_past = inner.past
        return MatchedPreference(
            inner.cross_fitted,
            lambda: completed(inner.future(), np.ones(log.user.size, bool)),
            None if built_past is None else lambda: completed(built_past(), log.window < 2),
        )
