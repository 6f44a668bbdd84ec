"""Built-in preference data, made from the interaction log itself: co-engagement and ID embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from typing_extensions import override

from lis_lightning.data.digest import digest
from lis_lightning.data.events import Log
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.functional.alternating_least_squares import id_vectors
from lis_lightning.functional.item_vectors import ItemVectors
from lis_lightning.functional.pointwise_mutual_information import pair_vectors
from lis_lightning.scoring.preferences.cross_fit import cross_fit_log
from lis_lightning.scoring.preferences.preference_data import MatchedPreference, PreferenceData, Rows


def build_pairs(log: Log, rows: Rows) -> ItemVectors:
    """Return vectors of item-to-item co-engagement from the positives among some rows of the log.

    Args:
        log: The log of a split.
        rows: The rows to use, [num_events].

    Returns:
        Vectors [num_items, dim]; items without a positive are absent.

    Example:
        >>> import polars as pl
        >>> table = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                       "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> log = PreferenceSplit.from_log(table).log
        >>> build_pairs(log, log.window == 0).present
        array([ True,  True,  True,  True])
    """
    rows = rows & (log.label == 1)
    return pair_vectors(log.user[rows], log.item[rows], log.num_items)


def build_ids(log: Log, rows: Rows) -> ItemVectors:
    """Return ID embeddings of a ranker trained on some rows of the log.

    Args:
        log: The log of a split.
        rows: The rows to use, [num_events].

    Returns:
        Vectors [num_items, dim]; items without an event are absent.

    Example:
        >>> import polars as pl
        >>> table = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                       "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> log = PreferenceSplit.from_log(table).log
        >>> build_ids(log, log.window == 0).vectors.shape
        (4, 16)
    """
    return id_vectors(log.user[rows], log.item[rows], log.label[rows].astype(np.float64), log.num_items)


@dataclass(frozen=True)
class LogPreference(PreferenceData):
    """Vectors built from the events of the log.

    Attributes:
        name: Name of the kind.
        build: Builds vectors from some rows of the log.
    """

    name: str
    build: Callable[[Log, Rows], ItemVectors]

    @property
    @override
    def content_key(self) -> str:
        return digest("built in", self.name)

    @override
    def match(self, split: PreferenceSplit) -> MatchedPreference:
        return cross_fit_log(split, partial(self.build, split.log), concurrent=True)


BUILT_IN = {"pairs": LogPreference("pairs", build_pairs), "ids": LogPreference("ids", build_ids)}
