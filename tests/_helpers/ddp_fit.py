"""Fits in two processes, for test_distributed.py: ``python ddp_fit.py FOLDER``; each process writes what it saw."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import polars
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.monitor.callback import LISMonitor
from lis_lightning.monitor.early_stopping import LISEarlyStopping
from lis_lightning.monitor.on_demand import OnFile
from lis_lightning.monitor.schedule import EverySteps
from lis_lightning.monitor.submodule_encoder import Encode
from lis_lightning.results.stopping import StopRule
from lis_lightning.scoring.scorer import Scorer

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


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(DIM, 8)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2), nn.Tanh()) for _ in range(2)))
        self.forwards = 0

    def forward(self, x):
        self.forwards += 1
        return self.blocks(self.embed(x))


class Sharded(pl.LightningModule):
    """Parameters in pieces on both processes: each forward needs both."""

    def __init__(self, part=None):
        super().__init__()
        torch.manual_seed(0)
        self.model, self.part = Stack(), part

    def configure_model(self):
        mesh = self.device_mesh["data_parallel"]
        for block in self.model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)

    def encode_items(self, batch):
        return self.model(batch["x"])

    def training_step(self, batch, batch_idx):
        return self.model(batch["x"]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class RankZeroFails(CSVLogger):
    def log_metrics(self, metrics, step=None):
        if self.save_dir and any(key.startswith("lis/") for key in metrics):
            raise OSError("disk full")


def make_split():
    rng = np.random.default_rng(0)
    size = 800
    tastes, contents = rng.normal(size=(NUM_USERS, DIM)), np.stack([Items()[row]["x"] for row in range(NUM_ITEMS)])
    users, items = rng.integers(NUM_USERS, size=size), rng.integers(NUM_ITEMS, size=size)
    labels = (rng.random(size) < 1 / (1 + np.exp(-2 * (tastes[users] * contents[items]).sum(axis=1)))).astype(int)
    log = polars.DataFrame({"user_id": users, "item_id": items, "timestamp": np.arange(size), "label": labels})
    return PreferenceSplit.from_log(log)


SPLIT = make_split()


def everything():
    return torch.stack([Items()[item]["x"] for item in SPLIT.item_ids.tolist()])


def fit(folder, module, *callbacks, steps=20, strategy="ddp", logger=False):
    trainer = pl.Trainer(
        max_steps=steps, callbacks=list(callbacks), accelerator="cpu", devices=2, strategy=strategy, logger=logger,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    trainer.fit(module, DataLoader(Items(), batch_size=4, shuffle=True, generator=generator))
    return trainer


# --- what is looked at ----------------------------------------------------------------------------------------------


def curve(folder):
    """Early stopping on both, and a failure on one of them survived."""

    def encode(module, batch):
        if module.trainer.global_step == 2 and module.global_rank == 1:
            raise OSError("only here")
        return module.encode_items(batch)

    module, stop = Tower(), LISEarlyStopping()
    rule = StopRule(min_gain=1.0, min_progress=0)  # every snapshot is flat
    monitor = LISMonitor(SPLIT, Items(), every_n_steps=2, batch_size=4, encode=encode, rule=rule, dirpath=folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(folder, module, stop, monitor)
    return {
        "steps": [result.step for result in monitor.results],
        "ais": [result.ais for result in monitor.results],
        "seconds": [(result.encode_seconds, result.score_seconds) for result in monitor.results],
        "expected": _alone(module.net[0]),
        "global_step": trainer.global_step,
        "stopped": stop.stopped_step,
        "error": monitor.last_error,
        "metric": float(trainer.callback_metrics["lis/ais"]),
        "record": None if monitor.record_path is None else monitor.record_path.name,
        "warnings": [str(warning.message) for warning in caught if "LISMonitor" in str(warning.message)],
    }


def sources(folder):
    """Uneven shares, a process without items, padding by a sampler."""
    seen = {}
    padded = DistributedSampler(Items(), 2, _rank(), shuffle=False)
    for name, items, size in (
        ("uneven", Items(), 4),
        ("one batch", DataLoader(Items(), batch_size=NUM_ITEMS), 1),
        ("padded", DataLoader(Items(), batch_size=5, sampler=padded), 1),
    ):
        pl.seed_everything(0, verbose=False)
        module = Tower()
        monitor = LISMonitor(SPLIT, items, batch_size=size, dirpath=Path(folder, name), strict=True, placebo=False)
        fit(folder, module, monitor, steps=1)
        seen[name] = _plain(monitor.results[0])
    return seen | {"one process": _plain(SPLIT.score(_encoded(module.net[0]), placebo=False))}


def strict(folder):
    """What fails on the first process alone raises on both; neither waits for the other."""
    seen = {}
    blocked = Path(folder, "file")
    Path(folder).mkdir(exist_ok=True)
    blocked.touch()
    for name, logger, dirpath in (
        ("logger", RankZeroFails(Path(folder, "csv")), Path(folder, "strict")),
        ("record", False, blocked),
    ):
        monitor = LISMonitor(SPLIT, Items(), dirpath=dirpath, strict=True, placebo=False)
        try:
            fit(folder, Tower(), monitor, steps=1, logger=logger)
        except Exception as error:
            seen[name] = f"{type(error).__name__}: {error}"
    return seen


def sharded(folder):
    """FSDP2: equal numbers of forwards whatever the shares, parts that are called alone, and training as without."""
    seen = {}
    for name, encode, items in (
        ("without", None, None),
        ("uneven", None, Subset(Items(), range(NUM_ITEMS))),
        ("one batch", None, DataLoader(Items(), batch_size=NUM_ITEMS)),
        ("a part that is sharded", Encode("model.blocks.0", inputs={"input": "wide"}), _Wide()),
        ("a part that is not", Encode("model.embed", inputs={"input": "x"}), Items()),
        ("a failure", _fails, Items()),
        ("an item that one cannot read", None, _Torn()),
    ):
        module = Sharded()
        options = {
            "every_n_steps": 2,
            "batch_size": 3,
            "placebo": False,
            "strict": encode is not _fails and not isinstance(items, _Torn),
        }
        monitors = [LISMonitor(SPLIT, items, encode=encode, dirpath=Path(folder, name), **options)] if items else []
        pl.seed_everything(3, verbose=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(folder, module, *monitors, steps=4, strategy=ModelParallelStrategy(2, 1))
        weights = [parameter.full_tensor().detach() for parameter in module.parameters()]
        seen[name] = {"weights": [weight.tolist() for weight in weights], "forwards": module.model.forwards}
        if monitors:
            seen[name] |= {
                "steps": [result.step for result in monitors[0].results],
                "ais": [result.ais for result in monitors[0].results],
                "error": monitors[0].last_error,
            }
            seen[name]["expected"] = _expected(name, weights)
    return seen


class _Asks(pl.Callback):
    """Asks the first process for a snapshot, by a file that only its folder holds."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 9 and trainer.is_global_zero:
            Path(self.folder, "snapshot").touch()


def later(folder):
    """Scores in the background, one of which fails on one process, and a snapshot that only the first is asked for."""
    real, calls = Scorer.score, []

    def score(*args, **options):
        calls.append(1)
        if len(calls) == 3 and _rank() == 1:
            raise ArithmeticError("only here")
        return real(*args, **options)

    rule = StopRule(min_gain=1.0, min_progress=0)  # every snapshot is flat
    own = str(Path(folder, f"own-{_rank()}", "snapshot"))
    Path(own).parent.mkdir(parents=True)
    schedule = [EverySteps(4), OnFile(own, poll_seconds=0)]
    monitor = LISMonitor(
        SPLIT, Items(), schedule=schedule, background_steps=2, rule=rule, dirpath=folder, placebo=False
    )
    stop = LISEarlyStopping()
    with mock.patch.object(Scorer, "score", score), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = fit(folder, Tower(), _Asks(Path(own).parent), monitor, stop, steps=30)
    return {
        "steps": [result.step for result in monitor.results],
        "ais": [result.ais for result in monitor.results],
        "global_step": trainer.global_step,
        "stopped": stop.stopped_step,
        "judged": stop.num_judged,
        "error": monitor.last_error,
    }


class _Wide(Items):
    def __getitem__(self, row):
        return {"item_id": row, "wide": super().__getitem__(row)["x"].repeat(2)}


class _Torn(Items):
    """The last item, which one process reads, cannot be read at the second snapshot."""

    reads = 0

    def __getitem__(self, row):
        if row == NUM_ITEMS - 1:
            self.reads += 1
            if self.reads == 2:
                raise OSError("torn")
        return super().__getitem__(row)


def _fails(module, batch):
    """On both processes, in the middle of a forward."""
    if module.trainer.global_step == 2:
        handle = module.model.blocks[0][0].register_forward_hook(lambda *_: 1 // 0)
        try:
            return module.encode_items(batch)
        finally:
            handle.remove()
    return module.encode_items(batch)


def _expected(name, weights):
    """The last score, by one process alone."""
    plain = Stack().eval()
    with torch.no_grad():
        for parameter, weight in zip(plain.parameters(), weights, strict=True):
            parameter.copy_(weight)
        x = everything()
        encoded = {
            "a part that is sharded": lambda: plain.blocks[0](x.repeat(1, 2)),
            "a part that is not": lambda: plain.embed(x),
        }.get(name, lambda: plain(x))()
    return SPLIT.score(encoded, placebo=False).ais


def _encoded(layer):
    with torch.no_grad():
        return layer(everything()).float()


def _alone(layer):
    return SPLIT.score(_encoded(layer), placebo=False).ais


def _plain(result):
    of_the_run = ("best_ais", "gain_z", "train_loss", "encode_seconds", "score_seconds")
    return {name: value for name, value in result.numbers().items() if name not in of_the_run}


def _rank():
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


CHECKS = (curve, sources, strict, sharded, later)


def main(folder):
    torch.set_num_threads(1)
    seen = {}
    for check in CHECKS:
        pl.seed_everything(0, verbose=False)
        seen[check.__name__] = check(str(Path(folder, check.__name__)))
    Path(folder, f"rank-{_rank()}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
