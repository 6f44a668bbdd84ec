"""The training of a transformers Trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import TrainerState, TrainingArguments
from typing_extensions import override

from lis_lightning.hf.metrics import evaluation_metrics
from lis_lightning.monitor.training import Training
from lis_lightning.results.snapshot import Snapshot


class TrainerTraining(Training):
    """The training of a Trainer, as its arguments and its state describe it.

    Args:
        arguments: Arguments of the Trainer.
        state: Its state.
        loader: The loader that it trains on.
        log: Logs values by key.
        log_more: Whether to log the keys ``more_...`` too.
    """

    def __init__(
        self, arguments: TrainingArguments, state: TrainerState, loader: Any, log: Callable[[dict[str, float]], None],
        *, log_more: bool = False,
    ) -> None:  # fmt: skip
        epoch = int(float(state.epoch or 0) + 1e-6)  # a fraction, computed by division
        super().__init__(state.global_step, epoch, device=arguments.device, folder=arguments.output_dir or ".")
        self.arguments = arguments
        self.state = state
        self._loader = loader
        self._log = log
        self._log_more = log_more

    @property
    @override
    def loaders(self) -> list[Any]:
        return [] if self._loader is None else [self._loader]

    @override
    def computing(self) -> contextlib.AbstractContextManager[Any]:
        # Accelerate opens autocast in the forward of the whole model; an encode may call a part of it.
        if not (self.arguments.bf16 or self.arguments.fp16):
            return contextlib.nullcontext()
        precision = torch.bfloat16 if self.arguments.bf16 else torch.float16
        return torch.autocast(self.device.type, precision)

    @override
    def run_name(self) -> str:
        return self.arguments.run_name or ""

    @override
    def shards(self, module: nn.Module) -> bool:
        sharded = bool(self.arguments.deepspeed) or any(
            isinstance(child, FullyShardedDataParallel) for child in module.modules()
        )
        return super().shards(module) or (self.world_size > 1 and sharded)

    @override
    def publish(self, result: Snapshot, prefix: str) -> None:
        values = evaluation_metrics(result, prefix, more=self._log_more)
        step = f"eval_{prefix.replace('/', '_')}_step"
        # A resumed run has its log from the checkpoint.
        if all(entry.get(step) != result.step for entry in self.state.log_history):
            self._log(values)
