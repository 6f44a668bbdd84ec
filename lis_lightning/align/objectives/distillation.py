"""Distillation of the item vectors of a teacher, such as the ID embeddings of a ranker."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from lis_lightning.align.data.events import AlignmentEvents
from lis_lightning.align.data.examples import Examples, hold_out
from lis_lightning.align.data.hashing import mix_bits
from lis_lightning.align.data.vector_files import read_vectors
from lis_lightning.align.objectives.objective import Objective, Temperature
from lis_lightning.errors import ConfigError
from lis_lightning.functional.alternating_least_squares import id_vectors
from lis_lightning.functional.distillation import contrastive_distillation, cosine_distillation, gram_distillation
from lis_lightning.scoring.preferences import Preference

Form = Literal["gram", "cosine", "contrastive"]


class Distillation(Objective):
    """Distils a teacher's item vectors into the representations.

    Args:
        teacher: ``"ids"``: ID embeddings learned from the alignment window by alternating least squares; or a file of
            vectors by item id, learned from nothing later than the window (see
            :func:`~lis_lightning.align.data.read_vectors`).
        form: ``"gram"`` reproduces the cosines between items, ``"cosine"`` the vectors after a learned projection, and
            ``"contrastive"`` identifies each item's vector among those of the batch.
        min_events: Least number of events of an item for its ID vector to be used.
        temperature: Initial value for the contrastive form; it is learned, and stays at 0.01 or above.
        **options: As of :class:`~lis_lightning.align.objectives.Objective`.

    Raises:
        ConfigError: If the form is unknown.

    Example:
        >>> Distillation(form="gram").preference
        'ids'
    """

    vectors: Tensor

    def __init__(
        self,
        *,
        teacher: str | Path = "ids",
        form: Form = "gram",
        min_events: int = 5,
        temperature: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if form not in get_args(Form):
            raise ConfigError(f"`form` must be one of {list(get_args(Form))}, but got {form!r}.")
        self.teacher = teacher
        self.form = form
        self.min_events = min_events
        self.temperature = Temperature(temperature) if form == "contrastive" else None
        self.projection: nn.Linear | None = None

    @property
    @override
    def preference(self) -> Preference | None:
        return "ids" if self.teacher == "ids" else None

    @override
    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        vectors, present = self._teacher_vectors(events)
        rows = np.flatnonzero(present & ~np.isin(np.arange(len(events.items)), events.withheld)).astype(np.int64)
        if not rows.size:
            raise ConfigError(f"No item has a teacher's vector: none has {self.min_events} events (`min_events`).")
        self.register_buffer("vectors", torch.from_numpy(vectors.astype(np.float32)), persistent=False)
        if self.form != "gram":
            self.projection = nn.Linear(dim, vectors.shape[1], bias=False)
        return Examples({"item": rows[:, None]}, hold_out(mix_bits(rows, events.seed), self.held_out))

    @override
    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        teacher = self.vectors[batch["rows"]]  # by item: one that was drawn twice occurs once
        if self.projection is None:
            return gram_distillation(rows, teacher)
        # Nested representations have fewer dimensions than the projection.
        student = nn.functional.linear(rows, self.projection.weight[:, : rows.shape[1]])
        if self.temperature is None:
            return cosine_distillation(student, teacher)
        return contrastive_distillation(student, teacher, self.temperature.value)

    def _teacher_vectors(self, events: AlignmentEvents) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the teacher's vectors, one for each row of the item table, and which items have one."""
        if self.teacher == "ids":
            labels = events.label.astype(np.float64)
            ids = id_vectors(events.user, events.item, labels, len(events.items))
            counts = np.bincount(events.item, minlength=len(events.items))
            return ids.vectors, ids.present & (counts >= self.min_events)
        vectors = read_vectors(self.teacher, events.items.ids).astype(np.float64)
        return vectors, (vectors != 0).any(axis=1)
