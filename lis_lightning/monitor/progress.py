"""Progress of a training: its planned optimizer steps and its mean training loss between snapshots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torch import Tensor


def planned_steps(trainer: pl.Trainer, *, batches: bool = False) -> int | None:
    """Return the optimizer steps that a fit will make by ``max_steps`` and ``max_epochs``; None if there is no plan.

    Args:
        trainer: The Trainer in charge.
        batches: Whether batches are counted in place of optimizer steps, which ``max_steps`` does not limit.
    """
    num_batches, max_steps = trainer.num_training_batches, -1 if batches else trainer.max_steps
    plans = [max_steps] if max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and math.isfinite(num_batches):
        per_epoch = math.ceil(num_batches / trainer.accumulate_grad_batches)
        plans.append(per_epoch * trainer.max_epochs)
    return min(plans, default=None)


class MeanLoss:
    """Mean of the training losses since the last reading, summed on their device so that no batch waits for it.

    Example:
        >>> import torch
        >>> loss = MeanLoss()
        >>> for value in (2.0, 4.0):
        ...     loss.add({"loss": torch.tensor(value)})
        >>> loss.read()
        3.0
    """

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0
        self._count = 0

    def add(self, outputs: Any) -> None:
        """Add the loss in what ``training_step`` returned; anything without a loss is passed over."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self._total = self._total + loss.detach().float().squeeze()
            self._count += 1

    def read(self) -> float:
        """Return the mean and start anew; NaN if there was no loss."""
        mean = float(self._total) / self._count if self._count else math.nan
        self._total, self._count = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, in plain values."""
        return {"total": float(self._total), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self._total, self._count = state["total"], state["count"]
