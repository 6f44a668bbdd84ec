"""What all contenders are given of one run: `prepare.py RUN FOLDER`; started by costs.py."""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from contender import Matrix
from numpy.typing import NDArray

from lis_lightning import PreferenceSplit
from lis_lightning.errors import ConfigError
from lis_lightning.results import Record

sys.path.append(str(Path(__file__).parent.parent / "evidence"))  # the study whose runs these are
from neural_rankers import Data
from worlds import ALL, Halves

BINS = 4


def world_of(run: Path) -> tuple[str, int]:
    """Return kind and seed of a run's world, from the name of its folder."""
    kinds = {kind.replace(" ", "_").replace(",", ""): kind for kind in ALL}
    kind, _, seed = [*run.name.split("--"), "", ""][:3]
    if kind not in kinds or not seed.isdigit():
        raise ConfigError(
            f"A run of the study is called KIND--RECIPE--SEED, KIND one of {sorted(kinds)}; got {run.name}"
        )
    return kinds[kind], int(seed)


def click_bins(split: PreferenceSplit) -> NDArray[np.int64]:
    """Return a label for each of `split.item_ids`: the quarter of its click rate before w1; -1 without events there."""
    item = pl.col(split.settings["item"]).alias("item")
    seen = split.alignment.group_by(item).agg(pl.col("label").sum().alias("clicks"), pl.len().alias("shown"))
    prior = float(split.alignment["label"].to_numpy().mean())
    seen = seen.with_columns(
        rate=(pl.col("clicks") + 5 * prior) / (pl.col("shown") + 5)
    )  # a rate of one event is no rate
    edges = np.quantile(seen["rate"].to_numpy(), np.arange(1, BINS) / BINS)
    known = dict(zip(seen["item"].to_list(), np.digitize(seen["rate"].to_numpy(), edges).tolist(), strict=True))
    return np.array([known.get(item, -1) for item in split.item_ids.tolist()])


def prepare(run: Path, folder: Path) -> None:
    """Write `arrays.npz`, `scored.pkl` and `ranked.pkl`: snapshots, and the scored half as two splits."""
    halves = Halves.read(*world_of(run))
    items = halves.data.items
    snapshots: Matrix = np.load(run / "snapshots.npz")["embeddings"]
    began = time.process_time()
    scored = halves.to_score()
    split_seconds = time.process_time() - began
    if Record.read(run / "record.jsonl")[0]["split_hash"] != scored.hash or snapshots.shape[1] != len(items):
        raise ConfigError(f"{run} was made from another world than this code makes by its name; run the study anew")
    began = time.process_time()
    ranked = halves.to_rank(half=0)
    data = Data(ranked)
    rank_seconds = time.process_time() - began
    for name, split in (("scored", scored), ("ranked", ranked)):
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(split))
    names = ("user", "item", "past", "sign", "dense", "label", "train", "test")
    np.savez(
        folder / "arrays.npz",
        scored_snapshots=snapshots[:, items.rows(scored.item_ids)],
        ranked_snapshots=snapshots[:, items.rows(ranked.item_ids)],
        bins=click_bins(scored),
        sizes=data.sizes,
        events=[len(scored.events), len(ranked.events), data.train.numel()],
        one_off=[split_seconds, rank_seconds],
        **{name: getattr(data, name).numpy() for name in names},
    )


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
