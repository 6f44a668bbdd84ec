"""Contrastive learning from the categories of a catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from lis_lightning.align.data.events import AlignmentEvents
from lis_lightning.align.data.examples import Examples, hold_out
from lis_lightning.align.data.hashing import mix_bits
from lis_lightning.align.objectives.objective import Objective, Temperature
from lis_lightning.errors import ConfigError
from lis_lightning.functional.contrastive import multi_positive_contrastive


class TaxonomyContrastive(Objective):
    """Supervised contrastive loss (Khosla et al. 2020): items of one category are positives of each other.

    It uses no events, only which items they withhold.

    Args:
        category: Name of a category of the items.
        temperature: Initial value; it is learned, and stays at 0.01 or above.
        **options: As of :class:`~lis_lightning.align.objectives.Objective`.

    Example:
        >>> objective = TaxonomyContrastive(category="genre", temperature=0.5)
        >>> objective.classes = torch.tensor([0, 0, 1, 1])
        >>> rows = torch.eye(4).repeat_interleave(2, dim=0)[:4]  # items of one class are alike
        >>> round(objective.loss(rows, {"rows": torch.arange(4)}).item(), 3)
        0.24
    """

    classes: Tensor

    def __init__(self, *, category: str, temperature: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.category = category
        self.temperature = Temperature(temperature)

    @override
    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        categories = events.items.categories
        if self.category not in categories:
            raise ConfigError(
                f"The items have no category {self.category!r}; they have {', '.join(categories) or 'none'}. Name "
                "columns of the item table with data.categories."
            )
        values = categories[self.category]
        names = sorted({value for value in values if value is not None})
        code = {name: index for index, name in enumerate(names)} | {None: -1}
        classes = np.array([code[value] for value in values], dtype=np.int64)
        usable = (classes >= 0) & ~np.isin(np.arange(classes.size), events.withheld)
        rows = np.flatnonzero(usable).astype(np.int64)
        self.register_buffer("classes", torch.from_numpy(classes), persistent=False)
        return Examples({"item": rows[:, None]}, hold_out(mix_bits(rows, events.seed), self.held_out))

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        return multi_positive_contrastive(rows, self.classes[batch["rows"]], self.temperature.value)
