"""The interface of preference data: its cache keys, and its cross-fitted item vectors on a split.

A ceiling leaks the preference data of the evaluation period but never the label: the vectors used for a user's events
are built without that user. Each kind of preference data defines how it is split by user. Data that cannot be split is
refused, because a user's own events inside the vectors contain the label (naive leaks score 3 to 10 times the true
ceiling), unless its owner states that it holds no evaluation events.
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
        reference: Vectors built from all users' events.
        folds: Vectors built without each fold's users, rotated onto the reference; the reference alone if the data
            holds no events of the scored users.

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
        cross_fitted: Whether the vectors of each fold are built without the users they are scored on.
        future: Builds vectors from all events.
        past: Builds vectors from the events before w2; None if events have no time.
        of_log: Whether both are built from the events of the log and nothing else, so that rolling windows share them.

    Example:
        >>> vectors = ItemVectors(np.eye(3), np.ones(3, bool))
        >>> matched = MatchedPreference(False, lambda: CrossFittedVectors(vectors, [vectors]), None)
        >>> matched.future().reference.vectors.shape
        (3, 3)
    """

    cross_fitted: bool
    future: Callable[[], CrossFittedVectors]
    past: Callable[[], CrossFittedVectors] | None
    of_log: bool = False


class PreferenceData(ABC):
    """A kind of preference data. A new kind is a subclass with `content_key` and `match`.

    Example:
        >>> class Editorial(PreferenceData):
        ...     content_key = "editors, May"
        ...     def match(self, split):
        ...         vectors = ItemVectors(np.eye(split.log.num_items), np.ones(split.log.num_items, bool))
        ...         return MatchedPreference(False, lambda: CrossFittedVectors(vectors, [vectors]), None)
        >>> Editorial().handle
        'editors, May'
    """

    @property
    def handle(self) -> Hashable:
        """Identifies the preference data within one process: its content key, or the object itself without one."""
        return self.content_key or self

    @property
    @abstractmethod
    def content_key(self) -> str | None:
        """Digest of the content, the key of its ceiling on disk; None if the content is unknown."""

    @abstractmethod
    def match(self, split: PreferenceSplit) -> MatchedPreference:
        """Match the preference data with a split.

        Args:
            split: The split.

        Raises:
            ConfigError: If the data does not fit the split.

        Warns:
            LisWarning: If items are unknown to the split, or `holds_no_evaluation_events` looks doubtful.
        """
