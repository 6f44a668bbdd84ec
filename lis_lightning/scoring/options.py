"""Options of a score: ceilings, placebo and probe size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lis_lightning.errors import ConfigError
from lis_lightning.scoring.preferences.naming import Preference, by_name
from lis_lightning.scoring.preferences.preference_data import PreferenceData


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

    def __post_init__(self) -> None:
        if self.preferences and self.aligned_to not in self.preferences:
            raise ConfigError(
                f"Expected `aligned_to` among the ceilings {list(self.preferences)}, got {self.aligned_to!r}."
            )

    @cached_property
    def preferences(self) -> dict[str, PreferenceData]:
        """The preference data by name."""
        return by_name(self.ceilings)
