"""What it takes to prepare 10,000 pictures of 1600 x 1200 for Qwen2.5-VL, and how far off the printed estimate is.

Fewer pictures are prepared (environment variable PICTURES), and the disk is scaled up. The model is tiny and not run;
its processor is the real one, with at most 1280 tokens of 28 x 28 pixels an image.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from lis_lightning.align.data import ItemTable
from lis_lightning.align.models import VisionLanguageEncoder, preparation, vlm
from lis_lightning.align.models.tiny import train_tokenizer
from tests.align.models import zoo
from tests.benchmarks.row import Row

PICTURES = int(os.environ.get("PICTURES", "400"))
WHOLE = 10_000
MEGABYTES, OFF = 2000, 0.10


def rows() -> Iterator[Row]:
    """Yield megabytes on disk for all pictures, and the relative error of the estimates of time and disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = _items(folder, PICTURES)
        parts = zoo.qwen_vl(train_tokenizer(items.texts))
        with mock.patch.object(vlm, "load_pretrained", return_value=parts):
            encoder = VisionLanguageEncoder("Qwen2.5-VL")
        printed: list[str] = []
        with mock.patch.object(preparation, "note", printed.append), mock.patch.object(preparation, "SLOW", 1.0):
            began = time.perf_counter()
            prepared = encoder.prepare(items, folder / "cache")
            seconds = time.perf_counter() - began
        megabytes = sum(file.stat().st_size for file in (folder / "cache").rglob("*") if file.is_file()) / 1e6
        inputs = encoder.collate([prepared[row] for row in range(8)])
    print(*printed, f"it took {seconds:.1f} s and {megabytes:.3g} MB", sep="\n")
    true_size = sum(value.nbytes for name, value in inputs.items() if name not in {"item_id", "attention_mask"}) / 8e6
    truths = {
        r"about ([\d.]+) s": seconds,
        r"([\d.]+) MB on disk": megabytes,
        r"([\d.]+) tokens": float(inputs["attention_mask"].sum()) / 8,
        r"([\d.]+) MB of inputs an item": true_size,
    }
    what = f"{PICTURES} pictures of 1600 x 1200 for Qwen2.5-VL"
    yield Row(
        what=f"disk for {WHOLE}: {what}", ours=megabytes * WHOLE / PICTURES, kind="limit", bar=MEGABYTES, unit="MB"
    )
    for pattern, truth in truths.items():
        estimate = float(re.findall(pattern, printed[0])[0])
        yield Row(
            what=f"error of the estimate '{pattern}'", ours=abs(estimate / truth - 1), kind="limit", bar=OFF, unit=""
        )


def _items(folder: Path, count: int) -> ItemTable:
    """Return items with pictures like photographs: smooth, with noise; of 300 to 500 KB as JPEG."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 8, (1200, 1600, 3)).astype(np.int16)
    paths = []
    for number in range(count):
        blurred = generator.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(blurred).resize((1600, 1200), Image.Resampling.BICUBIC), dtype=np.int16)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(paths[-1], quality=80)
    return ItemTable(np.arange(count), tuple(f"picture number {number}" for number in range(count)), tuple(paths))
