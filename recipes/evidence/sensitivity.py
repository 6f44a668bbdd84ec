"""How the score moves with how it is measured: one setting at a time, on the snapshots of finished runs of the study.

python sensitivity.py [--out DIR]      # DIR is that of evidence.py
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from arithmetic import shown, spearman
from joblib import Parallel, delayed
from tables import Run, read, write_table
from worlds import REAL, Halves

from lis_lightning import PreferenceSplit
from lis_lightning.ceiling import leak_arm
from lis_lightning.leaks import build_pairs, cross_fit

WORLDS = ("default", "weak content", "sparse, cold", REAL)
RECIPES = ("infonce", "distill", "too fast", "few pairs")
BASE = "(as in the study)"
DIGITS = {"test events": 0, "AIS": 4, "95 % +-": 4, "ceiling": 4, "Spearman": 2, "seconds": 2}


def splits(halves: Halves, real: bool) -> Iterator[tuple[str, PreferenceSplit]]:
    """Return the split of the study, and others that differ from it in one setting."""
    log, cut = halves.logs[0], partial(halves.to_score, 0)
    time_, label, (_, begin, end) = halves.options["time"], halves.options["label"], halves.cut
    yield BASE, cut()
    for events in (3_000, 10_000):
        yield f"max_events {events}", cut(max_events=events)
    between = log.filter(pl.col(time_).is_between(begin, end, closed="left"))[time_]
    for share in (0.5, 0.2):
        yield f"w1 of {share:.0%}", cut(windows=(between.quantile(1 - share, "nearest"), end))
    for share in (0.6, 0.9):
        yield f"w2 begins at {share:.0%}", cut(windows=(begin, log[time_].quantile(share, "nearest")))
    for length in (5, 12, 200):
        yield f"history {length}", cut(history=length)
    for share in (0.0, 0.5):
        yield f"unseen items {share:.0%}", cut(unseen_items=share)
    if real:
        for threshold in (3, 5):
            yield f"label {label[0]} >= {threshold}", cut(label=(label[0], threshold))
    liked = log.filter(pl.col(label[0]) >= label[1]) if real else log.filter(pl.col(label) == 1)
    clicks = replace(halves, logs=[liked])
    for negatives in (1, 4):
        yield f"clicks alone, negatives {negatives}", clicks.to_score(label=None, negatives=negatives)


def scored(run: Run, rows: Callable[[PreferenceSplit], Any], split: PreferenceSplit, **options: Any) -> dict[str, Any]:
    """Score the snapshots of a run on a split."""
    began, at = time.process_time(), rows(split)
    results = [split.score(one[at], ceilings=("pairs",), placebo=False, **options) for one in run["embeddings"]]
    last, curve = results[-1], [one.ais for one in results]
    return {
        "test events": last.num_events, "AIS": last.ais, "95 % +-": (last.ais_high - last.ais_low) / 2,
        "ceiling": last.ceiling.value if last.ceiling else np.nan, "Spearman": agreement(run, curve),
        "seconds": (time.process_time() - began) / len(results), "curve": curve,
    }  # fmt: skip


def agreement(run: Run, curve: Any) -> float:
    """Return how a curve agrees with gold, where gold moves."""
    return spearman(curve, run["gold"]) if run["moves"] else np.nan


def folded(split: PreferenceSplit, num_folds: int) -> float:
    """Return the ceiling of pairs with another number of folds of users."""
    fold = np.full(split.log.num_users, -1)
    fold[: split.num_users] = split.user_folds(num_folds)["fold"].to_numpy()
    every = np.ones(split.log.user.size, bool)
    leak = cross_fit(partial(build_pairs, split.log), every, fold[split.log.user], num_folds)
    return leak_arm(split, leak)[0].gain.value


def measured(kind: str, runs: list[Run]) -> list[dict[str, Any]]:
    """Return one row a setting and run of a world."""
    torch.set_num_threads(1)
    halves, rows = Halves.read(kind, runs[0]["seed"]), []
    items, base = halves.data.items, halves.to_score()
    assert items is not None  # noqa: S101  # every world of the study has items

    def place(split: PreferenceSplit) -> Any:
        return items.rows(split.item_ids)

    for name, split in splits(halves, kind == REAL):
        rows += [{"setting": name, "world": kind} | scored(run, place, split) for run in runs]
        print(f"{kind}: {name}", flush=True)
    curves = [[row["curve"]] for row in rows[: len(runs)]]  # of the setting of the study, k 16
    for k in (4, 8, 32):
        new = [{"setting": f"k {k}", "world": kind} | scored(run, place, base, k=k) for run in runs]
        rows += new
        curves = [[*known, row["curve"]] for known, row in zip(curves, new, strict=True)]
    for run, known in zip(runs, curves, strict=True):
        mean = np.mean(known, axis=0)
        row = {"setting": "mean of k 4, 8, 16, 32", "world": kind, "AIS": mean[-1]}
        rows.append(row | {"Spearman": agreement(run, mean)})
    for folds in (2, 10, 20):
        rows.append({"setting": f"folds {folds}", "world": kind, "ceiling": folded(base, folds)})
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over runs of each setting."""
    table = []
    for name in dict.fromkeys(row["setting"] for row in rows):
        some = [row for row in rows if row["setting"] == name]
        worlds = [row["world"] for row in some]
        row = {"setting": name, "worlds": len(set(worlds))}
        for key, digits in DIGITS.items():
            row[key] = shown([one.get(key, np.nan) for one in some], worlds, digits)
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence-small"), help="folder of a study")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes; one world each")
    args = parser.parse_args()
    runs = [run for run in read(args.out / "runs") if run["recipe"] in RECIPES and run["seed"] == 0]
    for run in runs:
        run["embeddings"] = np.load(run["place"] / "snapshots.npz")["embeddings"]
    by_world = {kind: [run for run in runs if run["world"] == kind] for kind in WORLDS}
    found = Parallel(n_jobs=args.jobs)(delayed(measured)(kind, some) for kind, some in by_world.items() if some)
    print(write_table(args.out, "sensitivity", summary(list(chain.from_iterable(found)))))


if __name__ == "__main__":
    main()
