"""Cosines alone as a reading: what SimTier or the general search unit of SIM take from a representation."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from lis_lightning.results.reading import Reading
from lis_lightning.scoring.reads.read import Read, ScoredItems


@dataclass(frozen=True)
class Cosine(Read):
    """The cosines between the target and the history: rankers that read similarities and no vectors.

    This is ``ais_geometry`` with its interval and its share. SimTier (Sheng et al. 2024) and the search over long
    histories of SIM (Pi et al. 2020) read no more of a representation than this.

    Example:
        >>> Cosine()
        Cosine()
    """

    @override
    def readings(self, name: str, scored: ScoredItems) -> dict[str, Reading]:
        return {name: scored.reading(scored.geometry, {})}
