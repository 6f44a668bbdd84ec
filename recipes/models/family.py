"""A tiny model of a family, and how runs are made with it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from references import Reference
from torch import Tensor, nn

from lis_lightning import PreferenceSplit
from lis_lightning.align.data import AlignmentData, ItemTable
from lis_lightning.align.models import PretrainedEncoder, Tuning
from lis_lightning.align.objectives import PairContrastive
from lis_lightning.align.training import Monitoring, Run, align
from lis_lightning.monitor import load_embeddings

STEPS, ITEMS = 6, 8


@dataclass
class Family:
    """A tiny model of a family on disk, and the items that it encodes."""

    kind: type[PretrainedEncoder]
    model: Path
    data: AlignmentData
    scratch: Path
    cache: Path
    reference: Reference

    def encoder(self, items: ItemTable, **options: Any) -> PretrainedEncoder:
        """Return a new encoder with the model of the family."""
        pl.seed_everything(0, verbose=False)
        return self.kind.from_items(items, cache_dir=self.cache, model=self.model, **{"output_dim": 16, **options})

    def rows(self, encoder: PretrainedEncoder, items: ItemTable) -> list[dict[str, Any]]:
        """Return the inputs of each item."""
        prepared = encoder.prepare(items, self.cache)
        return [prepared[row] for row in range(len(items))]

    @property
    def items(self) -> ItemTable:
        """The first items, for checks without a run."""
        return self.data.items.select(self.data.items.ids[:ITEMS])

    @cached_property
    def split(self) -> PreferenceSplit:
        """The split that runs are scored on."""
        return PreferenceSplit.from_log(self.data.log, **self.data.columns)

    @cached_property
    def tuning(self) -> Tuning:
        """LoRA, or all weights of a model that has no layers for it."""
        try:
            self.encoder(self.items, tuning=Tuning("lora"))
        except ValueError:
            return Tuning()
        return Tuning("lora")

    @cached_property
    def whole_run(self) -> tuple[Run, pl.Trainer]:
        """A run in one go, and its Trainer."""
        return self.train("whole")

    def train(self, name: str, **options: Any) -> tuple[Run, pl.Trainer]:
        """Fine-tune for a few steps with snapshots, as `lis-align` does."""
        trainers: list[pl.Trainer] = []

        def trainer(**parts: Any) -> pl.Trainer:
            quiet = {"enable_progress_bar": False, "enable_model_summary": False}
            trainers.append(pl.Trainer(max_steps=STEPS, max_epochs=-1, accelerator="cpu", **quiet, **parts))
            return trainers[-1]

        encoder = partial(self.encoder, tuning=self.tuning)
        with contextlib.redirect_stdout(io.StringIO()):
            run = align(
                self.data, encoder, trainer=trainer, loggers=list, objectives={"pairs": PairContrastive()},
                regularisers={}, training={"batch_size": 16, "learning_rate": 1e-3}, split_options={},
                monitoring=Monitoring(every_n_steps=STEPS // 2, save="all"), run_dir=self.scratch / name,
                cache_dir=self.cache, seed=0, **options,
            )  # fmt: skip
        return run, trainers[-1]

    def saved(self, name: str) -> Tensor:
        """Return the vectors that a run saved at its last step."""
        (path,) = (self.scratch / name).rglob(f"step-*{STEPS}.safetensors")
        return load_embeddings(path, self.split)


def two_steps(encoder: nn.Module, batch: dict[str, Any]) -> str:
    """Return what goes wrong in two steps of DDP, as text.

    An error that is raised would keep the wrapper longer than its process group, whose end then may wait forever.
    """
    parallel = nn.parallel.DistributedDataParallel(encoder)
    try:
        for _ in range(2):
            parallel(batch).pow(3).mean().backward()
    except RuntimeError as error:
        return str(error)
    return ""


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Make this process a group of its own."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
