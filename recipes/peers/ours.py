"""LISMonitor and LISEarlyStopping, asked what compare.py asks."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from compare import ending, same_bits, serve
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from typing_extensions import override

from lis_lightning import LISEarlyStopping, LISMonitor, PreferenceSplit
from lis_lightning.align.world import simulate_world
from lis_lightning.results import StopRule

NUM = 31
LOG, TRUTH = simulate_world(num_users=40, num_items=NUM, num_events=1200)
SPLIT = PreferenceSplit.from_log(LOG, label="clicked")
CONTENTS = torch.as_tensor(TRUTH["content_latents"], dtype=torch.float32)
DIM = CONTENTS.shape[1]


class Items(Dataset):
    """The contents of a generated world."""

    item_ids = range(1, NUM + 1)

    def __len__(self) -> int:
        return NUM

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"item_id": row + 1, "x": CONTENTS[row]}


class Tower(pl.LightningModule):
    """A linear map that stays as it is, so that one number is right; or a net that learns, with dropout."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        net = nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, DIM))
        self.frozen, self.backbone = frozen, nn.Linear(DIM, DIM) if frozen else net

    def encode_items(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return what the monitor scores."""
        encoded: torch.Tensor = self.backbone(batch["x"])
        return encoded

    @override
    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        return nn.functional.mse_loss(self.backbone(batch["x"]), batch["x"])

    @override
    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.backbone(batch["x"])

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.frozen:
            return torch.optim.SGD(self.parameters(), lr=0.0)
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def monitor_of(folder: Path, **options: Any) -> LISMonitor:
    return LISMonitor(SPLIT, Items(), **{"every_n_steps": 4, "dirpath": folder, "progress": False} | options)


def fit(
    module: Tower, *callbacks: Any, epochs: int = 2, devices: int = 1, shards: bool = False, **options: Any
) -> pl.Trainer:
    def loader(shuffle: bool) -> Any:
        rank = int(os.environ.get("LOCAL_RANK", 0))
        data = Subset(Items(), range(rank, NUM, devices)) if shards else Items()
        return DataLoader(data, batch_size=4, shuffle=shuffle)

    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", devices=devices, logger=False,
        strategy="ddp" if devices > 1 else "auto", use_distributed_sampler=not shards, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader(True), loader(False), **options)
    return trainer


def measured(folder: Path, *, devices: int, shards: bool = False) -> dict[str, Any]:
    pl.seed_everything(0, verbose=False)
    monitor = monitor_of(folder)
    trainer = fit(Tower(frozen=True), monitor, devices=devices, shards=shards)
    return {"value": float(trainer.callback_metrics["lis/ais"]), "error": monitor.last_error}


def stop(folder: Path) -> dict[str, Any]:
    """A gain that nobody can reach: each snapshot but the raw one is flat."""
    pl.seed_everything(0, verbose=False)
    rule = StopRule(min_gain=1.0, min_progress=0)
    monitor = monitor_of(folder, rule=rule)
    return {"step": fit(Tower(frozen=True), monitor, LISEarlyStopping(), epochs=9, devices=2).global_step}


def seeded(folder: Path) -> dict[str, str]:
    def trained(again: bool, watched: bool) -> dict[str, torch.Tensor]:
        pl.seed_everything(1, verbose=False)
        module = Tower(frozen=False)
        callbacks = [monitor_of(folder)] if watched else []
        if again:
            pl.seed_everything(2, verbose=False)
        fit(module, *callbacks)
        return {name: value.clone() for name, value in module.state_dict().items()}

    orders = {"after": True, "before": False}
    return {name: same_bits(trained(again, False), trained(again, True)) for name, again in orders.items()}


def resume(folder: Path) -> dict[str, str]:
    def train(monitor: LISMonitor | None, **options: Any) -> pl.Trainer:
        pl.seed_everything(3, verbose=False)
        return fit(Tower(frozen=False), *([monitor] if monitor else []), **options)

    def resumed(monitor: LISMonitor | None, start: str) -> str:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(monitor, ckpt_path=str(folder / start), epochs=3)
        words = {str(warning.message).replace(f"{folder}/", "") for warning in caught}
        curve = f", new points at {[result.step for result in monitor.results]}" if monitor else ""
        return f"goes on{curve}, {ending({word for word in words if 'LISMonitor' in word})}"

    train(monitor_of(folder)).save_checkpoint(folder / "with.ckpt")
    train(None).save_checkpoint(folder / "without.ckpt")
    return {
        "changed": resumed(monitor_of(folder, k=1), "with.ckpt"),
        "added": resumed(monitor_of(folder / "added"), "without.ckpt"),
        "removed": resumed(None, "with.ckpt"),
    }


if __name__ == "__main__":
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    serve({
        "single": lambda _, folder: measured(folder / "alone", devices=1) | seeded(folder / "seeded") | resume(folder),
        "padded": lambda _, folder: measured(folder, devices=2),
        "uneven": lambda _, folder: measured(folder, devices=2, shards=True),
        "stop": lambda _, folder: stop(folder),
    })  # fmt: skip
