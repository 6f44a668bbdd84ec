"""Does the curve predict the ranker? `python evidence.py [--size small|full] [--out DIR]`; a rerun goes on."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from alignments import CONSTRUCTED, RECIPES
from curves import Gold, measure
from joblib import Parallel, delayed
from tables import slug, write_tables
from worlds import ALL, KINDS, PICTURES, REAL, SIZE, TEXTS, study

FEW = ("infonce", "shuffled")  # of encoders that take minutes a run


class Job(NamedTuple):
    """Runs of one world, which share its gold rankers."""

    kind: str
    seed: int
    recipes: tuple[str, ...]


def plan(size: str) -> list[Job]:
    """Return what a size measures; thresholds may be chosen on the first half of the made worlds, so they come first.

    MovieLens is measured only where it can be read.
    """
    if size == "small":  # in six parts, for two processes
        parts = tuple(RECIPES)[::2], tuple(RECIPES)[1::2]
        return [Job(kind, 0, part) for kind in list(KINDS)[:3] for part in parts]
    first, second = ([Job(kind, seed, tuple(RECIPES)) for kind in KINDS] for seed in range(2))
    real = [Job(TEXTS, 0, FEW), *(Job(REAL, seed, tuple(RECIPES)) for seed in range(3))]
    return [*first, *(real if os.environ.get("LIS_DATA") else []), Job(PICTURES, 0, FEW), *second]


def run(
    job: Job,
    folder: Path,
    *,
    gold_seeds: Sequence[int] = (0, 1),
    size: dict[str, Any] = SIZE,
    steps: Sequence[int] = (),
    began: float = 0.0,
) -> None:
    """Measure what has not been measured yet of the runs of a job."""
    torch.set_num_threads(1)  # sums in another order end in other last digits
    kind, seed, recipes = job
    world, places = cache(partial(study, kind, seed, size)), {}
    for recipe in recipes:
        if recipe not in ("perfect", CONSTRUCTED) or kind in KINDS:  # the truth is known of generated features alone
            places[recipe] = folder / f"{slug(kind)}--{slug(recipe)}--{seed}"
    gold = cache(lambda: Gold(world(), gold_seeds))
    for recipe, run_folder in places.items():
        if all((run_folder / name).exists() for name in ("snapshots.npz", "gold.json", "record.jsonl")):
            continue

        def say(text: str, name: str = f"{kind}, {recipe}, seed {seed}") -> None:
            print(f"[{time.time() - began:6.0f} s] {name}: {text}", file=sys.stderr, flush=True)

        measure(world(), recipe, seed, gold, run_folder, say, steps)


def chosen(jobs: list[Job], worlds: Sequence[str] | None, recipes: Sequence[str] | None) -> list[Job]:
    """Return the jobs of some worlds, with some recipes."""
    if worlds:
        planned = {job.kind for job in jobs}
        others = [Job(kind, 0, tuple(RECIPES)) for kind in worlds if kind not in planned]
        jobs = [*(job for job in jobs if job.kind in worlds), *others]
    if recipes:  # one job a world: the parts of a size would measure the same runs
        jobs = [Job(*world, tuple(recipes)) for world in dict.fromkeys(job[:2] for job in jobs)]
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small")
    parser.add_argument("--out", type=Path, default=None, help="folder of runs and tables; outputs/evidence-SIZE")
    parser.add_argument("--worlds", nargs="+", choices=ALL, help="some of those of the size, or others, once")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the worlds, instead of those of the size")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), help="instead of those of the size")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--rescore", action="store_true", help="score anew: snapshots and gold stay")
    args = parser.parse_args()
    folder = (args.out or Path("outputs") / f"evidence-{args.size}").resolve()
    if args.rescore:
        for record in folder.glob("runs/*/record.jsonl"):
            record.unlink()
    jobs = chosen(plan(args.size), args.worlds, args.recipes)
    if args.seeds is not None:
        seedless = dict.fromkeys((job.kind, job.recipes) for job in jobs)
        jobs = [Job(kind, seed, recipes) for kind, recipes in seedless for seed in args.seeds]
    measuring = partial(run, folder=folder / "runs", began=time.time())
    Parallel(n_jobs=args.jobs)(delayed(measuring)(job) for job in jobs)
    print(write_tables(folder))


if __name__ == "__main__":
    main()
