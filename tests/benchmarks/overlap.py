"""What snapshots add to a training when their scores are computed in the background, against scored at once."""

from __future__ import annotations

import logging
import math
import tempfile
import time
import warnings
from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lis_lightning import LISMonitor
from lis_lightning.scoring.scorer import Scorer
from tests.benchmarks.row import Row
from tests.benchmarks.score import made

STEPS, EVERY = 60, 20
WAIT = 0.03  # seconds a step waits for its device; the processor has nothing to do meanwhile
PRODUCTS = 5  # about as long


class Module(pl.LightningModule):
    """Steps that wait, as for a GPU, or that keep the processors busy."""

    def __init__(self, vectors: torch.Tensor, busy: bool) -> None:
        super().__init__()
        self.table = torch.nn.Embedding.from_pretrained(vectors, freeze=False, sparse=True)
        self.square = torch.randn(600, 600)
        self.busy = busy

    def encode_items(self, batch: dict) -> torch.Tensor:
        return self.table(batch["row"])

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.busy:
            for _ in range(PRODUCTS):
                self.square @ self.square
        else:
            time.sleep(WAIT)
        return self.table(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def rows() -> Iterator[Row]:
    """Yield the seconds that snapshots add, for two kinds of training."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    split, vectors = made(10_000, 3_000)
    vectors = vectors[:, :256].contiguous()
    items = [{"item_id": item, "row": row} for row, item in enumerate(split.item_ids.tolist())]
    _ = Scorer(split).base_ranker
    kinds: dict[str, dict | None] = {"alone": None, "at once": {}, "background": {"background_steps": EVERY}}
    for busy in (False, True):
        took = dict.fromkeys(kinds, math.inf)
        for repeat in range(3):
            for name, options in kinds.items():
                monitors = []
                if options is not None:
                    fast = {"ceilings": (), "placebo": False, "progress": False, "batch_size": 2000}
                    monitors = [LISMonitor(split, items, every_n_steps=EVERY, **fast, **options)]
                spent = seconds(Module(vectors, busy), monitors)
                if repeat:  # the first time also computes what is kept for a split
                    took[name] = min(took[name], spent)
        added = {name: max(took[name] - took["alone"], 1e-3) for name in took}
        yield Row(
            what=f"{STEPS // EVERY} snapshots of a training whose steps {'compute' if busy else 'wait for a device'}",
            ours=added["background"], other=added["at once"], against="scored at once", bar=None if busy else 0.5,
        )  # fmt: skip


def seconds(module: Module, monitors: list) -> float:
    """Return the wall-clock seconds from the first step to the last; the raw and the last snapshot lie outside."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=STEPS + 1, callbacks=[*monitors, clock], default_root_dir=folder, accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(torch.arange(STEPS + 1)))
    return clock.ended - clock.began


class Clock(pl.Callback):
    """Notes when the first step begins and the last one ends."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == 0:
            self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.ended = time.perf_counter()
