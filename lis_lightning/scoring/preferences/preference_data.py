"""The interface of preference data: how it is keyed, and how it becomes item vectors of a split.

A ceiling leaks the preference data of the evaluation period but never the label: the vectors that a user's events see
are built without that user. Each kind says how it is cut by user. What cannot be cut is refused, since a user's own
events inside the vectors are the label (naive leaks score 3 to 10 times the true ceiling), unless its owner says that
it holds none of the events that are scored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.functional.item_vectors import ItemVectors

NUM_FOLDS = 5
NO_EVALUATION_EVENTS = "`holds_no_evaluation_events=True`"

Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class CrossFittedVectors:
    """Item vectors of preference data, rows as ``split.log_item_ids``.

    Attributes:
        reference: Vectors of all users' events.
        folds: Vectors built without each fold's users, rotated onto the reference; the reference alone where nothing
            of the scored users is inside.

    Example:
        >>> vectors = ItemVectors(np.eye(3), np.ones(3, bool))
        >>> len(CrossFittedVectors(vectors, [vectors]).folds)
        1
    """

    reference: ItemVectors
    folds: list[ItemVectors]


@dataclass(frozen=True)
class MatchedPreference:
    """Preference data matched with a split, ready to be built.

    Attributes:
        cross_fitted: Whether vectors are built without the users that they are scored on.
        future: Builds from all events.
        past: Builds from the events before w2; None where events have no time.

    Example:
        >>> vectors = ItemVectors(np.eye(3), np.ones(3, bool))
        >>> matched = MatchedPreference(False, lambda: CrossFittedVectors(vectors, [vectors]), None)
        >>> matched.future().reference.vectors.shape
        (3, 3)
    """

    cross_fitted: bool
    future: Callable[[], CrossFittedVectors]
    past: Callable[[], CrossFittedVectors] | None


class PreferenceData(ABC):
    """A kind of preference data. A new kind is one class with these three members.

    Example:
        >>> class Editorial(PreferenceData):
        ...     handle = content_key = "editors, May"
        ...     def match(self, split):
        ...         vectors = ItemVectors(np.eye(split.log.num_items), np.ones(split.log.num_items, bool))
        ...         return MatchedPreference(False, lambda: CrossFittedVectors(vectors, [vectors]), None)
        >>> Editorial().content_key
        'editors, May'
    """

    @property
    @abstractmethod
    def handle(self) -> Hashable:
        """What tells this preference data from other within one process."""

    @property
    @abstractmethod
    def content_key(self) -> str | None:
        """Digest of the content, under which its ceiling is kept on disk; None where that cannot be known."""

    @abstractmethod
    def match(self, split: PreferenceSplit) -> MatchedPreference:
        """Match the preference data with a split.

        Args:
            split: The split.

        Raises:
            ConfigError: If the two do not go together.

        Warns:
            LisWarning: If items are unknown to the split, or a claim looks doubtful.
        """
