"""How the score moves with how it is measured: one setting at a time, on the snapshots of finished runs of the study.

python sensitivity.py [--out DIR]      # DIR is that of evidence.py
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
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
from numpy.typing import NDArray
from tables import Run, read, slug, write_table
from worlds import REAL, Halves

from lis_lightning import PreferenceSplit
from lis_lightning.scoring import Scorer
from lis_lightning.scoring.preferences import build_pairs, leave_users_out

WORLDS = ("default", "sparse, cold", REAL)
RECIPES = ("infonce", "distill", "too fast", "few pairs")
Split = Callable[[], PreferenceSplit]
BASE, MEAN = "(as in the study)", "mean of k 8, 16, 32, 64"
DIGITS = {"test events": 0, "AIS": 4, "95 % +-": 4, "ceiling": 4, "Spearman": 2, "seconds": 2}


def settings(halves: Halves, real: bool) -> dict[str, tuple[Split, dict[str, Any]]]:
    """Return by name how a split is cut and what it is scored with: as in the study, and with one thing changed."""
    log, cut = halves.logs[0], partial(halves.to_score, 0)
    time_, label, (_, begin, end) = halves.options["time"], halves.options["label"], halves.cut
    between = log.filter(pl.col(time_).is_between(begin, end, closed="left"))[time_]
    liked = log.filter(pl.col(label[0]) >= label[1]) if real else log.filter(pl.col(label) == 1)
    clicks = replace(halves, logs=[liked])
    variants: dict[str, Split] = {BASE: cut}
    variants |= {f"max_events {events}": partial(cut, max_events=events) for events in (3_000, 10_000)}
    starts = {share: between.quantile(1 - share, "nearest") for share in (0.5, 0.2)}
    variants |= {f"w1 of {share:.0%}": partial(cut, windows=(start, end)) for share, start in starts.items()}
    ends = {share: log[time_].quantile(share, "nearest") for share in (0.6, 0.9)}
    variants |= {f"w2 begins at {share:.0%}": partial(cut, windows=(begin, stop)) for share, stop in ends.items()}
    variants |= {f"history {length}": partial(cut, history=length) for length in (5, 12, 200)}
    variants |= {f"unseen items {share:.0%}": partial(cut, unseen_items=share) for share in (0.0, 0.5)}
    for threshold in (3, 5) if real else ():
        variants[f"label {label[0]} >= {threshold}"] = partial(cut, label=(label[0], threshold))
    for negatives in (1, 4):
        variants[f"clicks alone, negatives {negatives}"] = partial(clicks.to_score, label=None, negatives=negatives)
    return {name: (split, {}) for name, split in variants.items()} | {f"k {k}": (cut, {"k": k}) for k in (8, 16, 32)}


def scored(run: Run, at: NDArray[np.int64], split: PreferenceSplit, **options: Any) -> dict[str, Any]:
    """Score the snapshots of a run on a split, whose items lie at some rows of theirs."""
    began = time.process_time()
    results = [split.score(one[at], ceilings=("pairs",), placebo=False, **options) for one in run["embeddings"]]
    last, curve = results[-1], [one.ais for one in results]
    return {
        "test events": last.num_events, "AIS": last.ais, "95 % +-": (last.ais_high - last.ais_low) / 2,
        "ceiling": last.ceiling.value if last.ceiling else np.nan, "Spearman": agreement(run, curve),
        "seconds": (time.process_time() - began) / len(results), "curve": curve,
    }  # fmt: skip


def agreement(run: Run, curve: Any) -> float:
    return spearman(curve, run["gold"]) if run["moves"] else np.nan


def folded(split: PreferenceSplit, num_folds: int) -> float:
    """Return the ceiling of pairs with another number of folds of users."""
    fold = np.full(split.log.num_users, -1)
    fold[: split.num_users] = split.user_folds(num_folds)["fold"].to_numpy()
    every = np.ones(split.log.user.size, bool)
    leak = leave_users_out(partial(build_pairs, split.log), every, fold[split.log.user], num_folds)
    return Scorer(split).leak_arm(leak).gain.value


def measured(kind: str, runs: list[Run], file: Path) -> list[dict[str, Any]]:
    """Return one row a setting and run of a world; those that are in the file already are not measured again."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    halves = Halves.read(kind, runs[0]["seed"])
    items, known = halves.data.items, {row["setting"] for row in rows}
    assert items is not None  # noqa: S101  # every world of the study has items

    def keep(new: list[dict[str, Any]]) -> None:
        rows.extend({"world": kind} | row for row in new)
        file.with_suffix(".draft").write_text(json.dumps(rows))
        file.with_suffix(".draft").replace(file)
        print(f"{kind}: {new[0]['setting']}", file=sys.stderr, flush=True)

    for name, (cut, options) in settings(halves, kind == REAL).items():
        if name not in known:
            split = cut()
            at = items.rows(split.item_ids)
            keep([{"setting": name, "recipe": run["recipe"]} | scored(run, at, split, **options) for run in runs])
    for folds in (2, 10, 20):
        if f"folds {folds}" not in known:
            keep([{"setting": f"folds {folds}", "ceiling": folded(halves.to_score(), folds)}])
    if MEAN not in known:
        keep([averaged(run, rows) for run in runs])
    return rows


def averaged(run: Run, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the mean over several k."""
    names = (BASE, *(f"k {k}" for k in (8, 16, 32)))
    some = [row for row in rows if row["setting"] in names and row["recipe"] == run["recipe"]]
    mean = np.mean([row["curve"] for row in some], axis=0)
    return {"setting": MEAN, "AIS": mean[-1], "Spearman": agreement(run, mean)}


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
    jobs = [(kind, some, args.out / f"sensitivity-{slug(kind)}.json") for kind, some in by_world.items() if some]
    measurements = Parallel(n_jobs=args.jobs)(delayed(measured)(*job) for job in jobs)
    print(write_table(args.out, "sensitivity", summary(list(chain.from_iterable(measurements)))))


if __name__ == "__main__":
    main()
