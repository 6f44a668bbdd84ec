"""What reads the items: features behind a small net, a pretrained text encoder with adapters, a tiny VLM."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worlds import cache_dir

from lis_lightning.align.data import ItemTable
from lis_lightning.align.models import FeatureEncoder, ItemEncoder, TextEncoder, Tuning, VisionLanguageEncoder

DIM = 32


@dataclass(frozen=True)
class Reader:
    """What reads the items.

    Attributes:
        make: Makes the encoder of a table of items.
        rate: Its highest learning rate.
        batch: Examples a batch.
        steps: Optimizer steps at which snapshots are taken; the last ends the run.
    """

    make: Callable[[ItemTable], ItemEncoder]
    rate: float
    batch: int
    steps: tuple[int, ...]


def _text(items: ItemTable) -> ItemEncoder:
    model = Path(os.environ["LIS_DATA"], "models", "all-MiniLM-L6-v2")
    tuning, options = Tuning("lora"), {"output_dim": DIM, "max_text_tokens": 32}
    return TextEncoder.from_items(items, cache_dir=cache_dir(), model=model, tuning=tuning, **options)


READERS = {
    "features": Reader(
        lambda items: FeatureEncoder.from_items(items, output_dim=DIM, hidden_dim=128),
        1e-2, 64, (0, 10, 20, 40, 80, 120, 160, 200, 300, 400),
    ),
    "vlm": Reader(
        lambda items: VisionLanguageEncoder.from_items(items, cache_dir=cache_dir(), output_dim=DIM),
        5e-3, 64, (0, 10, 20, 40, 80, 120, 160, 200, 300, 400),
    ),
    "text": Reader(_text, 1e-3, 32, (0, 4, 8, 16, 24, 32, 48, 64)),
}  # fmt: skip
