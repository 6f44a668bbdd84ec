"""Alignment recipes, good and bad, and a run of one: snapshots of all items, and the losses at each of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override
from worlds import Study

from lis_lightning.align.events import AlignmentEvents
from lis_lightning.align.examples import ExampleDataModule
from lis_lightning.align.models.features import FeatureEncoder
from lis_lightning.align.module import AlignmentModule
from lis_lightning.align.objectives.base import Objective, Regulariser
from lis_lightning.align.objectives.histories import ClickRanking, NextItemContrastive
from lis_lightning.align.objectives.pairs import CoEngagement, PairAttraction, PairContrastive
from lis_lightning.align.objectives.spread import VarianceCovariance
from lis_lightning.align.objectives.teachers import Distillation

RATE, BATCH, DIM = 1e-2, 64, 32
STEPS = (0, 5, 10, 20, 40, 80, 140, 200)


@dataclass(frozen=True)
class Recipe:
    """How to align, and what must come of it by construction.

    Attributes:
        objectives: Makes them, by name.
        truth: The bottleneck that was built in, as verdicts call it; "" for none.
        regularisers: Makes them, by name.
        rate: The highest learning rate.
        content: Whether the encoder is given what content reveals, instead of features that are hard to read.
    """

    objectives: Callable[[], dict[str, Objective]]
    truth: str = ""
    regularisers: Callable[[], dict[str, Regulariser]] = dict
    rate: float = RATE
    content: bool = False


def _pairs(**options: Any) -> Callable[[], dict[str, Objective]]:
    return lambda: {"pairs": PairContrastive(temperature=0.1, **options)}


RECIPES = {
    "infonce": Recipe(_pairs()),
    "next_item": Recipe(lambda: {"next_item": NextItemContrastive()}),
    "distill": Recipe(lambda: {"distill": Distillation()}),
    "bpr": Recipe(lambda: {"bpr": ClickRanking()}),
    "mixed": Recipe(
        lambda: {**_pairs()(), "distill": Distillation(weight=2.0)},
        regularisers=lambda: {"variance": VarianceCovariance(weight=0.1)},
    ),
    "too fast": Recipe(_pairs(), rate=10 * RATE),
    "shuffled": Recipe(_pairs(pairs=CoEngagement(shuffled=True)), "data-bound"),
    "attraction": Recipe(lambda: {"attraction": PairAttraction()}, "collapsed"),
    "frozen": Recipe(_pairs(), "model-bound", rate=1e-12),  # below what moves a float32 weight
    "perfect": Recipe(_pairs(), "at-ceiling", rate=1e-12, content=True),
    "hard_negatives": Recipe(_pairs(hard_negatives=2)),
}


@dataclass
class Snapshots(pl.Callback):
    """Keeps the representations of all items, and the losses, at chosen optimizer steps.

    Attributes:
        steps: When.
        taken: One dict a snapshot: step, embeddings, val_loss and train_loss (the mean since the snapshot before).
    """

    steps: Sequence[int]
    taken: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.take(trainer, pl_module)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        if trainer.global_step in self.steps:
            self.take(trainer, pl_module)

    @torch.no_grad()
    def take(self, trainer: pl.Trainer, module: Any) -> None:
        """Keep what the module makes of the items now."""
        batches: Any = trainer.datamodule  # type: ignore[attr-defined]
        rows = [module.encode_items(batch) for batch in module.encoder.loader(batches.items, batch_size=4096)]
        found = {"step": trainer.global_step, "embeddings": torch.cat(rows).numpy(), "val_loss": _loss(module, batches)}
        self.taken.append(found | {"train_loss": float(np.mean(self.losses)) if self.losses else float("nan")})
        self.losses.clear()


def _loss(module: Any, batches: ExampleDataModule) -> float:
    """Return the loss of the held-out examples, the weighted sum of the objectives."""
    total = 0.0
    for name, objective in module.objectives.items():
        losses: list[Tensor] = []
        for parts, _, _ in batches.val_dataloader():
            if (batch := parts[name]) is not None:
                losses.append(objective.loss(module.encode_items(batch["items"]), batch))
        total += objective.weight * float(torch.stack(losses).mean())
    return total


def train(world: Study, recipe: Recipe, seed: int, steps: Sequence[int] = STEPS) -> list[dict[str, Any]]:
    """Return the snapshots of one run; `embeddings` in the order of `world.items`."""
    content: NDArray[np.float32] | None = world.content if recipe.content else None
    items = world.items if content is None else replace(world.items, features=content)
    pl.seed_everything(seed, verbose=False)
    encoder = FeatureEncoder.from_items(items, output_dim=DIM, hidden_dim=128)
    objectives = recipe.objectives()
    events = AlignmentEvents.from_split(world.scored, items, seed=seed)
    examples = {name: one.examples(events, encoder.output_dim) for name, one in objectives.items()}
    batches = ExampleDataModule(examples, encoder.prepare(items, ""), encoder.collate, batch_size=BATCH, seed=seed)
    module = AlignmentModule(encoder, objectives, regularisers=recipe.regularisers(), learning_rate=recipe.rate)
    snapshots = Snapshots(steps)
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_steps=steps[-1], max_epochs=-1, callbacks=[snapshots], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, accelerator="cpu",
        )  # fmt: skip
        trainer.fit(module, datamodule=batches)
    return snapshots.taken
