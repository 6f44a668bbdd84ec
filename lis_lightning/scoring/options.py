"""Options of a score: ceilings, placebo and probe size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lis_lightning.errors import ConfigError
from lis_lightning.scoring.preferences.naming import Preference, by_name
from lis_lightning.scoring.preferences.preference_data import PreferenceData
from lis_lightning.scoring.reads.naming import Reads, reads_by_name
from lis_lightning.scoring.reads.read import Read


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options of a score, validated at construction.

    Attributes:
        ceilings: Preference data to compute ceilings for, once a split: built-in kinds, or a mapping of names to any
            preference data that :meth:`lis_lightning.scoring.Scorer.ceiling` takes.
        aligned_to: Name of the preference data that `realised` and `headroom` refer to.
        placebo: Whether to score a permutation of the rows and random vectors too.
        k: Largest number of principal axes of the representation that the probe reads; with fewer than ``10 * k``
            items, one axis for ten items, at least 16.
        reads: What else to score of the same items, as rankers read them: ``"codes"`` (semantic IDs), ``"cosine"``,
            ``"prefix"`` (the first 64, 128 and 256 dimensions), ``"search"`` (in long histories); or a mapping of names
            to these or to objects of :mod:`lis_lightning.scoring.reads`, such as a :class:`CodeTable` of your own.

    Raises:
        ConfigError: If `aligned_to` is not among `ceilings`, or a name or a kind is unknown.

    Example:
        >>> list(ScoreOptions(ceilings=["ids"], aligned_to="ids").preferences)
        ['ids']
    """

    ceilings: Sequence[str] | Mapping[str, Preference] = ("pairs", "ids")
    aligned_to: str = "pairs"
    placebo: bool = True
    k: int = 64
    reads: Reads = ()

    def __post_init__(self) -> None:
        if self.preferences and self.aligned_to not in self.preferences:
            raise ConfigError(
                f"Expected `aligned_to` among the ceilings {list(self.preferences)}, got {self.aligned_to!r}."
            )
        _ = self.readers

    @cached_property
    def readers(self) -> dict[str, Read]:
        """The readings by name."""
        return reads_by_name(self.reads)

    @cached_property
    def preferences(self) -> dict[str, PreferenceData]:
        """The preference data by name."""
        return by_name(self.ceilings)
