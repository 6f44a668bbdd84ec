"""What a snapshot costs beyond encode and score, encode against `Trainer.predict`, and the import.

The encoder is a text transformer of 2 layers of 192, the items are 2000 texts of 4 to 64 tokens.
All on one thread: on a busy machine two wait for each other in every small step, which would count as bookkeeping.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lis_lightning import LISMonitor
from lis_lightning.monitor import snapshot_scorer
from lis_lightning.monitor.batches import make_batches
from lis_lightning.monitor.encoding import encode_items
from lis_lightning.monitor.isolation import undisturbed
from lis_lightning.monitor.lightning_training import LightningTraining
from lis_lightning.scoring.scorer import Scorer
from tests.benchmarks.row import Row
from tests.benchmarks.score import made

NUM_EVENTS, NUM_ITEMS, BATCH = 50_000, 2000, 64
VOCABULARY, WIDTH, LAYERS, SHORTEST, LONGEST = 5000, 192, 2, 4, 64
ROUNDS = 4


def rows() -> Iterator[Row]:
    """Yield the share of bookkeeping, encode against `predict`, what sorting by length saves, and the import."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _rows()
    finally:
        torch.set_num_threads(threads)


def _rows() -> Iterator[Row]:
    torch.manual_seed(0)
    split, _ = made(NUM_EVENTS, NUM_ITEMS)
    texts = Texts(split.item_ids.tolist())
    module = Tower()
    what = f"{split.num_items} texts of {SHORTEST} to {LONGEST} tokens"
    seconds, bookkeeping = _snapshots(split, texts, module)
    yield Row(
        what=f"bookkeeping, share of a snapshot of {seconds:.1f} s, {what}",
        ours=100 * bookkeeping / seconds,
        kind="limit",
        bar=1,
        unit="%",
    )
    times = _encodes(split, texts, module)
    yield Row(
        what=f"encode, {what}", ours=times["as given"], other=times["predict"], against="Trainer.predict", bar=1.1
    )
    yield Row(
        what=f"encode by length, {what}",
        ours=times["by length"],
        other=times["as given"],
        kind="peer",
        against="in the order given",
    )
    ours, other = _imports()
    yield Row(what="import lis_lightning", ours=other + ours, other=other, against="import pytorch_lightning", bar=1.1)


class Texts(Dataset[dict[str, Any]]):
    """Tokens of random texts, short ones more often."""

    def __init__(self, item_ids: list[Any]) -> None:
        self.item_ids = item_ids
        skew = torch.rand(len(item_ids)).square()
        self.tokens = (SHORTEST + skew * (LONGEST - SHORTEST)).long().tolist()

    def __len__(self) -> int:
        return len(self.item_ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(row)
        tokens = torch.randint(1, VOCABULARY, (self.tokens[row],), generator=generator)
        return {"item_id": self.item_ids[row], "input_ids": tokens}


class Sorted(Texts):
    """The same, which know their length."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return self.tokens


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Pad to the longest."""
    ids = nn.utils.rnn.pad_sequence([item["input_ids"] for item in items], batch_first=True)
    return {"item_id": torch.tensor([item["item_id"] for item in items]), "input_ids": ids}


class Tower(pl.LightningModule):
    """A text encoder that is trained on nothing in particular."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def encode_items(self, batch: dict[str, Any]) -> Tensor:
        """Return the mean over real tokens."""
        padding = batch["input_ids"] == 0
        states = self.layers(self.embed(batch["input_ids"]), src_key_padding_mask=padding)
        return states.masked_fill(padding[..., None], 0).sum(1) / (~padding).sum(1, keepdim=True)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self.encode_items(batch)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self.encode_items(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Clock:
    """Adds up the seconds spent in functions and generators."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return timed

    def stepping(self, function: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Iterator[Any]:
            steps = function(*args, **kwargs)
            with contextlib.closing(steps):  # type: ignore[type-var]  # a generator
                while True:
                    with self:
                        step = next(steps, None)
                    if step is None:
                        return
                    yield step

        return stepped

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began


def _snapshots(split: Any, texts: Texts, module: Tower) -> tuple[float, float]:
    """Return seconds of the best snapshot in a fit with record and CSV logger, and those of its bookkeeping.

    The first snapshot, which also computes ceilings and placebo, is left out.
    """
    inner, whole, taken = Clock(), Clock(), []
    encode_items, score = snapshot_scorer.encode_items, Scorer.score
    snapshot_scorer.encode_items, Scorer.score = inner.stepping(encode_items), inner.timing(score)  # type: ignore[assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            monitor = LISMonitor(
                split, texts, every_n_steps=1, batch_size=BATCH, collate_fn=collate, ceilings=(), progress=False
            )
            take = monitor._take_snapshot

            def timed(*args: Any, **kwargs: Any) -> Any:
                inner.seconds = whole.seconds = 0.0
                with whole:
                    judgement = take(*args, **kwargs)
                taken.append((whole.seconds, whole.seconds - inner.seconds))
                return judgement

            monitor._take_snapshot = timed  # type: ignore[method-assign]
            loader = DataLoader(texts, batch_size=4, collate_fn=collate)
            _trainer(folder, monitor, max_steps=ROUNDS, logger=CSVLogger(folder)).fit(module, loader)
    finally:
        snapshot_scorer.encode_items, Scorer.score = encode_items, score
    return min(taken[1:], key=lambda one: one[1])


def _encodes(split: Any, texts: Texts, module: Tower) -> dict[str, float]:
    """Return the best seconds of encoding all items: in a fit, by length and not, and by `Trainer.predict`."""
    best = dict.fromkeys(("predict", "as given", "by length"), float("inf"))
    sorted_texts = Sorted(texts.item_ids)
    sorted_texts.tokens = texts.tokens

    class Encodes(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            def encode(items: Texts) -> None:
                batches = make_batches(items, split.item_ids, batch_size=BATCH, collate_fn=collate)
                with undisturbed(pl_module):
                    for _ in encode_items(
                        LightningTraining(trainer), pl_module, batches, lambda m, batch: m.encode_items(batch)
                    ):
                        pass

            def predict() -> None:
                # Its callback point lies after the set-up of a Trainer, as ours does.
                _trainer(trainer.default_root_dir, Took(), logger=False).predict(copied, loader)

            class Took(pl.Callback):
                def on_predict_start(self, *_: Any) -> None:
                    self.began = time.perf_counter()

                def on_predict_end(self, *_: Any) -> None:
                    best["predict"] = min(best["predict"], time.perf_counter() - self.began)

            copied = Tower()
            copied.load_state_dict(copy.deepcopy(pl_module.state_dict()))
            loader = DataLoader(texts, batch_size=BATCH, collate_fn=collate)
            for _ in range(ROUNDS):
                predict()
                for name, items in (("as given", texts), ("by length", sorted_texts)):
                    began = time.perf_counter()
                    encode(items)
                    best[name] = min(best[name], time.perf_counter() - began)

    with tempfile.TemporaryDirectory() as folder:
        loader = DataLoader(texts, batch_size=4, collate_fn=collate)
        _trainer(folder, Encodes(), max_steps=1, logger=False).fit(module, loader)
    return best


def _imports() -> tuple[float, float]:
    """Return median seconds that importing us adds, and those of Lightning before it."""
    code = (
        "import time; a = time.perf_counter(); import pytorch_lightning; b = time.perf_counter(); "
        "import lis_lightning; print(time.perf_counter() - b, b - a)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    ours, others = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
    return statistics.median(ours), statistics.median(others)


def _trainer(folder: str, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    warnings.filterwarnings("ignore", ".*does not have many workers")
    warnings.filterwarnings("ignore", ".*LeafSpec")  # Lightning 2.6 with torch 2.13
    warnings.filterwarnings("ignore", ".*number of training batches")
    return pl.Trainer(
        accelerator="cpu", devices=1, callbacks=list(callbacks), default_root_dir=folder, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit("run `python -m tests.benchmarks --only cost`")
