"""The base class of objectives, and the learned temperature of contrastive ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lis_lightning.align.data.events import AlignmentEvents
from lis_lightning.align.data.examples import Examples
from lis_lightning.errors import ConfigError
from lis_lightning.scoring.preferences import Preference

LEAST_TEMPERATURE = 0.01  # CLIP (Radford et al. 2021, section 2.5): the scale is clipped at 100 against instability


class Objective(nn.Module):
    """A training objective of representations; subclasses define `examples` and `loss`.

    It is asked once for its examples, and at every step for the loss of a batch of them. Whatever it needs besides the
    encoder (a temperature, a projection, the vectors of a teacher) is part of this module, and is trained and
    checkpointed with it.

    Args:
        weight: Of its loss in the sum of all objectives, above 0.
        batch_size: Examples in a batch; None uses the batch size of the run.
        held_out: Share of its examples that is held out for the validation loss.

    Attributes:
        needs_reference: Whether it compares with the encoder as it was before the first step. Then the representations
            of all items at that time, [num_items, D], are stored in its buffer ``reference``.

    Raises:
        ConfigError: If a value is out of range.

    Example:
        >>> class ShortVectors(Objective):
        ...     def loss(self, rows, batch):
        ...         return rows.square().sum(dim=1).mean()
        >>> ShortVectors(weight=0.5).loss(torch.ones(4, 3), {})
        tensor(3.)
    """

    needs_reference = False

    def __init__(self, *, weight: float = 1.0, batch_size: int | None = None, held_out: float = 0.05) -> None:
        super().__init__()
        check_weight(self, weight)
        self.weight = weight
        self.batch_size = batch_size
        self.held_out = held_out

    @property
    def preference(self) -> Preference | None:
        """The preference data that it aligns to, whose ceiling it is compared with; None if there is none."""
        return None

    def examples(self, events: AlignmentEvents, dim: int) -> Examples:
        """Return the examples to train on.

        Args:
            events: The events of the alignment window.
            dim: Dimension of the representations.
        """
        raise NotImplementedError

    def loss(self, rows: Tensor, batch: dict[str, Any]) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            rows: Representations of the items of the batch, [U, D]; with nested dimensions, also their first
                dimensions alone.
            batch: As :class:`~lis_lightning.align.data.data_module.ExampleCollator` makes it.
        """
        raise NotImplementedError


class Temperature(nn.Module):
    """A learned temperature of at least 0.01.

    Args:
        start: Its initial value.

    Raises:
        ConfigError: If that is below 0.01.

    Example:
        >>> Temperature(0.07).value
        tensor(0.0700, grad_fn=<ExpBackward0>)
    """

    def __init__(self, start: float = 0.07) -> None:
        super().__init__()
        if not LEAST_TEMPERATURE <= start < math.inf:
            raise ConfigError(f"`temperature` must be {LEAST_TEMPERATURE} or more, but got {start}.")
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    @property
    def value(self) -> Tensor:
        """The temperature, a scalar; clamped here, so that its gradient is 0 below the bound."""
        return self.log.clamp(min=math.log(LEAST_TEMPERATURE)).exp()


def check_weight(module: nn.Module, weight: float) -> None:
    """Raise ConfigError unless the weight of an objective or regulariser is positive and finite."""
    if not 0.0 < weight < math.inf:
        raise ConfigError(f"`weight` of {type(module).__name__} must be above 0, but got {weight}.")
