"""The scorer of a split, which turns item representations into AIS, ceilings and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from lis_lightning.data.item_rows import Missing, vectors_in_order
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError
from lis_lightning.functional.item_vectors import ItemVectors
from lis_lightning.results.result import Ceiling, LISResult
from lis_lightning.scoring.base_ranker import Prepared, prepare
from lis_lightning.scoring.cache import SplitCache
from lis_lightning.scoring.ceiling import ceiling_of, leak_arm, reference_vectors
from lis_lightning.scoring.compute_settings import score_settings
from lis_lightning.scoring.gain import Arm, Gain
from lis_lightning.scoring.headroom import headroom_of
from lis_lightning.scoring.options import ScoreOptions
from lis_lightning.scoring.power import smallest_detectable_gain
from lis_lightning.scoring.preferences.naming import Preference
from lis_lightning.scoring.preferences.preference_data import CrossFittedVectors
from lis_lightning.scoring.scoring_pass import score_representation
from lis_lightning.scoring.summary import describe, render


class Scorer:
    """Scores representations on a split; owns the values that are computed once for it.

    The base ranker, the ceilings and their cross-fitted vectors are computed once and cached: in memory for the life of
    the split (scorers of equal splits share them) and on disk.

    Args:
        split: The validation preference split.
        device: Device of `base_ranker`; a score is computed on the device of its representation.
        cache_dir: Folder of the cache, or ``"off"``; None means ``$LIS_CACHE``,
            else ``~/.cache/lis-lightning``.

    Example:
        >>> import numpy as np
        >>> import polars as pl
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> scorer = Scorer(PreferenceSplit.from_log(log), cache_dir="off")
        >>> result = scorer.score(np.eye(4), ScoreOptions(ceilings=["pairs"], placebo=False))
        >>> result.ceilings["pairs"] is scorer.ceiling("pairs")
        True
    """

    def __init__(
        self, split: PreferenceSplit, device: torch.device | str = "cpu", cache_dir: str | Path | None = None
    ) -> None:
        self.split = split
        self.device = torch.device(device)
        self._cache = SplitCache(split, cache_dir)

    @property
    def base_ranker(self) -> Prepared:
        """The split as tensors, with the ranker that gains are measured against."""
        with score_settings(self.device):
            return prepare(self._cache, self.device)

    @property
    def smallest_detectable_gain(self) -> float:
        """The smallest AUC gain over the base ranker that a score detects with 80 % power (at 5 %, two-sided)."""
        with score_settings():
            return smallest_detectable_gain(self._cache)

    def score(self, embeddings: Any, options: ScoreOptions | None = None) -> LISResult:
        """Score item representations: their AUC gain (AIS), the ceilings of the preference data, and a verdict.

        Several labels and rolling windows are scored in one pass over the representation; see ``tasks`` and ``periods``
        of the result.

        Args:
            embeddings: Tensor or array [num_items, dim], rows in the order of ``split.item_ids``, any float type, on
                any device. float64 is used throughout for float64; else products are float32 and sums float64. A
                mapping of names to such: the first is scored, the others are readings (layers of one model).
            options: Ceilings, placebo and probe size; None takes the defaults.

        Returns:
            The result; AUC gains on w1, out of fold, and w2, with 95 % intervals clustered by user.

        Raises:
            ShapeError: If there is not one row an item.
            NonFiniteError: If a row holds NaN or infinity; the first five ids are named.
            ConfigError: If preference data does not fit the split.
        """
        first = next(iter(embeddings.values()), None) if isinstance(embeddings, Mapping) else embeddings
        with score_settings(getattr(first, "device", "cpu")):
            return score_representation(self._cache, embeddings, options or ScoreOptions())

    def ceiling(self, preference: Preference) -> Ceiling:
        """Return the ceiling of preference data (LIS); see :func:`lis_lightning.scoring.ceiling.ceiling_of`.

        Args:
            preference: Preference data.
        """
        with score_settings():
            return ceiling_of(self._cache, preference)

    def reference_vectors(self, preference: Preference) -> ItemVectors:
        """Return the vectors of preference data from all users, rows as ``split.item_ids``.

        Args:
            preference: Preference data.
        """
        with score_settings():
            return reference_vectors(self._cache, preference)

    def headroom(self, preference: Preference, arm: Arm) -> Gain:
        """Return the gain of leaking preference data to a ranker that has a representation already.

        Args:
            preference: Preference data.
            arm: The representation, scored on the same split.
        """
        with score_settings():
            return headroom_of(self._cache, preference, arm)

    def leak_arm(self, leak: CrossFittedVectors) -> Arm:
        """Score cross-fitted vectors of preference data as if they were a representation.

        Args:
            leak: The vectors.
        """
        with score_settings():
            return leak_arm(self._cache, leak)[0]

    def describe(self) -> dict[str, Any]:
        """Return sizes, rates, the base ranker's AUC and the smallest detectable gain, as plain values."""
        return describe(self._cache)

    def summary(self) -> str:
        """Return the description as text for a terminal."""
        return render(self._cache)


def score(
    split: PreferenceSplit,
    embeddings: Any,
    *,
    item_ids: ArrayLike | None = None,
    missing: Missing = "raise",
    cache_dir: str | Path | None = None,
    **options: Any,
) -> LISResult:
    """Score item representations on a split in one call; see :meth:`Scorer.score`.

    Args:
        split: The validation preference split.
        embeddings: [num_items, dim], rows in the order of ``split.item_ids``; or [num_rows, dim] with `item_ids`.
        item_ids: Ids of the rows, [num_rows], in any order, of the split's items and any others.
        missing: With `item_ids`, what to do about items of the split without a row: ``"raise"``, or ``"mean"`` to give
            them the mean of the others.
        cache_dir: See :class:`Scorer`.
        **options: Fields of :class:`ScoreOptions`.

    Example:
        >>> import numpy as np
        >>> import polars as pl
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> score(PreferenceSplit.from_log(log), np.ones((4, 2)), ceilings=(), cache_dir="off").ais
        0.0
    """
    if item_ids is not None:
        vectors = embeddings if isinstance(embeddings, torch.Tensor) else np.asarray(embeddings)
        embeddings = vectors_in_order(
            vectors, np.asarray(item_ids), split.item_ids, missing=missing, where="given item_ids"
        )
    elif missing != "raise":
        raise ConfigError("`missing` needs `item_ids`, the ids of the rows of the representations.")
    return Scorer(split, cache_dir=cache_dir).score(embeddings, ScoreOptions(**options))
