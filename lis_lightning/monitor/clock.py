"""Count of the optimizer steps of a training, also where Lightning does not see them.

``trainer.global_step`` counts the steps of Lightning's own optimizers. It stays 0 under manual optimisation if the
optimizer was made in the module, or taken by ``self.optimizers(use_pl_optimizer=False)``. Batches are counted then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lis_lightning.errors import LisWarning

# Batches without a step, if no weight is seen to change: some optimizers write to `.data`.
PATIENCE = 100


class StepClock:
    """The clock of a run: optimizer steps, or batches if the weights change while ``global_step`` does not.

    Attributes:
        counts_batches: Whether batches are counted; once they are, for the rest of the run.
    """

    def __init__(self) -> None:
        self.counts_batches = False
        self._versions = 0

    def steps(self, trainer: pl.Trainer) -> int:
        """Return the optimizer steps taken, or the number of batches."""
        return _num_batches(trainer) if self.counts_batches else trainer.global_step

    def start(self, module: pl.LightningModule) -> None:
        """Start to watch the weights, which no step has changed yet."""
        self._versions = _versions(module)

    def tick(self, trainer: pl.Trainer, module: pl.LightningModule, *, ended: bool = False) -> bool:
        """Look at the clock after a batch; return whether batches are counted from now on.

        Args:
            trainer: The Trainer in charge.
            module: The module in training.
            ended: Whether the training has ended.
        """
        if self.counts_batches or module.automatic_optimization or trainer.global_step or not _num_batches(trainer):
            return False
        if not ended and _num_batches(trainer) < PATIENCE and _versions(module) == self._versions:
            return False  # gradients are accumulated, or the optimizer steps after the callbacks
        self.counts_batches = True
        rank_zero_warn(
            "LISMonitor: the module trains and `trainer.global_step` stays 0, as under manual optimisation with an "
            "optimizer that is not Lightning's. Batches are counted instead of optimizer steps, in schedules and "
            "curves too.",
            category=LisWarning,
        )
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint; the number of batches is in Lightning's own."""
        return {"counts_batches": self.counts_batches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.counts_batches = state["counts_batches"]


def _num_batches(trainer: pl.Trainer) -> int:
    """Return the number of batches trained on in all epochs, including those before a resume."""
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1


def _versions(module: pl.LightningModule) -> int:
    """Return how often the weights were written to in place, as autograd counts it."""
    return sum(parameter._version for parameter in module.parameters() if parameter.requires_grad)
