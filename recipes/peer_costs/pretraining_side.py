"""stable-pretraining's online evaluators: `pretraining_side.py EVALUATOR FOLDER...`; run by its own interpreter.

Each snapshot is the output of a backbone that does not learn, in a Lightning run with one evaluator, or with `none`.
An item's class is the quarter of its click rate; a quarter of the items that have one is held out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as pl
import numpy as np
import stable_pretraining as spt
import torch
from contender import Matrix, arrays, serve
from loguru import logger
from numpy.typing import NDArray
from stable_pretraining.callbacks import OnlineKNN, OnlineProbe, RankMe
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

CLASSES, BATCH, EPOCHS = 4, 32, 10
KEYS = {"OnlineProbe": "eval/probe_acc", "OnlineKNN": "eval/knn_acc", "RankMe": "rankme"}


def forward(self: Any, batch: dict[str, Any], stage: str) -> dict[str, Any]:
    state = {"embedding": self.backbone(batch["x"])}
    if stage == "fit":
        state["loss"] = nn.functional.mse_loss(state["embedding"], batch["x"])
    return state


def identity(dim: int) -> Any:
    """Return a module whose backbone gives back what it reads, and stays so."""
    backbone = nn.Linear(dim, dim, bias=False)
    nn.init.eye_(backbone.weight)
    optim = {"optimizer": {"type": "SGD", "lr": 0.0}, "scheduler": {"type": "ConstantLR", "factor": 1.0}}
    return spt.Module(backbone=backbone, forward=forward, optim=optim)


def evaluator_of(kind: str, module: Any, dim: int, size: int) -> Any:
    """Return an evaluator with the defaults of its class; queues hold the items that are trained on."""
    accuracy = {"acc": MulticlassAccuracy(CLASSES, average="micro")}
    if kind == "OnlineProbe":
        return OnlineProbe(
            module, name="probe", input="embedding", target="label", loss=nn.CrossEntropyLoss(), metrics=accuracy,
            probe=nn.Linear(dim, CLASSES),
        )  # fmt: skip
    if kind == "OnlineKNN":
        shape = {"queue_length": size, "input_dim": dim, "num_classes": CLASSES}
        return OnlineKNN(name="knn", input="embedding", target="label", metrics=accuracy, **shape)
    return RankMe(name="rankme", target="embedding", queue_length=size, target_shape=dim)


def value(kind: str, rows: Matrix, bins: NDArray[np.int64]) -> float:
    """Return what an evaluator logs at the end of a run over one snapshot; 0 without one."""
    pl.seed_everything(0)
    x, label = torch.from_numpy(rows[bins >= 0]).float(), torch.from_numpy(bins[bins >= 0])
    samples = [{"x": one, "label": its} for one, its in zip(x, label, strict=True)]
    order = np.random.default_rng(0).permutation(len(samples))
    cut = len(order) * 3 // 4
    train, held = ([samples[at] for at in part] for part in (order[:cut], order[cut:]))
    module = identity(rows.shape[1])
    evaluators = [] if kind == "none" else [evaluator_of(kind, module, rows.shape[1], cut)]
    trainer = pl.Trainer(
        # A backbone that stays the same fills the queues in one epoch; the probe has to learn.
        max_epochs=EPOCHS if kind in ("OnlineProbe", "none") else 1,
        callbacks=evaluators, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, DataLoader(train, batch_size=BATCH, shuffle=True), DataLoader(held, batch_size=BATCH))
    return float(trainer.callback_metrics[KEYS[kind]]) if kind in KEYS else 0.0


def load(kind: str, folder: Path) -> tuple[Callable[[Matrix], float], Matrix, float]:
    given = arrays(folder)
    return lambda rows: value(kind, rows, given["bins"]), given["scored_snapshots"], 0.0


if __name__ == "__main__":
    torch.set_num_threads(1)
    logger.remove()
    # Without its list of installed packages, which a thread would write beside each fit.
    spt.set(default_callbacks={"env_dump": False})
    serve(load)
