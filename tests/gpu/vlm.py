"""Snapshots of a 3 B vision-language model in LoRA fine-tuning: speed of the encode, memory, share of the training.

The model is a Qwen2.5-VL with the sizes of its 3 B checkpoint and random weights, made on the device in bfloat16. Items
are tensors of the shapes that its processor gives, made once, so that no time goes into images and tokens.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.monitor.batches import make_batches
from lis_lightning.monitor.callback import LISMonitor
from lis_lightning.monitor.encoding import encode_items
from lis_lightning.monitor.isolation import undisturbed
from lis_lightning.monitor.lightning_training import LightningTraining
from lis_lightning.monitor.schedule import Budget, EverySteps
from tests.gpu.row import Row

SHARE = 0.05  # of the Budget
PAD, IMAGE, VISION_START, VISION_END = 0, 1, 2, 3  # token ids
FIRST_WORD = 10


@dataclass(frozen=True)
class Sizes:
    """Sizes of model, data and training.

    Attributes:
        text: Language model, as the fields of its config.
        vision: Vision tower, likewise.
        patches: Patches of an image along one side, of 14 pixels.
        words: Most tokens of an item's text.
        items: Items of the split.
        events: Scored events of the split.
        train_batch: Items of a training batch, two for each pair.
        encode_batch: Items encoded at once.
        seconds: Length of each measured training.
    """

    text: dict[str, Any]
    vision: dict[str, Any]
    patches: int
    words: int
    items: int
    events: int
    train_batch: int
    encode_batch: int
    seconds: float


LARGE = Sizes(  # text and vision as in Qwen/Qwen2.5-VL-3B-Instruct
    text={
        "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 2, "vocab_size": 151936, "max_window_layers": 70,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    vision={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048},
    patches=16, words=64, items=96, events=20_000, train_batch=16, encode_batch=48, seconds=80,
)  # fmt: skip
TINY = Sizes(
    text={
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 200, "max_window_layers": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    },
    vision={
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
        "fullatt_block_indexes": [1],
    },
    patches=4, words=8, items=40, events=800, train_batch=4, encode_batch=16, seconds=0.5,
)  # fmt: skip


def rows(device: str, *, tiny: bool) -> Iterator[Row]:
    """Yield the rows of the encode, of memory, of identity, and of the share of a training."""
    sizes = TINY if tiny else LARGE
    pl.seed_everything(0, verbose=False)
    network = make_network(sizes, device)
    module = Tuned(network)
    study = Study(sizes, device, module, Items(sizes), make_split(sizes))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    yield _row("parameters of the model", parameters / 1e9, "B", f"{study.memory() / 2**30:.1f} GiB on the device")
    for part in (study.encode_rows, study.identity_rows, study.share_rows):
        try:
            yield from part()
        except Exception as error:  # the other parts still run
            traceback.print_exc(file=sys.stdout)
            yield _row(f"{part.__name__} failed", math.nan, note=f"{type(error).__name__}: {error}", bar=0)


def _row(what: str, value: float, unit: str = "", note: str = "", bar: float | None = None) -> Row:
    return Row(section="vlm", what=what, value=value, unit=unit, bar=bar, note=note)


# --- model and data --------------------------------------------------------------------------------------------------


def make_network(sizes: Sizes, device: str) -> nn.Module:
    """Return the model in bfloat16 with LoRA adapters in float32, on the device from the beginning."""
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

    config = Qwen2_5_VLConfig(
        text_config=sizes.text,
        vision_config=sizes.vision,
        image_token_id=IMAGE,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )
    with torch.device(device):
        network = Qwen2_5_VLModel._from_config(config, dtype=torch.bfloat16)
    target = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj)"
    return get_peft_model(network, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=target))


class Tuned(pl.LightningModule):
    """A contrastive fine-tuning: the two items of each pair in a batch are pulled together."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def cpu(self) -> Tuned:
        """Stay on the device, where a Trainer would move the module to the CPU at its end."""
        return self

    def encode_items(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean of the last hidden states over all tokens."""
        inputs = {name: value for name, value in batch.items() if name != "item_id"}
        states = self.network(**inputs, use_cache=False).last_hidden_state
        mask = batch["attention_mask"][..., None]
        return (states.float() * mask).sum(1) / mask.sum(1)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.encode_items(batch)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        vectors = nn.functional.normalize(self.encode_items(batch))
        logits = vectors[::2] @ vectors[1::2].T / 0.05
        return nn.functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trained, lr=1e-4)

    def adapters(self) -> dict[str, Tensor]:
        """Return the trained parameters."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


class Items(Dataset[dict[str, Tensor]]):
    """Items as a processor returns them: patches of an image, and the tokens of image and text."""

    def __init__(self, sizes: Sizes) -> None:
        generator = torch.Generator().manual_seed(0)
        self.item_ids = list(range(sizes.items))
        self.sizes = sizes
        width = 3 * 2 * 14 * 14  # channels x frames x pixels of a patch
        self.pixels = torch.randn(sizes.items, sizes.patches**2, width, generator=generator).to(torch.bfloat16)
        self.words = torch.randint(sizes.words // 2, sizes.words + 1, (sizes.items,), generator=generator).tolist()
        self.tokens = torch.randint(
            FIRST_WORD, sizes.text["vocab_size"], (sizes.items, sizes.words), generator=generator
        )

    def __len__(self) -> int:
        return len(self.item_ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        image = torch.full((self.sizes.patches**2 // 4,), IMAGE)  # 2 x 2 patches are merged to one token
        parts = [torch.tensor([VISION_START]), image, torch.tensor([VISION_END]), self.tokens[row, : self.words[row]]]
        return {"item_id": row, "input_ids": torch.cat(parts), "pixel_values": self.pixels[row]}

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return a batch, padded to its longest item."""
        tokens = nn.utils.rnn.pad_sequence([item["input_ids"] for item in items], batch_first=True, padding_value=PAD)
        grid = torch.tensor([1, self.sizes.patches, self.sizes.patches])
        return {
            "item_id": torch.tensor([item["item_id"] for item in items]),
            "input_ids": tokens,
            "attention_mask": (tokens != PAD).long(),
            "mm_token_type_ids": (tokens == IMAGE).int(),
            "pixel_values": torch.cat([item["pixel_values"] for item in items]),
            "image_grid_thw": grid.expand(len(items), 3).contiguous(),
        }


def make_split(sizes: Sizes) -> PreferenceSplit:
    """Return a split on random clicks, whose scored events are the second half of the log."""
    rng = np.random.default_rng(0)
    num_rows = 2 * sizes.events
    log = {
        "user_id": rng.integers(0, max(20, num_rows // 100), num_rows),
        "item_id": rng.integers(0, sizes.items, num_rows),
        "timestamp": np.arange(num_rows),
        "label": rng.integers(0, 2, num_rows),
    }
    return PreferenceSplit.from_log(polars.DataFrame(log))


# --- measurements ----------------------------------------------------------------------------------------------------


class Clock(pl.Callback):
    """Times the steps from the first to the last; the raw snapshot before them and the one after are not in it."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.limit = seconds
        self.seconds = 0.0
        self.steps = 0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if not self.steps:
            _wait(trainer)
            self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.steps += 1
        # Waiting keeps the processor from running ahead of the device, which would hide what a snapshot costs.
        _wait(trainer)
        self.seconds = time.perf_counter() - self.began
        trainer.should_stop = trainer.should_stop or self.seconds > self.limit


def _wait(trainer: pl.Trainer) -> None:
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()


@dataclass
class Study:
    """The measurements on one module.

    Attributes:
        sizes: Sizes of the training.
        device: ``"cuda"`` or ``"cpu"``.
        module: The module, which stays on the device throughout.
        items: Its items.
        split: The split that it is scored on.
    """

    sizes: Sizes
    device: str
    module: Tuned
    items: Items
    split: PreferenceSplit

    def encode_rows(self) -> Iterator[Row]:
        """Yield items per second of our encode and of `Trainer.predict` with the same batches, and their memory."""
        ours, predict = math.inf, math.inf
        peaks = {}
        for _ in range(2):  # in turns; the first of each also loads kernels
            self.start_memory()
            predict = min(predict, self.predict_seconds())
            peaks["predict"] = self.added_memory()
            self.start_memory()
            ours = min(ours, self.encode_seconds())
            peaks["ours"] = self.added_memory()
        count = self.split.num_items
        yield _row(
            "encode", count / ours, "items/s", f"{count} items, batches of {self.sizes.encode_batch}, bf16-mixed"
        )
        yield _row("Trainer.predict, the same batches", count / predict, "items/s", f"best of 2, {predict:.2f} s")
        yield _row("encode, seconds / those of predict", ours / predict, bar=self.bar(1.1))
        yield _row("peak memory of encode", peaks["ours"], "GiB", f"beyond the model; predict {peaks['predict']:.2f}")

    def predict_seconds(self) -> float:
        """Return the seconds of `Trainer.predict` without its set-up."""

        class Took(pl.Callback):
            def on_predict_start(self, *_: Any) -> None:
                self.began = time.perf_counter()

            def on_predict_end(self, trainer: pl.Trainer, *_: Any) -> None:
                _wait(trainer)
                self.seconds = time.perf_counter() - self.began

        took = Took()
        with tempfile.TemporaryDirectory() as folder:
            self.trainer(folder, took).predict(self.module, self.loader(self.sizes.encode_batch))
        return took.seconds

    def encode_seconds(self) -> float:
        """Return the seconds of our encode, inside a fit."""
        split, items, batch_size = self.split, self.items, self.sizes.encode_batch

        class Encodes(pl.Callback):
            def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
                batches = make_batches(items, split.item_ids, batch_size=batch_size, collate_fn=items.collate)
                began = time.perf_counter()
                with undisturbed(pl_module):
                    for _ in encode_items(
                        LightningTraining(trainer), pl_module, batches, lambda m, batch: m.encode_items(batch)
                    ):
                        pass
                _wait(trainer)
                self.seconds = time.perf_counter() - began
                trainer.should_stop = True

        encodes = Encodes()
        self.fit(encodes, max_steps=1)
        return encodes.seconds

    def identity_rows(self) -> Iterator[Row]:
        """Yield the number of adapter weights that differ after 6 steps with a monitor."""
        start = {name: value.detach().clone() for name, value in self.module.adapters().items()}

        def trained(*callbacks: pl.Callback) -> dict[str, Tensor]:
            with torch.no_grad():
                for name, value in self.module.adapters().items():
                    value.copy_(start[name])
            pl.seed_everything(3, verbose=False)
            self.fit(*callbacks, max_steps=6, deterministic=True)
            return {name: value.detach().clone() for name, value in self.module.adapters().items()}

        enabled = torch.are_deterministic_algorithms_enabled()
        try:
            alone, again, watched = trained(), trained(), trained(self.monitor(EverySteps(2)))
        finally:
            torch.use_deterministic_algorithms(enabled)
        repeats = sum(not torch.equal(alone[name], again[name]) for name in alone)
        differing = sum(not torch.equal(alone[name], watched[name]) for name in alone)
        moved = sum(not torch.equal(alone[name], start[name]) for name in alone)
        note = f"of {len(alone)}; {moved} were trained; {repeats} differ between two trainings without a monitor"
        yield _row("adapter tensors that differ with a monitor, 6 steps", differing, bar=0, note=note)

    def share_rows(self) -> Iterator[Row]:
        """Yield what a monitor with a Budget adds to a training of fixed length, scoring at once or in background."""
        self.fit(Clock(), max_steps=3)  # warm
        self.start_memory()
        clock = Clock(self.sizes.seconds)
        self.fit(clock)
        alone, steps = clock.seconds / clock.steps, clock.steps
        peak = self.added_memory()
        items = steps * self.sizes.train_batch / clock.seconds
        note = f"{clock.seconds:.1f} s, {items:.1f} items/s, peak memory + {peak:.2f} GiB"
        yield _row(f"training alone, {steps} steps of {self.sizes.train_batch} items", 1e3 * alone, "ms/step", note)
        for background in (None, 2 if self.sizes is TINY else 20):
            monitor = self.monitor(Budget(SHARE), background_steps=background, name="timed")
            clock = Clock()
            self.start_memory()
            began = time.perf_counter()
            self.fit(monitor, clock, max_steps=steps)
            whole = time.perf_counter() - began
            added = self.added_memory() - peak
            share = 1 - alone * steps / clock.seconds
            kind = "scores at once" if background is None else f"scores in background, read {background} steps later"
            scored = [result for result in monitor.results if 0 < result.step < steps]
            costs = ", ".join(f"{one.encode_seconds:.2f}+{one.score_seconds:.2f}" for one in monitor.results)
            note = f"{len(scored)} within the training; encode+score of all: {costs} s; fit {whole:.0f} s"
            yield _row(f"share of training time, Budget({SHARE}), {kind}", share, note=note, bar=self.bar(SHARE + 0.01))
            yield _row(f"memory added to the training's peak, {kind}", added, "GiB")
            if monitor.last_error:
                yield _row(f"failure, {kind}", math.nan, note=monitor.last_error)

    def bar(self, value: float) -> float | None:
        """Return the bar of a time; None for tiny sizes, whose times mean nothing."""
        return None if self.sizes is TINY else value

    def monitor(self, schedule: Any, **options: Any) -> LISMonitor:
        """Return a monitor that scores the items."""
        return LISMonitor(
            self.split, self.items, schedule=schedule, batch_size=self.sizes.encode_batch, ceilings=(), placebo=False,
            collate_fn=self.items.collate, progress=False, **options,
        )  # fmt: skip

    def fit(self, *callbacks: pl.Callback, max_steps: int = -1, **options: Any) -> None:
        """Train from the present weights."""
        with tempfile.TemporaryDirectory() as folder:
            loader = self.loader(self.sizes.train_batch, shuffle=True)
            self.trainer(folder, *callbacks, max_steps=max_steps, **options).fit(self.module, loader)

    def trainer(self, folder: str, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
        """Return a quiet Trainer in bf16-mixed."""
        accelerator = "gpu" if self.device == "cuda" else "cpu"
        return pl.Trainer(
            accelerator=accelerator, devices=1, precision="bf16-mixed", callbacks=list(callbacks), logger=False,
            default_root_dir=folder, enable_checkpointing=False, enable_progress_bar=False, max_epochs=-1,
            enable_model_summary=False, **options,
        )  # fmt: skip

    def loader(self, batch_size: int, **options: Any) -> DataLoader[Any]:
        """Return a loader of the items."""
        return DataLoader(self.items, batch_size=batch_size, collate_fn=self.items.collate, **options)

    def memory(self) -> float:
        """Return the bytes in use on the device; NaN on a CPU."""
        return torch.cuda.memory_allocated() if self.device == "cuda" else math.nan

    def start_memory(self) -> None:
        """Start to measure the peak of memory."""
        self._before = self.memory()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def added_memory(self) -> float:
        """Return the peak since :meth:`start_memory` beyond what was in use then, in GiB; NaN on a CPU."""
        if self.device != "cuda":
            return math.nan
        return (torch.cuda.max_memory_allocated() - self._before) / 2**30
