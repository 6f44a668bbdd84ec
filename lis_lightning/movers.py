"""Which items a fine-tuning has moved: those that gained most for the ranker, and those that lost most."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lis_lightning.functional.intervals import Estimate


@dataclass(frozen=True, kw_only=True)
class Mover:
    """One item, and what its events gain from the representation.

    Attributes:
        item_id: Its id.
        title: What it is called.
        image: Its image; None where it has none.
        gain: AUC gain at the last snapshot, with its interval.
        change: The same less that at the first snapshot.
    """

    item_id: Any
    title: str
    image: Path | None
    gain: Estimate
    change: Estimate
