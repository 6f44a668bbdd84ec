"""Does the curve predict the ranker? `python evidence.py [--size small|full] [--out DIR]`; a rerun goes on."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from curves import Gold, measure
from tables import write_tables
from training import RECIPES, STEPS
from worlds import ALL, FULL, REAL, SMALL, Study, study

PLANS: dict[str, dict[str, Any]] = {
    "small": {
        "worlds": ALL[:3],
        "recipes": [name for name in RECIPES if name != "hard_negatives"],
        "seeds": 1,
        "size": SMALL,
        "gold_seeds": (0,),
    },
    "full": {"worlds": ALL, "recipes": list(RECIPES), "seeds": 4, "size": FULL, "gold_seeds": (0, 1)},
}


def plan(size: str, worlds: Sequence[str] | None, recipes: Sequence[str] | None) -> dict[str, Any]:
    """Return what a size measures; MovieLens only where it can be read, or where it was asked for."""
    there = [name for name in PLANS[size]["worlds"] if name != REAL or os.environ.get("LIS_DATA")]
    chosen = {"worlds": worlds or there, "recipes": recipes or PLANS[size]["recipes"]}
    return PLANS[size] | chosen


def run(wanted: dict[str, Any], folder: Path, steps: Sequence[int] = STEPS) -> None:
    """Measure every run that has no file yet; a run that is killed leaves none."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    for seed in range(wanted["seeds"]):
        for kind in wanted["worlds"]:
            world: Study | None = None
            for recipe in wanted["recipes"]:
                place = folder / f"{kind}--{recipe}--{seed}.json".replace(" ", "_").replace(",", "")
                if place.exists() or (recipe == "perfect" and kind == REAL):
                    continue
                if world is None:
                    world = study(kind, seed, wanted["size"])
                    gold = Gold(world, wanted["gold_seeds"])

                def say(text: str, name: str = f"{kind}, {recipe}, seed {seed}") -> None:
                    print(f"[{time.perf_counter() - began:6.0f} s] {name}: {text}", file=sys.stderr, flush=True)

                found = {"world": kind, "recipe": recipe, "seed": seed} | measure(world, recipe, seed, gold, say, steps)
                draft = place.with_suffix(".draft")
                draft.write_text(json.dumps(found))
                draft.replace(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(PLANS), default="small")
    parser.add_argument("--out", type=Path, default=None, help="folder of runs and tables; outputs/evidence-SIZE")
    parser.add_argument("--worlds", nargs="+", choices=ALL, help="instead of those of the size")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), help="instead of those of the size")
    args = parser.parse_args()
    torch.set_num_threads(1)  # sums in another order end in other last digits
    folder = args.out or Path("outputs") / f"evidence-{args.size}"
    run(plan(args.size, args.worlds, args.recipes), folder / "runs")
    print(write_tables(folder))


if __name__ == "__main__":
    main()
