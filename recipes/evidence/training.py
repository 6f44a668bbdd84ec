"""A run of a recipe: snapshots of all items, and the losses at each of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from alignments import Recipe
from constructed import constructed
from numpy.typing import NDArray
from readers import READERS
from torch import Tensor
from typing_extensions import override
from worlds import Study, cache_dir

from lis_lightning.align.data import AlignmentEvents, ExampleDataModule
from lis_lightning.align.training import AlignmentModule


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
        snapshot = {
            "step": trainer.global_step,
            "embeddings": torch.cat(rows).numpy(),
            "val_loss": _loss(module, batches),
        }
        self.taken.append(snapshot | {"train_loss": float(np.mean(self.losses)) if self.losses else float("nan")})
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


def _constructed(world: Study, seed: int) -> list[dict[str, Any]]:
    """Return representations made by hand as if they were snapshots; none has a loss."""
    if world.truth is None or world.items.features is None:
        raise SystemExit("Representations can be made by hand only in a generated world.")
    cases = constructed(world.truth, world.items.features, seed)
    unknown = {"val_loss": float("nan"), "train_loss": float("nan")}
    return [
        {"step": number, "case": name, "embeddings": rows, **unknown}
        for number, (name, rows) in enumerate(cases.items())
    ]


def train(world: Study, recipe: Recipe, seed: int, steps: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Return the snapshots of one run; `embeddings` in the order of `world.items`."""
    content: NDArray[np.float32] | None = world.truth.content_latents if recipe.content and world.truth else None
    items = world.items if content is None else replace(world.items, features=content)
    reader = READERS[world.reader]
    if recipe.constructed:
        return _constructed(world, seed)
    steps = steps or reader.steps
    pl.seed_everything(seed, verbose=False)
    encoder, objectives = reader.make(items), recipe.objectives()
    events = AlignmentEvents.from_split(world.scored, items, seed=seed)
    if recipe.users < 1:
        keep = events.user < recipe.users * (events.user.max() + 1)
        events = replace(events, **{name: getattr(events, name)[keep] for name in ("user", "item", "label", "time")})
    examples = {name: one.examples(events, encoder.output_dim) for name, one in objectives.items()}
    prepared = encoder.prepare(items, cache_dir())
    batches = ExampleDataModule(examples, prepared, encoder.collate, batch_size=reader.batch, seed=seed)
    rate = recipe.speed * reader.rate
    module = AlignmentModule(encoder, objectives, learning_rate=rate)
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
