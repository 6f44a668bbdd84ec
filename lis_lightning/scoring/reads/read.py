"""A reading of a representation, and the scored representation that it is a reading of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError
from lis_lightning.functional.intervals import fieller_ratio
from lis_lightning.functional.item_coordinates import ItemCoordinates, num_axes, principal_coordinates
from lis_lightning.results.reading import Reading
from lis_lightning.results.verdict import MIN_CEILING_Z
from lis_lightning.scoring.base_ranker import ItemLookup, Prepared, look_up_items, probe_inputs
from lis_lightning.scoring.cache import SplitCache
from lis_lightning.scoring.gain import Arm, evaluate


@dataclass(frozen=True, eq=False)
class ScoredItems:
    """A representation and its scores on a split, which readings are compared with.

    Attributes:
        cache: The split, with the cache of its base ranker.
        prepared: The split as tensors.
        items: The representation in its principal coordinates.
        lookup: The representation at the split's events.
        k: Largest number of principal axes that the probe reads.
        arm: The score of the vectors.
        geometry: The score of their cosines alone.
    """

    cache: SplitCache
    prepared: Prepared
    items: ItemCoordinates
    lookup: ItemLookup
    k: int
    arm: Arm
    geometry: Arm

    @property
    def split(self) -> PreferenceSplit:
        """The split."""
        return self.cache.split

    @property
    def vectors(self) -> Tensor:
        """The representation, [num_items, dim]."""
        return self.items.vectors

    def arm_of(self, vectors: Tensor, rates: Tensor | None = None) -> Arm:
        """Score other vectors of the same items.

        Args:
            vectors: [num_items, any dim].
            rates: Further columns of the probe, [E, r].
        """
        axes = min(vectors.shape[1], num_axes(self.split.num_items, self.k))
        lookup = look_up_items(self.prepared.histories, [principal_coordinates(vectors, k=axes)])
        return evaluate(self.split, self.prepared, probe_inputs(self.prepared, lookup, rates), self.prepared.logits)

    def reading(self, arm: Arm, facts: Mapping[str, float], codes: NDArray[np.int32] | None = None) -> Reading:
        """Return a reading with its share of the gain of the vectors, paired by user."""
        gain, whole = arm.gain, self.arm.gain
        estimate = gain.estimate
        retained = None
        if whole.value > 0 and whole.estimate.z > MIN_CEILING_Z:  # else the share is noise over noise
            retained = fieller_ratio(gain.value, gain.influence, whole.value, whole.influence)
        shares = {} if retained is None else {"retained": retained.value}
        if retained is not None:
            shares |= {"retained_low": retained.low, "retained_high": retained.high}
        return Reading(
            ais=estimate.value,
            ais_low=estimate.low,
            ais_high=estimate.high,
            **shares,
            facts=facts,
            influence=gain.influence,
            codes=np.zeros((0, 0), np.int32) if codes is None else codes,
        )


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise a ConfigError unless an option is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"Expected `{name}` of whole numbers of at least {least}, got {value!r}.")


class Read(ABC):
    """What a ranker reads of a representation.

    Example:
        >>> class Reversed(Read):  # the same dimensions in another order gain the same
        ...     def readings(self, name, scored):
        ...         return {name: scored.reading(scored.arm_of(scored.vectors.flip(1)), {})}
        >>> Reversed().readings.__name__
        'readings'
    """

    def check(self, split: PreferenceSplit) -> None:  # noqa: B027  # most kinds have nothing to check
        """Raise what is known to be wrong before any representation is there; most kinds fit any split.

        Args:
            split: The split to be scored on.
        """

    @abstractmethod
    def readings(self, name: str, scored: ScoredItems) -> dict[str, Reading]:
        """Score it.

        Args:
            name: Name under which it is logged.
            scored: The representation, with its scores.

        Returns:
            The readings by the names under which they are logged: most kinds have one.
        """
