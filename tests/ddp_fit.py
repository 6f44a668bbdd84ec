"""A fit in two processes, for test_callback.py: ``python ddp_fit.py FOLDER``; each process writes what it saw."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import polars
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lis_lightning.callback import LISMonitor
from lis_lightning.early_stopping import LISEarlyStopping
from lis_lightning.split import PreferenceSplit
from lis_lightning.stopping import StopRule

NUM_ITEMS, NUM_USERS, DIM = 31, 40, 4  # 16 items for one process, 15 for the other


class Items(Dataset):
    item_ids = range(NUM_ITEMS)

    def __len__(self):
        return NUM_ITEMS

    def __getitem__(self, row):
        return {"item_id": row, "x": torch.randn(DIM, generator=torch.Generator().manual_seed(row))}


class Tower(pl.LightningModule):
    """A learning rate of 0: every snapshot of every process must score the same."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(DIM, DIM), nn.Dropout(0.5))

    def encode_items(self, batch):
        return self.net(batch["x"])

    def training_step(self, batch, batch_idx):
        return self.net(batch["x"]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def make_split():
    rng = np.random.default_rng(0)
    size = 800
    tastes, contents = rng.normal(size=(NUM_USERS, DIM)), np.stack([Items()[row]["x"] for row in range(NUM_ITEMS)])
    users, items = rng.integers(NUM_USERS, size=size), rng.integers(NUM_ITEMS, size=size)
    labels = (rng.random(size) < 1 / (1 + np.exp(-2 * (tastes[users] * contents[items]).sum(axis=1)))).astype(int)
    log = polars.DataFrame({"user_id": users, "item_id": items, "timestamp": np.arange(size), "label": labels})
    return PreferenceSplit.from_log(log)


def encode(module, batch):
    if module.trainer.global_step == 2 and module.global_rank == 1:
        raise OSError("only here")
    return module.encode_items(batch)


def main(folder):
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    split, module = make_split(), Tower()
    rule = StopRule(warmup=0, plateau_delta=1.0, plateau_patience=2)  # every snapshot is flat
    monitor = LISMonitor(split, Items(), every_n_steps=2, batch_size=4, encode=encode, rule=rule, dirpath=folder)
    stop = LISEarlyStopping()
    trainer = pl.Trainer(
        max_steps=20, callbacks=[stop, monitor], accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, default_root_dir=folder,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, DataLoader(Items(), batch_size=4, shuffle=True))
    with torch.no_grad():
        embeddings = torch.stack([Items()[item]["x"] for item in split.item_ids.tolist()])
        expected = split.score(module.net[0](embeddings).float(), placebo=False)
    seen = {
        "steps": [result.step for result in monitor.results],
        "ais": [result.ais for result in monitor.results],
        "expected": expected.ais,
        "global_step": trainer.global_step,
        "stopped": stop.stopped_step,
        "error": monitor.last_error,
        "metric": float(trainer.callback_metrics["lis/ais"]),
        "record": None if monitor.record_path is None else monitor.record_path.name,
        "warnings": [str(warning.message) for warning in caught if "LISMonitor" in str(warning.message)],
    }
    Path(folder, f"rank-{trainer.global_rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
