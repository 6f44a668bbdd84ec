"""Logs with items to align: generated ones of several kinds, and MovieLens; their users are split in two halves."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning import PreferenceSplit
from lis_lightning.align.data import AlignmentData, load_movielens, load_world
from lis_lightning.align.items import ItemTable
from lis_lightning.align.world import VOCABULARY, generate_world

SIZE: dict[str, Any] = {"num_users": 3000, "num_items": 300, "num_events": 120_000}
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "weak content": {"content_share": 0.3},
    "sparse, cold": {"late_items": 0.8, "recency": 10.0, "num_items": 1200},
    "strong content": {"content_share": 0.95},
    "drift": {"drift": 0.9},
    "few users": {"num_users": 600},
    "no taste": {"taste": 0.0},
}
PICTURES, REAL, TEXTS = "pictures", "ml-100k", "ml-100k, texts"
FEATURES = ("text_minilm", "image_efficientnet_lite0")
READERS = {PICTURES: "vlm", TEXTS: "text"}  # what reads the items; features elsewhere
ALL = (*KINDS, PICTURES, REAL, TEXTS)


@dataclass(frozen=True, eq=False)
class Study:
    """A world as this study sees it.

    Attributes:
        items: What an encoder reads, in one order for both halves.
        reader: The encoder that reads them: features, text, or vlm.
        log: The log of one half of the users: alignment and score see nothing else.
        options: How it is cut.
        scored: The split of it.
        gold: That of the other half, with all events before w2 to train a ranker on.
        content: The latents that content reveals, a row an item; None where nobody knows them.
    """

    items: ItemTable
    reader: str
    log: pl.DataFrame
    options: dict[str, Any]
    scored: PreferenceSplit
    gold: PreferenceSplit
    content: NDArray[np.float32] | None


def study(kind: str, seed: int, size: dict[str, Any] = SIZE) -> Study:
    """Return a world of a kind, its users split in two halves; on MovieLens a seed is a split and no more."""
    if kind in (REAL, TEXTS):
        data, content = load_movielens(features=None if kind == TEXTS else FEATURES, on_bad_image="blank"), None
    elif kind == PICTURES:
        data, content = load_world(cache_dir(), seed=seed, **size), None
    else:
        data, content = generated(kind, seed, size)
    assert data.items is not None  # noqa: S101  # both readers give items
    user, time = data.columns["user"], data.columns["time"]
    users = np.random.default_rng([seed, 21]).permutation(data.log[user].unique().sort().to_numpy())
    halves = [data.log.filter(pl.col(user).is_in(part)) for part in np.array_split(users, 2)]
    cut = [data.log[time].quantile(share, "nearest") for share in (0.1, 0.5, 0.75)]
    common = data.columns | {"seed": seed, "max_events": None}
    options = common | {"windows": (cut[1], cut[2])}
    scored = PreferenceSplit.from_log(halves[0], **options)
    # To the split of the gold half w1 is all that a ranker trains on; the first tenth is history only.
    gold = PreferenceSplit.from_log(halves[1], windows=(cut[0], cut[2]), unseen_items=0.0, history=12, **common)
    return Study(data.items, READERS.get(kind, "features"), halves[0], options, scored, gold, content)


def cache_dir() -> Path:
    """Return where pictures, tiny models and processed items are kept."""
    return Path(os.environ.get("LIS_CACHE", "~/.cache/lis-lightning")).expanduser()


def generated(kind: str, seed: int, size: dict[str, Any]) -> tuple[AlignmentData, NDArray[np.float32]]:
    """Return a generated world whose items have features: attributes and chance, hard to read.

    A random tanh mixture of both: what a linear reader finds at the start is little, and training can find more.
    """
    world = generate_world(None, seed=seed, **size | KINDS[kind])
    rng = np.random.default_rng([seed, 22])
    sizes = [len(values) for values in VOCABULARY.values()]
    codes = zip(world.attributes.T, sizes, strict=True)
    onehot = np.concatenate([np.eye(size)[attribute] for attribute, size in codes], axis=1)
    mixed = np.concatenate([1.5 * onehot, 0.5 * rng.standard_normal((len(onehot), 16))], axis=1)
    features = np.tanh(mixed @ rng.standard_normal((mixed.shape[1], 96)) / 2).astype(np.float32)
    columns = {"user": "user_id", "item": "item_id", "time": "timestamp", "label": "clicked"}
    items = replace(world.items, features=features)
    return AlignmentData(kind, world.log, columns, items, world), world.content_latents
