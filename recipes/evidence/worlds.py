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
from lis_lightning.align.data import AlignmentData, ItemTable, load_movielens
from lis_lightning.align.world import VOCABULARY, World, generate_world, load_world

SIZE: dict[str, Any] = {"num_users": 3000, "num_items": 300, "num_events": 120_000}
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "weak content": {"content_share": 0.3},
    "sparse, cold": {"late_items": 0.8, "recency": 10.0, "num_items": 1200},
    "strong content": {"content_share": 0.95},
    "drift": {"drift": 0.9},
    "few users": {"num_users": 600},
    "no taste": {"taste": 0.0},
    "aisles": {"aisles": 12, "browsing": 0.0},
}
CLICKS = "clicks alone"  # of "sparse, cold": positives, to which negatives are drawn
KINDS[CLICKS] = KINDS["sparse, cold"]
PICTURES, REAL, TEXTS = "pictures", "ml-100k", "ml-100k, texts"
CHANCE = "click_probability"
NEGATIVES = 4  # drawn to a positive, where a log has no others
FEATURES = ("text_minilm", "image_efficientnet_lite0")
READERS = {PICTURES: "vlm", TEXTS: "text"}  # what reads the items; features elsewhere
ALL = (*KINDS, PICTURES, REAL, TEXTS)


@dataclass(frozen=True, eq=False)
class Study:
    """A world as this study sees it.

    Attributes:
        items: What an encoder reads, in one order for both halves.
        reader: The encoder that reads them: features, text, or vlm.
        scored: The split of one half of the users: alignment and score see nothing else.
        gold: That of the other half, with all events before w2 to train a ranker on.
        truth: The generated world, whose rows are in the order of `items`; None where nobody knows the truth.
        chance: True probability of a click at each event of `gold`; None where nobody knows it.
    """

    items: ItemTable
    reader: str
    scored: PreferenceSplit
    gold: PreferenceSplit
    truth: World | None
    chance: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class Halves:
    """The users of a world in two halves, and how their logs are cut; on MovieLens a seed is these halves and no more.

    Attributes:
        data: What was read.
        truth: As of :class:`Study`.
        logs: Of the scored half, and of gold's.
        cut: The times before which a tenth, a half and three quarters of all events lie.
        options: Of every split.
    """

    data: AlignmentData
    truth: World | None
    logs: list[pl.DataFrame]
    cut: list[Any]
    options: dict[str, Any]

    @classmethod
    def read(cls, kind: str, seed: int, size: dict[str, Any] = SIZE) -> Halves:
        """Return the halves of a world of a kind."""
        if kind in (REAL, TEXTS):
            data, truth = load_movielens(features=None if kind == TEXTS else FEATURES, on_bad_image="blank"), None
        elif kind == PICTURES:
            data, truth = load_world(cache_dir(), seed=seed, **size), None
        else:
            data, truth = generated(kind, seed, size)
        user, time = data.columns["user"], data.columns["time"]
        users = np.random.default_rng([seed, 21]).permutation(data.log[user].unique().sort().to_numpy())
        logs = [data.log.filter(pl.col(user).is_in(part)) for part in np.array_split(users, 2)]
        cut = [data.log[time].quantile(share, "nearest") for share in (0.1, 0.5, 0.75)]
        options = data.columns | {"seed": seed, "max_events": None}
        if kind == CLICKS:
            logs = [log.filter(pl.col(data.columns["label"]) == 1) for log in logs]
            options |= {"label": None, "negatives": NEGATIVES}
        return cls(data, truth, logs, cut, options)

    def to_score(self, half: int = 0, **changes: Any) -> PreferenceSplit:
        """Return the split of a half that alignment and score see, or one with other options."""
        windows = {"windows": (self.cut[1], self.cut[2])}
        return PreferenceSplit.from_log(self.logs[half], **self.options | windows | changes)

    def to_rank(self, half: int = 1) -> PreferenceSplit:
        """Return the split of a half that a ranker is trained on: all events before w2, and as much history as it has.

        To the split w1 is all that it trains on; the first tenth is history only.
        """
        windows = (self.cut[0], self.cut[2])
        # A weight changes nothing that gold reads: it carries the true probability of each event through the cut.
        weight = CHANCE if CHANCE in self.logs[half].columns and self.options["label"] else None
        return PreferenceSplit.from_log(
            self.logs[half], windows=windows, unseen_items=0.0, history=12, weight=weight, **self.options
        )


def study(kind: str, seed: int, size: dict[str, Any] = SIZE) -> Study:
    """Return a world of a kind, its users split in two halves."""
    halves = Halves.read(kind, seed, size)
    items, reader = halves.data.items, READERS.get(kind, "features")
    assert items is not None  # noqa: S101  # both readers give items
    gold = halves.to_rank()
    return Study(items, reader, halves.to_score(), gold, halves.truth, gold.events.weight)


def cache_dir() -> Path:
    """Return where pictures, tiny models and processed items are kept."""
    return Path(os.environ.get("LIS_CACHE", "~/.cache/lis-lightning")).expanduser()


def generated(kind: str, seed: int, size: dict[str, Any]) -> tuple[AlignmentData, World]:
    """Return a generated world whose items have features: attributes and chance, hard to read.

    A random tanh mixture of both: what a linear reader finds at the start is little, and training can find more.
    """
    world = generate_world(None, seed=seed, **size | KINDS[kind])
    rng = np.random.default_rng([seed, 22])
    sizes = [len(values) for values in VOCABULARY.values()]
    codes = zip(world.attributes.T, sizes, strict=True)
    onehot = np.concatenate([np.eye(size)[attribute] for attribute, size in codes], axis=1)
    if world.params.aisles > 1:  # content shows the aisle too, which co-engagement rewards and nobody's taste does
        onehot = np.concatenate([onehot, np.eye(world.params.aisles)[world.aisle]], axis=1)
    mixed = np.concatenate([1.5 * onehot, 0.5 * rng.standard_normal((len(onehot), 16))], axis=1)
    features = np.tanh(mixed @ rng.standard_normal((mixed.shape[1], 96)) / 2).astype(np.float32)
    columns = {"user": "user_id", "item": "item_id", "time": "timestamp", "label": "clicked"}
    items = replace(world.items, features=features)
    log = world.log.with_columns(pl.Series(CHANCE, world.click_probability))
    return AlignmentData(kind, log, columns, items, world), world
