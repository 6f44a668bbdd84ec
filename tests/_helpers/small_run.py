"""A small real training whose every step depends on its number alone: resumed anywhere, it goes on as if never stopped.

Lightning keeps neither the order of the data nor the random state in a checkpoint; here both are functions of the step,
so that a resumed run can be compared with an undisturbed one to the bit.
"""

from __future__ import annotations

import warnings

import numpy as np
import polars
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.monitor.callback import LISMonitor

NUM_ITEMS, NUM_USERS, DIM, EPOCH = 30, 40, 4, 7  # batches an epoch: no multiple of what anything else counts in


def contents():
    return torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(1))


def make_split(seed=0):
    rng = np.random.default_rng(seed)
    size = 1200
    users, items = rng.integers(NUM_USERS, size=size), rng.integers(NUM_ITEMS, size=size)
    logits = (rng.normal(size=(NUM_USERS, DIM))[users] * contents()[items].numpy()).sum(axis=1)
    labels = (rng.random(size) < 1 / (1 + np.exp(-logits))).astype(int)
    table = {"user_id": users, "item_id": items, "timestamp": np.arange(size), "label": labels}
    return PreferenceSplit.from_log(polars.DataFrame(table))


QUIET = (
    ".*does not have many workers",
    "The number of training batches",
    ".*exists and is not empty",
    "Be aware that when using `ckpt_path`",
    "You're resuming from a checkpoint that ended",
)
ITEMS = [{"item_id": item, "x": row} for item, row in enumerate(contents())]


class Tower(pl.LightningModule):
    """Dropout, BatchNorm and Adam; learns the contents of the items, so that its score rises."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, DIM))

    def encode_items(self, batch):
        return self.net(batch["x"])

    def on_train_batch_start(self, batch, batch_idx):
        torch.manual_seed(self.global_step)

    def training_step(self, batch, batch_idx):
        x = contents()[torch.randperm(NUM_ITEMS)[:10]]
        return nn.functional.mse_loss(self.net(x), x)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-2)


def saver(folder, every=3):
    """Keep every checkpoint, mid-epoch."""
    return ModelCheckpoint(folder, every_n_train_steps=every, save_top_k=-1, filename="{step}")


def monitor_of(split, **options):
    return LISMonitor(split, options.pop("items", ITEMS), **{"every_n_steps": 2, "progress": False} | options)


def fit(folder, *callbacks, steps=12, ckpt_path=None, module=None, collate_fn=None, **options):
    """Train for some steps in a folder, from a checkpoint if there is one; return Trainer and module."""
    checkpointing = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    options = {"logger": False, "enable_checkpointing": checkpointing} | options
    module = module or Tower()
    with warnings.catch_warnings():
        for message in QUIET:
            warnings.filterwarnings("ignore", message=message)
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        trainer = pl.Trainer(
            max_steps=steps, max_epochs=-1, callbacks=list(callbacks), default_root_dir=folder, accelerator="cpu",
            enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1, **options,
        )  # fmt: skip
        trainer.fit(module, DataLoader(range(EPOCH), collate_fn=collate_fn), ckpt_path=ckpt_path)
    return trainer, module


def curve(results):
    """Every number of the results that does not depend on the clock, and what was said; NaN equals NaN."""
    return [
        {name: repr(value) for name, value in result.scalars().items() if not name.endswith("_seconds")}
        | {"step": result.step, "verdict": result.verdict, "message": result.message}
        for result in results
    ]
