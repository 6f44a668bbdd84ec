"""The training of a Lightning Trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from typing_extensions import override

from lis_lightning.monitor.clock import StepClock
from lis_lightning.monitor.training import Training, Value
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.tracking import loggers as tracking

# By name: the classes of `lightning.pytorch` and `pytorch_lightning` are different ones.
_SHARDING_STRATEGIES = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}


class LightningTraining(Training):
    """The training of a Trainer, as its strategy and precision plugin run it.

    Args:
        trainer: The Trainer in charge.
        clock: Counts the optimizer steps.
    """

    def __init__(self, trainer: pl.Trainer, clock: StepClock | None = None) -> None:
        self.trainer = trainer
        self.step = (clock or StepClock()).steps(trainer)
        self.epoch = trainer.current_epoch + trainer.is_last_batch
        self.device = trainer.strategy.root_device
        self.loggers = trainer.loggers

    @property
    @override
    def rank(self) -> int:
        return self.trainer.global_rank

    @property
    @override
    def world_size(self) -> int:
        return self.trainer.world_size

    @property
    @override
    def is_first(self) -> bool:
        return self.trainer.is_global_zero

    @property
    @override
    def share(self) -> dict[str, int]:
        # Processes that hold parts of one layer (tensor parallelism) share a rank: they encode the same items.
        sampler = getattr(self.trainer.strategy, "distributed_sampler_kwargs", None) or {}
        return {
            "rank": sampler.get("rank", self.trainer.global_rank),
            "world_size": sampler.get("num_replicas", self.trainer.world_size),
        }

    @property
    @override
    def loaders(self) -> list[Any]:
        # They may be given in lists and dicts.
        pending, loaders = [self.trainer.train_dataloader], []
        while pending:
            loader = pending.pop(0)
            if isinstance(loader, Mapping):
                pending += loader.values()
            elif isinstance(loader, list | tuple):
                pending += loader
            elif loader is not None:
                loaders.append(loader)
        return loaders

    @override
    def run_folder(self) -> Path:
        return tracking.run_folder(self.trainer)

    @override
    def any(self, flag: bool) -> bool:
        return self.trainer.strategy.reduce_boolean_decision(flag, all=False)

    @override
    def total(self, values: Tensor) -> Tensor:
        total: Tensor = self.trainer.strategy.reduce(values.to(self.device), reduce_op="sum")
        return total

    @override
    def broadcast(self, value: Value) -> Value:
        return self.trainer.strategy.broadcast(value)

    @override
    def moved(self, batch: Any) -> Any:
        return self.trainer.strategy.batch_to_device(self.trainer.precision_plugin.convert_input(batch))

    @override
    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        # In the validation stage, for hooks that read `trainer.training` and augment what is trained on.
        stage = self.trainer.state.stage
        self.trainer.validating = True
        try:
            with self.trainer.precision_plugin.forward_context():
                yield
        finally:
            self.trainer.state.stage = stage

    @override
    def shards(self, module: nn.Module) -> bool:
        strategy = {kind.__name__ for kind in type(self.trainer.strategy).__mro__}
        return super().shards(module) or (self.world_size > 1 and bool(strategy & _SHARDING_STRATEGIES))

    @override
    def publish(self, result: Snapshot, prefix: str) -> None:
        tracking.publish(self.trainer, result, prefix)
