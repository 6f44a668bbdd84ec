"""stable-pretraining's online evaluators, as its docs set them up; run by its own interpreter, from compare.py."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import lightning as pl
import stable_pretraining as spt
import torch
from compare import ending, same_bits, serve
from loguru import logger
from stable_pretraining.callbacks import EpochMilestones, OnlineKNN, OnlineProbe, RankMe
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchmetrics.classification import MulticlassAccuracy

NUM, DIM, CLASSES = 31, 4, 3
KEYS = {"OnlineProbe": "eval/probe_acc", "OnlineKNN": "eval/knn_acc", "RankMe": "rankme"}


class Samples(Dataset):
    """Three overlapping blobs; other draws to validate on."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __len__(self) -> int:
        return NUM

    def __getitem__(self, row: int) -> dict[str, Any]:
        noise, label = torch.randn(DIM, generator=torch.Generator().manual_seed(self.first + row)), row % CLASSES
        return {"x": noise + label * torch.eye(DIM)[label], "label": label}


def forward(self: Any, batch: dict[str, Any], stage: str) -> dict[str, Any]:
    state = {"embedding": self.backbone(batch["x"])}
    if stage == "fit":
        state["loss"] = nn.functional.mse_loss(state["embedding"], batch["x"])
    return state


def module_of(frozen: bool) -> Any:
    """A linear map that stays as it is, so that one number is right; or a net that learns, with dropout."""
    net = nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, DIM))
    optimizer = {"type": "SGD", "lr": 0.0} if frozen else {"type": "AdamW", "lr": 1e-2}
    optim = {"optimizer": optimizer, "scheduler": {"type": "ConstantLR", "factor": 1.0}}
    return spt.Module(backbone=nn.Linear(DIM, DIM) if frozen else net, forward=forward, optim=optim)


def evaluator_of(kind: str, module: Any, *, frozen: bool = False, changed: bool = False) -> Any:
    accuracy = {"acc": MulticlassAccuracy(CLASSES, average="micro")}
    if kind == "OnlineProbe":
        deep = nn.Sequential(nn.Linear(DIM, 8), nn.ReLU(), nn.Linear(8, CLASSES))
        return OnlineProbe(
            module, name="probe", input="embedding", target="label", loss=nn.CrossEntropyLoss(), metrics=accuracy,
            probe=deep if changed else nn.Linear(DIM, CLASSES), optimizer={"type": "SGD", "lr": 0.0 if frozen else 0.1},
        )  # fmt: skip
    if kind == "OnlineKNN":
        size = {"queue_length": 64, "input_dim": DIM, "num_classes": CLASSES, "k": 15 if changed else 5}
        return OnlineKNN(name="knn", input="embedding", target="label", metrics=accuracy, **size)
    return RankMe(name="rankme", target="embedding", queue_length=16 if changed else 64, target_shape=DIM)


def fit(module: Any, *callbacks: Any, epochs: int = 2, devices: int = 1, shards: bool = False, **options: Any) -> Any:
    def loader(shuffle: bool) -> Any:
        data: Any = Samples(0 if shuffle else NUM)
        if shards:
            data = Subset(data, range(int(os.environ.get("LOCAL_RANK", 0)), NUM, devices))
        return DataLoader(data, batch_size=4, shuffle=shuffle)

    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", devices=devices, logger=False,
        strategy="ddp" if devices > 1 else "auto", use_distributed_sampler=not shards, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader(True), loader(False), **options)
    return trainer


def measured(kind: str, *, devices: int, shards: bool = False) -> dict[str, Any]:
    pl.seed_everything(0)
    module = module_of(frozen=True)
    trainer = fit(module, evaluator_of(kind, module, frozen=True), devices=devices, shards=shards)
    value = trainer.callback_metrics.get(KEYS[kind])
    return {"value": None if value is None else float(value)}


def stop(kind: str) -> dict[str, Any]:
    """A milestone of the second epoch that nobody can reach."""
    pl.seed_everything(0)
    module = module_of(frozen=True)
    milestone = EpochMilestones({1: 1e9}, monitor=KEYS[kind])
    return {"step": fit(module, evaluator_of(kind, module), milestone, epochs=4, devices=2).global_step}


def seeded(kind: str) -> dict[str, str]:
    def trained(again: bool, watched: bool) -> dict[str, torch.Tensor]:
        pl.seed_everything(1)
        module = module_of(frozen=False)
        callbacks = [evaluator_of(kind, module)] if watched else []
        if again:
            pl.seed_everything(2)
        fit(module, *callbacks)
        return {name: value.clone() for name, value in module.backbone.state_dict().items()}

    orders = {"after": True, "before": False}
    return {name: same_bits(trained(again, False), trained(again, True)) for name, again in orders.items()}


def resume(kind: str, folder: Path) -> dict[str, str]:
    def train(watched: bool, changed: bool = False, **options: Any) -> Any:
        pl.seed_everything(3)
        module = module_of(frozen=False)
        return fit(module, *([evaluator_of(kind, module, changed=changed)] if watched else []), **options)

    def resumed(start: str, usual: set[str], **options: Any) -> tuple[str, set[str]]:
        words: set[str] = set()
        sink = logger.add(lambda message: words.add(message.record["message"]), level="WARNING")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                trainer = train(ckpt_path=str(folder / start), epochs=3, **options)
            except Exception as error:
                return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}", words
            finally:
                logger.remove(sink)
        words |= {str(warning.message) for warning in caught}
        key = ", same key" if KEYS[kind] in trainer.callback_metrics else ""
        return f"goes on{key}, {ending(words - usual)}", words

    train(True).save_checkpoint(folder / "with.ckpt")
    train(False).save_checkpoint(folder / "without.ckpt")
    usual = resumed("with.ckpt", set(), watched=True)[1] | resumed("without.ckpt", set(), watched=False)[1]
    return {
        "changed": resumed("with.ckpt", usual, watched=True, changed=True)[0],
        "added": resumed("without.ckpt", usual, watched=True)[0],
        "removed": resumed("with.ckpt", usual, watched=False)[0],
    }


if __name__ == "__main__":
    serve({
        "single": lambda kind, folder: measured(kind, devices=1) | seeded(kind) | resume(kind, folder),
        "padded": lambda kind, _: measured(kind, devices=2),
        "uneven": lambda kind, _: measured(kind, devices=2, shards=True),
        "stop": lambda kind, _: stop(kind),
    })  # fmt: skip
