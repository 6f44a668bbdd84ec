"""The first dimensions of a representation as a reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from lis_lightning.errors import ConfigError
from lis_lightning.results.reading import Reading
from lis_lightning.scoring.reads.read import Read, ScoredItems


@dataclass(frozen=True)
class Prefixes(Read):
    """The first dimensions of a representation, as rankers cut those of Matryoshka training (Kusupati et al. 2022).

    Args:
        dims: Numbers of dimensions; those that are not fewer than the representation has are left out. The reading of
            64 is ``NAME_64``.

    Raises:
        ConfigError: If `dims` is empty or holds a number below 1.

    Example:
        >>> Prefixes([64, 128]).dims
        (64, 128)
    """

    dims: Sequence[int] = (64, 128, 256)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", tuple(self.dims))
        if not self.dims or not all(isinstance(dim, int) and dim > 0 for dim in self.dims):
            raise ConfigError(f"Expected `dims` as numbers of dimensions of at least 1, got {list(self.dims)}.")

    @override
    def readings(self, name: str, scored: ScoredItems) -> dict[str, Reading]:
        width = scored.vectors.shape[1]
        shorter = [dim for dim in self.dims if dim < width]
        if not shorter:
            raise ConfigError(
                f"The representation has {width} dimensions, none of {list(self.dims)} is fewer; give "
                f'reads={{"{name}": Prefixes([...])}} smaller ones, or leave this reading out.'
            )
        return {f"{name}_{dim}": scored.reading(scored.arm_of(scored.vectors[:, :dim]), {}) for dim in shorter}
