"""The kinds of training that a monitor must not disturb, each run alone, with monitors, and with a naive callback."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import LisWarning
from lis_lightning.monitor.schedule import EveryEpochs, EverySteps, EveryValidation
from tests._helpers.training import (
    DIM,
    Body,
    Items,
    NaiveCallback,
    Tower,
    differences,
    fails_after_drawing,
    fingerprint,
    fit,
    make_log,
    monitor_of,
)

STEPS = 8  # of epochs of 3 batches: the order of the data is drawn anew twice after the first snapshot


@dataclass(frozen=True)
class Case:
    """A kind of training.

    Attributes:
        name: What is special about it.
        module: Makes the module.
        loader: Makes the training's loader.
        options: What the Trainer is given.
        callbacks: Makes what stands behind the monitors in the Trainer's list.
        monitors: Options of each monitor.
        slow: Whether it takes too long for the default tests.
    """

    name: str
    module: Callable[[], Any] = Tower
    loader: Callable[[], Any] = lambda: DataLoader(Items(), batch_size=10, shuffle=True)
    options: dict[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], list[Any]] = list
    monitors: Sequence[dict[str, Any]] = ({},)
    slow: bool = False


@dataclass(frozen=True)
class Outcome:
    """What was found.

    Attributes:
        compared: Names of what was compared.
        watched: Those that differ with the monitors.
        naive: Those that differ with the naive callback.
        snapshots: Snapshots that were scored; -1 where they failed on purpose.
    """

    compared: list[str]
    watched: list[str]
    naive: list[str]
    snapshots: int


@cache
def split() -> PreferenceSplit:
    return PreferenceSplit.from_log(make_log())


def run(case: Case, accelerator: str = "cpu") -> Outcome:
    """Train three times and compare."""
    torch.set_num_threads(1)  # OpenMP hangs in a fork of a process that has used its threads, with any module
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", LisWarning)  # of the snapshots that fail on purpose

        def trained(*callbacks: Any) -> dict[str, Any]:
            pl.seed_everything(7, verbose=False)
            module = case.module()
            options = {"steps": STEPS, "accelerator": accelerator} | case.options
            every = [*callbacks, *case.callbacks()]
            trained = fit(Path(folder), *every, module=module, loader=case.loader(), **options)
            written = Path(folder) / FINGERPRINT
            return torch.load(written, weights_only=False) if written.exists() else fingerprint(*trained)

        alone = trained()
        fast = {"ceilings": (), "placebo": False, "progress": False}
        monitors = [monitor_of(split(), **fast | options) for options in case.monitors]
        watched = trained(*monitors)
        counts = [len(monitor.results) for monitor in monitors]  # of launched processes from the record
        naive = trained(NaiveCallback())
    failed = all("encode" in options for options in case.monitors)
    return Outcome(list(alone), differences(alone, watched), differences(alone, naive), -1 if failed else min(counts))


# --- modules ---------------------------------------------------------------------------------------------------------


def net(middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(DIM, 8), middle, nn.ReLU(), nn.Linear(8, DIM))


def compiled(backend: str) -> Any:
    tower = Tower()
    tower.net = torch.compile(tower.net, backend=backend)
    return tower


def with_lora() -> Any:
    from peft import LoraConfig, get_peft_model

    tower = Tower()
    tower.net = get_peft_model(tower.net, LoraConfig(target_modules=["0", "4"], r=2, lora_dropout=0.1))
    return tower


class Manual(Tower):
    """Two optimizer steps a batch."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.note(batch["x"])
        for _ in range(2):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()


class Validated(Tower):
    """Validates on other random numbers each time."""

    def validation_step(self, batch, batch_idx):
        self.log("loss", self.loss(batch))

    def val_dataloader(self):
        return DataLoader(Items(), batch_size=10)


class Paired(Tower):
    """Trains on two loaders at once."""

    def training_step(self, batch, batch_idx):
        self.note(batch["left"]["x"], batch["right"]["x"])
        return self.loss(batch["left"]) + self.loss(batch["right"])


def two_loaders() -> Any:
    left, right = DataLoader(Items(), batch_size=10, shuffle=True), DataLoader(Items(), batch_size=7, shuffle=True)
    return CombinedLoader({"left": left, "right": right}, "max_size_cycle")


def of_lightning() -> Any:
    import lightning.pytorch

    return type("Other", (Body, lightning.pytorch.LightningModule), {})()


def trainer_of_lightning(**options: Any) -> Any:
    import lightning.pytorch

    return lightning.pytorch.Trainer(**options)


class Queued(Tower):
    """Each forward writes keys into a queue and counts, in evaluation too; the loss reads both."""

    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.ones(5, DIM))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("newest", torch.ones(1, DIM))

    def keys(self, batch):
        encoded = super().encode_items(batch)
        self.queue[int(self.count) % 5] = encoded[0].detach()
        self.count += 1
        self.newest = encoded[-1:].detach()
        return encoded

    def encode_items(self, batch):
        return self.keys(batch)

    def loss(self, batch):
        negatives = torch.cat([self.queue, self.newest]) * self.count
        return nn.functional.mse_loss(self.keys(batch), batch["x"]) + 1e-3 * negatives.mean() * self.net[0].weight.sum()


class Drawing(Tower):
    """Draws its noise from generators of its own."""

    def __init__(self):
        super().__init__()
        self.noise = torch.Generator().manual_seed(3)
        self.net[0].shift = np.random.default_rng(3)  # of a submodule

    def encode_items(self, batch):
        noise = torch.randn(DIM, generator=self.noise) + self.net[0].shift.normal()
        return super().encode_items({"x": batch["x"] + noise.to(batch["x"])})

    def loss(self, batch):
        return nn.functional.mse_loss(self.encode_items(batch), batch["x"])


class NoisyItems(Items):
    """Draws from a generator of its own; the training and the monitor share it."""

    def renewed(self):
        self.noise = np.random.default_rng(5)
        return self

    def __getitem__(self, row):
        item = super().__getitem__(row)
        return item | {"x": item["x"] + self.noise.normal()}


class Measuring(Tower):
    """Updates a metric in every encode, and logs; the loss reads the metric."""

    def __init__(self):
        super().__init__()
        self.mean = MeanMetric()

    def encode_items(self, batch):
        encoded = super().encode_items(batch)
        self.mean.update(encoded.detach())
        self.log("encoded", encoded.mean())
        return encoded

    def loss(self, batch):
        self.encode_items(batch)
        return super().loss(batch) * (2.0 + self.mean.compute().tanh())


class Lazy(Tower):
    """Initialised before the training, as a monitor asks for."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(DIM)))

    def configure_model(self):
        self.net(torch.zeros(1, DIM, device=self.device))


class Unwrapped(Tower):
    """Steps the optimizer of torch: Lightning counts no step."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.note(batch["x"])
        optimizer = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()


class Launched(Tower):
    """Writes down its fingerprint: the processes that train end with the training."""

    def on_fit_end(self):
        if self.trainer.is_global_zero:
            torch.save(fingerprint(self.trainer, self), Path(self.trainer.default_root_dir) / FINGERPRINT)


NOISY = NoisyItems()
FINGERPRINT = "fingerprint.pt"

CASES = [
    Case("dropout", lambda: Tower(net(nn.Dropout(0.3)))),
    Case("trainable BatchNorm", lambda: Tower(net(nn.BatchNorm1d(8)))),
    Case("frozen BatchNorm", lambda: Tower(net(nn.BatchNorm1d(8).eval()))),
    Case("all three"),
    Case("augmentation in workers", loader=lambda: DataLoader(Items(), batch_size=10, shuffle=True, num_workers=2)),
    Case("accumulation", options={"accumulate_grad_batches": 2}),
    Case("bf16-mixed", options={"precision": "bf16-mixed"}),
    Case("gradient clipping", options={"gradient_clip_val": 0.1}),
    Case("compiled, eager backend", lambda: compiled("eager")),
    Case("compiled, aot_eager", lambda: compiled("aot_eager"), slow=True),
    Case("compiled, inductor", lambda: compiled("inductor"), slow=True),
    Case("LoRA", with_lora, slow=True),
    Case("EMA of the weights", callbacks=lambda: [EMAWeightAveraging(decay=0.8)]),
    Case("EMA, and validation", Validated, callbacks=lambda: [EMAWeightAveraging(decay=0.8)],
         options={"val_check_interval": 2}, monitors=[{"every_n_steps": None, "schedule": EveryValidation()}]),
    Case("manual optimisation", Manual),
    Case("validation in an epoch", Validated, options={"val_check_interval": 2},
         monitors=[{"schedule": EveryValidation()}]),
    Case("two dataloaders", Paired, two_loaders),
    Case("lightning.pytorch", of_lightning, options={"trainer_cls": trainer_of_lightning}),
    Case("two monitors", monitors=[{"name": "one"}, {"name": "two", "schedule": [EverySteps(3), EveryEpochs()]}]),
    Case("scores in the background", monitors=[{"background_steps": 1}]),
    Case("buffers written by the encode", Queued),
    Case("generators of the module", Drawing),
    Case("a generator of the data", loader=lambda: DataLoader(NOISY.renewed(), batch_size=10, shuffle=True),
         monitors=[{"items": NOISY}]),
    Case("metrics and logs in the encode", Measuring),
    Case("lazy, initialised before", Lazy),
    Case("unwrapped optimizer", Unwrapped, options={"steps": -1, "max_epochs": 3}),
    Case("two processes, forked", Launched, options={"strategy": "ddp_fork", "devices": 2}, slow=True),
    Case("two processes, spawned", Launched, options={"strategy": "ddp_spawn", "devices": 2}, slow=True),
    Case("snapshots that fail", monitors=[{"encode": fails_after_drawing}]),
]  # fmt: skip
