"""A small training with all that can be disturbed, watched by a monitor; used by the matrix and by tests."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import polars
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lis_lightning.monitor.callback import LISMonitor

NUM_ITEMS, NUM_USERS, DIM = 30, 40, 4


def make_log():
    rng = np.random.default_rng(0)
    size = 1200
    tastes = rng.normal(size=(NUM_USERS, DIM))
    users, items = rng.integers(NUM_USERS, size=size), rng.integers(NUM_ITEMS, size=size)
    logits = (tastes[users] * contents()[items].numpy()).sum(axis=1)
    labels = (rng.random(size) < 1 / (1 + np.exp(-logits))).astype(int)
    return polars.DataFrame({"user_id": users, "item_id": items, "timestamp": np.arange(size), "label": labels})


def contents():
    return torch.randn(NUM_ITEMS, DIM, generator=torch.Generator().manual_seed(1))


class Items(Dataset):
    """Item dicts; noise from all three global generators, as an augmentation would draw it."""

    def __init__(self, item_ids=range(NUM_ITEMS)):
        self.item_ids = list(item_ids)

    def __len__(self):
        return len(self.item_ids)

    def __getitem__(self, row):
        noise = torch.rand(DIM) * 0.1 + random.random() * 0.01 + np.random.rand() * 0.01
        return {"item_id": self.item_ids[row], "x": contents()[self.item_ids[row]] + noise}


class Body:
    """What a module of any Lightning does: it pulls items towards their contents, and notes what each step starts from.

    Dropout, trainable BatchNorm, frozen BatchNorm and Adam, unless another net is given.
    """

    def __init__(self, net=None):
        super().__init__()
        self.net = net or nn.Sequential(
            nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, DIM)
        )
        self.frozen = nn.BatchNorm1d(DIM) if net is None else nn.Identity()
        self.encoded = 0
        self.streams = {"torch": [], "numpy": [], "python": [], "data": []}

    def encode_items(self, batch):
        self.encoded += 1
        return self.frozen(self.net(batch["x"]))

    def on_fit_start(self):
        if isinstance(self.frozen, nn.BatchNorm1d):
            self.frozen.eval()

    def loss(self, batch):
        return nn.functional.mse_loss(self.frozen(self.net(batch["x"])), batch["x"])

    def training_step(self, batch, batch_idx):
        self.note(batch["x"])
        return self.loss(batch)

    def note(self, *data):
        for name, state in random_states().items():
            self.streams[name].append(state)
        self.streams["data"].append(tuple(part.tolist() for part in data))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Tower(Body, pl.LightningModule):
    """The body in a LightningModule of pytorch_lightning."""


def random_states():
    """Digest of each random state that a training step may read."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    states = {
        "torch": [state.tolist() for state in (torch.get_rng_state(), *cuda)],
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "python": random.getstate(),
    }
    return {name: hashlib.sha256(repr(state).encode()).hexdigest() for name, state in states.items()}


def fit(
    tmp_path, *callbacks, module=None, steps=6, ckpt_path=None, trainer_cls=pl.Trainer, seed=7, loader=None, **options
):
    pl.seed_everything(seed, verbose=False)
    module = module or Tower()
    options = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"} | options
    trainer = trainer_cls(
        max_steps=steps, callbacks=list(callbacks), default_root_dir=tmp_path, enable_progress_bar=False,
         enable_model_summary=False, log_every_n_steps=1, **options,
    )  # fmt: skip
    loader = DataLoader(Items(), batch_size=10, shuffle=True) if loader is None else loader
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    return trainer, module


def monitor_of(split, **options):
    return LISMonitor(split, options.pop("items", Items()), **({"every_n_steps": 2, "batch_size": 7} | options))


def fingerprint(trainer, module):
    """Every bit that the training depended on at each step, and that the next one would depend on."""
    optimizer = trainer.optimizers[0].state_dict()["state"]
    return {
        "weights": {name: value.clone() for name, value in module.state_dict().items()},
        "optimizer": {f"{key}.{name}": value for key, state in optimizer.items() for name, value in state.items()},
        "modes": [child.training for child in module.modules()],
        **{name: [*steps, random_states().get(name)] for name, steps in module.streams.items()},
    }


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def differences(one, other):
    """Names of what is not the same to the bit."""
    return [name for name in one if not same(one[name], other[name])]


class NaiveCallback(Callback):
    """What one writes first."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step % 2 == 0:
            pl_module.eval()
            with torch.no_grad():
                for batch in DataLoader(Items(), batch_size=7):
                    pl_module.encode_items({**batch, "x": batch["x"].to(pl_module.device)})
            pl_module.train()


def fails_after_drawing(module, batch):
    """An encode that disturbs all it can before it raises."""
    torch.rand(3), random.random(), np.random.rand()
    raise ValueError("no picture")
