"""A monitor for a training loop that the user writes, with or without Accelerate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from typing_extensions import override

from lis_lightning.errors import ConfigError
from lis_lightning.monitor.engine import SnapshotEngine
from lis_lightning.monitor.training import Training
from lis_lightning.results.verdict import Judgement


class LISLoopMonitor(SnapshotEngine):
    """Score the item representations of a module in a plain training loop, without disturbing the training.

    It takes, scores and records the same snapshots as :class:`LISMonitor`, and has the same arguments::

        monitor = LISLoopMonitor(split, items, every_n_steps=200, dirpath="runs/first")
        with monitor.watching(model, max_steps=10_000):  # the raw snapshot
            for step, batch in enumerate(loader, start=1):
                ...  # forward, backward, optimizer.step()
                if monitor.step(model, step, loss=loss):  # True once the stop rule says so
                    break

    With several processes of ``torch.distributed`` (``torchrun``, ``accelerate launch``) every process calls it. A
    model wrapped for data parallelism is unwrapped. The items are encoded under the autocast that is active at the
    call. Accelerate saves and restores the run's curve after ``accelerator.register_for_checkpointing(monitor)``;
    call ``accelerator.load_state`` before :meth:`watching`.

    Args: those of :class:`LISMonitor`. `dirpath` is the working directory by default. ``EveryValidation`` is never due.

    Attributes:
        reason: Why the stop rule says to stop, in a sentence; empty if it does not.

    Raises:
        ConfigError: As :class:`LISMonitor`.

    Example:
        >>> import polars, tempfile, torch
        >>> from lis_lightning.data import PreferenceSplit
        >>> log = polars.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                         "timestamp": range(40), "label": [0, 1, 1, 0, 1] * 8})
        >>> items = [{"item_id": item, "x": torch.tensor([item, 1.0])} for item in range(4)]
        >>> model = torch.nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     monitor = LISLoopMonitor(PreferenceSplit.from_log(log), items, every_n_steps=2, dirpath=folder,
        ...                              encode=lambda model, batch: model(batch["x"]), ceilings=(), cache_dir="off",
        ...                              progress=False)
        ...     with monitor.watching(model):
        ...         for step in range(1, 6):
        ...             loss = model(torch.ones(1, 2)).square().mean()
        ...             loss.backward()
        ...             optimizer.step()
        ...             stop = monitor.step(model, step, loss=loss)
        >>> [result.step for result in monitor.results]
        [0, 2, 4, 5]
    """

    @override
    def _connect(self) -> None:
        self.reason = ""
        self._loggers: Sequence[Any] = ()
        self._at: tuple[int, int] = (0, 0)
        self._started = False

    def watching(
        self,
        model: nn.Module,
        *,
        step: int = 0,
        epoch: int = 0,
        max_steps: int | None = None,
        loggers: Sequence[Any] = (),
    ) -> contextlib.AbstractContextManager[Self]:
        """Return a context for the loop: the raw snapshot is taken here, the last one at its end.

        An exception in the context is written to the record and leaves it.

        Args:
            model: The module in training.
            step: Optimizer steps taken before, in a run that is resumed.
            epoch: Epochs completed before.
            max_steps: Optimizer steps that are planned, for the verdict; None if there is no plan.
            loggers: Lightning loggers, which need no Trainer: ``WandbLogger()``, ``TensorBoardLogger("runs")``.

        Raises:
            ConfigError: If the model cannot encode the items.
            SnapshotError: If ``items.item_ids`` lacks items of the split.
        """
        if step == 0:
            self._reset()
        self.reason = ""
        self._loggers = loggers
        training = self._training(model, step, epoch)
        self._prepare(training)
        self._bind(_unwrapped(model))
        self._begin(training, _unwrapped(model), max_steps)
        self._started = True
        return self._until_the_end(model)

    @contextlib.contextmanager
    def _until_the_end(self, model: nn.Module) -> Iterator[Self]:
        try:
            yield self
        except BaseException as error:
            self._interrupt(self._training(model, *self._at), error)
            raise
        else:
            self._finish(self._training(model, *self._at), _unwrapped(model))
        finally:
            self._started = False
            self._scheduler.stop()

    def step(
        self, model: nn.Module, step: int, *, epoch: int = 0, loss: Any = None, metrics: Mapping[str, Any] | None = None
    ) -> bool:
        """Take a snapshot if one is due; call it after each optimizer step, on every process.

        Args:
            model: The module in training.
            step: Optimizer steps taken so far.
            epoch: Epochs completed so far, for ``EveryEpochs``.
            loss: Training loss of the step, a tensor or None, for the verdict ``overfitting``.
            metrics: Values that were measured at this step, by key, for `watch`; None if there are none.

        Returns:
            Whether the stop rule says to stop, on every process alike.

        Raises:
            ConfigError: If it is called outside of :meth:`watching`.
        """
        if not self._started:
            raise ConfigError(
                "`LISLoopMonitor.step` was called outside of `watching`, which takes the raw snapshot: put the loop "
                "into `with monitor.watching(model):`."
            )
        self._train_loss.add(loss)
        training = self._training(model, step, epoch)
        self._note_metrics(training, metrics or {})
        self._look(training, _unwrapped(model))
        return bool(self.reason)

    def _training(self, model: nn.Module, step: int, epoch: int) -> Training:
        """Return the training as it stands."""
        self._at = (step, epoch)
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        return Training(step, epoch, device=device, folder=Path(), loggers=self._loggers)

    @override
    def _heed(self, training: Training, judgement: Judgement) -> bool:
        stop = training.any(judgement.stop)
        self.reason = judgement.reason if stop else ""
        return stop


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside a wrapper for data parallelism, whose own forward would be a collective operation."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    inner: nn.Module = model.module if isinstance(model, wrappers) else model
    return inner
