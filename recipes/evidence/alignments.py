"""Alignment recipes, good and bad, with the truth that is built into some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lis_lightning.align.data import CoEngagement
from lis_lightning.align.objectives import (
    ClickRanking,
    Distillation,
    NextItemContrastive,
    Objective,
    PairAttraction,
    PairContrastive,
)


@dataclass(frozen=True)
class Recipe:
    """How to align, and what must come of it by construction.

    Attributes:
        objectives: Makes them, by name.
        truth: The bottleneck that was built in, as verdicts call it; "done" for what cannot get better, "" for none.
        speed: Times the learning rate of the encoder.
        users: Share of the users whose clicks it is aligned to.
        content: Whether the encoder is given what content reveals, instead of features that are hard to read.
        constructed: Whether nothing is trained: the snapshots are representations made by hand.
    """

    objectives: Callable[[], dict[str, Objective]]
    truth: str = ""
    speed: float = 1.0
    users: float = 1.0
    content: bool = False
    constructed: bool = False


def _pairs(**options: Any) -> Callable[[], dict[str, Objective]]:
    return lambda: {"pairs": PairContrastive(temperature=0.1, **options)}


CONSTRUCTED = "constructed"
STILL = 1e-28  # a speed that moves no bit of a float32 output
RECIPES = {
    "infonce": Recipe(_pairs()),
    "next_item": Recipe(lambda: {"next_item": NextItemContrastive()}),
    "distill": Recipe(lambda: {"distill": Distillation()}),
    "bpr": Recipe(lambda: {"bpr": ClickRanking()}),
    "too fast": Recipe(_pairs(), speed=10),
    "shuffled": Recipe(_pairs(pairs=CoEngagement(shuffled=True)), "data-bound"),
    "attraction": Recipe(lambda: {"attraction": PairAttraction()}, "collapsed"),
    "frozen": Recipe(_pairs(), "model-bound", speed=STILL),
    "perfect": Recipe(_pairs(), "done", speed=STILL, content=True),
    "few pairs": Recipe(_pairs(), "overfitting", speed=3, users=0.03),
    CONSTRUCTED: Recipe(_pairs(), constructed=True),
}
