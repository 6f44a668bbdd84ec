"""The first dimensions of a representation as a reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from lis_lightning.errors import ConfigError
from lis_lightning.results.reading import Reading
from lis_lightning.scoring.reads.read import Read, ScoredItems, check_whole

_USUAL = (64, 128, 256)


@dataclass(frozen=True)
class Prefixes(Read):
    """The first dimensions of a representation, as rankers cut those of Matryoshka training (Kusupati et al. 2022).

    Args:
        dims: Numbers of dimensions; those that are not fewer than the representation has are left out. The reading of
            64 is ``NAME_64``. None takes 64, 128 and 256, or of 64 dimensions or fewer a quarter and a half.

    Raises:
        ConfigError: If `dims` is empty or holds anything but numbers of at least 1; when scored, if none is left.

    Example:
        >>> Prefixes([64, 128]).dims
        (64, 128)
    """

    dims: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.dims is None:
            return
        if not isinstance(self.dims, Sequence) or not self.dims:
            raise ConfigError(f"Expected `dims` as a list of numbers of dimensions, got {self.dims!r}.")
        for dim in self.dims:
            check_whole("dims", dim, 1)
        object.__setattr__(self, "dims", tuple(self.dims))

    @override
    def readings(self, name: str, scored: ScoredItems) -> dict[str, Reading]:
        width = scored.vectors.shape[1]
        dims = self.dims
        if dims is None:
            dims = _USUAL if width > _USUAL[0] else sorted({max(1, width // 4), max(1, width // 2)})
        shorter = [dim for dim in dims if dim < width]
        if not shorter:
            raise ConfigError(
                f"The representation has {width} dimensions, none of {list(dims)} is fewer; give smaller ones, as in "
                f"reads={{{name!r}: lis_lightning.scoring.reads.Prefixes([{max(1, width // 2)}])}}, or leave this "
                "reading out."
            )
        return {f"{name}_{dim}": scored.reading(scored.arm_of(scored.vectors[:, :dim]), {}) for dim in shorter}
