"""The training that a monitor watches: its processes, device, precision and loggers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from lis_lightning.monitor import sharding
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.tracking import loggers as tracking

Value = TypeVar("Value")


class Training:
    """A training loop in one process, or in the processes of ``torch.distributed``.

    It is described anew at each step. A subclass describes the training of a Trainer.

    Args:
        step: Optimizer steps taken.
        epoch: Epochs completed.
        device: Device that the module computes on.
        folder: Folder of the run.
        loggers: Lightning loggers.

    Example:
        >>> training = Training(step=200)
        >>> training.is_first, training.any(True), training.broadcast("best")
        (True, True, 'best')
    """

    def __init__(
        self,
        step: int,
        epoch: int = 0,
        *,
        device: torch.device | str = "cpu",
        folder: str | Path = ".",
        loggers: Sequence[Any] = (),
    ) -> None:
        self.step = step
        self.epoch = epoch
        self.device = torch.device(device)
        self.loggers = loggers
        self._folder = Path(folder)

    @property
    def rank(self) -> int:
        """Number of this process."""
        return torch.distributed.get_rank() if _distributed() else 0

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return torch.distributed.get_world_size() if _distributed() else 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and logs."""
        return self.rank == 0

    @property
    def share(self) -> dict[str, int]:
        """The `rank` and `world_size` among the processes that see different data."""
        return {"rank": self.rank, "world_size": self.world_size}

    @property
    def loaders(self) -> list[Any]:
        """The loaders of the training data, as far as they are known."""
        return []

    def run_folder(self) -> Path:
        """Return the folder of the run."""
        return self._folder

    def run_name(self) -> str:
        """Return the name of the run in its trackers, on the first process; empty if it has none."""
        return tracking.run_name(self.loggers)

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set on any process."""
        return bool(self.total(torch.tensor(float(flag))))

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        values = values.to(self.device)
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def broadcast(self, value: Value) -> Value:
        """Return the first process's value on every process."""
        values: list[Any] = [value]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(values, device=self.device)
        return cast("Value", values[0])

    def moved(self, batch: Any) -> Any:
        """Return an item batch on the device of the module; values that cannot be moved stay."""
        if isinstance(batch, dict):
            return {name: self.moved(value) for name, value in batch.items()}
        return batch.to(self.device) if hasattr(batch, "to") else batch

    def computing(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which a module computes as in the training; here the precision stays as it is."""
        return contextlib.nullcontext()

    def shards(self, module: nn.Module) -> bool:
        """Return whether a forward of the module is a collective operation of all processes."""
        return self.world_size > 1 and bool(sharding.fsdp_modules(module))

    def publish(self, result: Snapshot, prefix: str) -> None:
        """Hand a result to what reads metrics during the training; here nothing does.

        Args:
            result: The newest result.
            prefix: Start of its keys.
        """


def _distributed() -> bool:
    """Return whether this process belongs to a group."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()
