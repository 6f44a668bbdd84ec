"""Objectives on what a catalogue says of its items."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from lis_lightning.align.data.events import AlignmentEvents
from lis_lightning.align.data.examples import Examples, hold_out
from lis_lightning.align.data.pairs import mixed
from lis_lightning.align.objectives.base import Objective, Temperature
from lis_lightning.errors import ConfigError
from lis_lightning.functional.contrastive import multi_positive_contrastive


class TaxonomyContrastive(Objective):
    """Supervised contrastive: items of one category are positives of each other. It needs no events.

    Args:
        category: Name of the category, of those that the data has.
        temperature: At the start. It is learned, and never falls below 0.01.
        **options: As of :class:`~lis_lightning.align.objectives.base.Objective`.
    """

    classes: Tensor

    def __init__(self, *, category: str, temperature: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.category = category
        self.temperature = Temperature(temperature)

    @override
    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        known = events.items.categories
        if self.category not in known:
            raise ConfigError(
                f"The items have no category {self.category!r}; they have {', '.join(known) or 'none'}. Name columns "
                "of the item table with data.categories."
            )
        values = known[self.category]
        names = sorted({value for value in values if value is not None})
        code = {name: index for index, name in enumerate(names)} | {None: -1}
        classes = np.array([code[value] for value in values], dtype=np.int64)
        rows = np.flatnonzero((classes >= 0) & ~np.isin(np.arange(classes.size), events.withheld)).astype(np.int64)
        self.register_buffer("classes", torch.from_numpy(classes), persistent=False)
        return Examples({"item": rows[:, None]}, hold_out(mixed(rows, events.seed), self.held_out))

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        return multi_positive_contrastive(rows, self.classes[batch["rows"]], self.temperature.value)
