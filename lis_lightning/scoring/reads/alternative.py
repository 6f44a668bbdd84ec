"""Another representation of the same items as a reading: a layer, a tower or a head of the same model."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor
from typing_extensions import override

from lis_lightning.results.reading import Reading
from lis_lightning.scoring.reads.read import Read, ScoredItems


@dataclass(frozen=True, eq=False)
class Alternative(Read):
    """Other vectors of the same items, encoded together with those that are scored.

    Args:
        vectors: [num_items, any dim], rows as those of the representation.

    Example:
        >>> import torch
        >>> Alternative(torch.eye(3)).vectors.shape
        torch.Size([3, 3])
    """

    vectors: Tensor = field(repr=False)

    @override
    def readings(self, name: str, scored: ScoredItems) -> dict[str, Reading]:
        return {name: scored.reading(scored.arm_of(self.vectors), {})}
