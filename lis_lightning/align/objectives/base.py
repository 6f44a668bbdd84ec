"""What every objective is, and the temperature that contrastive ones learn."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lis_lightning.align.data.events import AlignmentEvents
from lis_lightning.align.data.examples import Examples
from lis_lightning.errors import ConfigError
from lis_lightning.scoring.preference import Preference

LEAST_TEMPERATURE = 0.01  # CLIP (Radford et al. 2021, section 2.5): the scale is clipped at 100 against instability


class Objective(nn.Module):
    """Something a representation is trained for.

    It is asked once for its examples, and at every step for the loss of a batch of them. What it needs beyond the
    encoder (a temperature, a projection, a teacher's vectors) it holds, and is trained and checkpointed with it.

    Args:
        weight: Of its loss in the sum.
        batch_size: Examples a batch; None takes that of the run.
        held_out: Share of its examples that is kept for the validation loss.

    Attributes:
        needs_reference: Whether it compares with the encoder as it was before the first step; its representations of
            all items, [num_items, D], are then put into its buffer ``reference``.

    Raises:
        ConfigError: If a value is out of range.
    """

    needs_reference = False

    def __init__(self, *, weight: float = 1.0, batch_size: int | None = None, held_out: float = 0.05) -> None:
        super().__init__()
        if not 0.0 < weight < math.inf:
            raise ConfigError(f"`weight` of {type(self).__name__} must be above 0, but got {weight}.")
        self.weight = weight
        self.batch_size = batch_size
        self.held_out = held_out

    @property
    def preference(self) -> Preference | None:
        """The preference data that it aligns to, whose ceiling is its own; None where nothing built in says it."""
        return None

    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        """Return what to train on, from the events of the alignment window.

        Args:
            events: All that alignment may see.
            dim: Dimensions of the representations.
        """
        raise NotImplementedError

    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            rows: Representations of the items of the batch, [U, D]; also the first dimensions of them alone.
            batch: As of :class:`~lis_lightning.align.data.examples.ExampleCollator`.
        """
        raise NotImplementedError


class Regulariser(nn.Module):
    """What keeps the representations of a batch apart, whatever they are trained for.

    Args:
        weight: Of its loss in the sum.

    Raises:
        ConfigError: If it is not above 0.
    """

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        if not 0.0 < weight < math.inf:
            raise ConfigError(f"`weight` of {type(self).__name__} must be above 0, but got {weight}.")
        self.weight = weight

    def loss(self, rows: Tensor) -> Tensor:
        """Return the loss of representations [U, D], a scalar."""
        raise NotImplementedError


class Temperature(nn.Module):
    """A temperature that is learned, and never falls below 0.01.

    Args:
        start: Its value at the start.

    Raises:
        ConfigError: If that is below 0.01.
    """

    def __init__(self, start: float = 0.07) -> None:
        super().__init__()
        if not LEAST_TEMPERATURE <= start < math.inf:
            raise ConfigError(f"`temperature` must be {LEAST_TEMPERATURE} or more, but got {start}.")
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    @property
    def value(self) -> Tensor:
        """A scalar; bounded here, so that its gradient ends where the bound begins."""
        return self.log.clamp(min=math.log(LEAST_TEMPERATURE)).exp()
