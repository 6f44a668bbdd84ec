"""What do semantic IDs keep of a ranker's gain? Known truth and MovieLens: `python semantic_ids.py [--seeds 10 11]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning import PreferenceSplit
from lis_lightning.align.data import load_movielens
from lis_lightning.align.world import generate_world
from lis_lightning.results import LISResult
from lis_lightning.scoring import ScoreOptions, Scorer
from lis_lightning.scoring.reads import CodeTable, Prefixes, Read, SemanticIds

Vectors = NDArray[np.float32]
CATALOGUES = (300, 2000)
NOISE = {"clean": 0.05, "noisy": 0.3}  # spread of each of 100 dimensions of chance, in spreads of the truth
WORLD = {"num_users": 3000, "num_events": 120_000}


def readings(item_ids: NDArray[Any], seed: int) -> dict[str, Read | str]:
    """Return codes of which the truth is known to be good, poor and nothing, and what else a ranker may read."""
    rng = np.random.default_rng(seed)
    size = len(item_ids)

    def table(*codes: NDArray[np.int64]) -> CodeTable:
        levels = {f"level_{number}": code for number, code in enumerate(codes)}
        return CodeTable(pl.DataFrame({"item_id": item_ids} | levels))

    return {
        "codes": SemanticIds(),
        "one_level": SemanticIds(levels=1),
        "two_codes": SemanticIds(levels=1, size=2),
        "one_code": table(np.zeros(size, np.int64)),
        "random": table(*rng.integers(0, 16, (3, size))),
        "random_level": table(rng.integers(0, 16, size)),
        "an_id_each": table(np.arange(size)),
        "cosine": "cosine",
        "prefix": Prefixes([64, 128, 256]),
    }


def worlds(seeds: list[int]) -> Iterator[tuple[str, PreferenceSplit, Vectors]]:
    """Yield generated worlds, whose representations are the truth beside noise, and MovieLens where it is at hand."""
    for seed in seeds:
        for num_items in CATALOGUES:
            world = generate_world(None, seed=seed, num_items=num_items, **WORLD)
            split = PreferenceSplit.from_log(world.log, label="clicked", max_events=None)
            truth = world.item_latents[world.items.rows(split.item_ids)]
            for name, spread in NOISE.items():
                noise = np.random.default_rng(seed).standard_normal((len(truth), 100)) * spread * truth.std()
                vectors = np.concatenate([truth, noise], axis=1).astype(np.float32)
                yield f"{num_items} items, {name}, seed {seed}", split, vectors
    if os.environ.get("LIS_DATA"):
        data = load_movielens(features=("text_minilm",), on_bad_image="blank")
        split = PreferenceSplit.from_log(data.log, **data.columns, max_events=None)
        yield "ml-100k, MiniLM", split, np.asarray(data.items.features[data.items.rows(split.item_ids)], np.float32)


def table(results: dict[str, LISResult]) -> str:
    """Return the share of the gain that each reading keeps, one row a reading, as Markdown."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.reads))
    lines = [f"| reading | {' | '.join(results)} |", "| --- |" + " --- |" * len(results)]
    gains = [f"{result.ais:.4f}" for result in results.values()]
    lines.append(f"| (AIS of the vectors) | {' | '.join(gains)} |")
    for name in names:
        cells = [_share(result, name) for result in results.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(result: LISResult, name: str) -> str:
    reading = result.reads.get(name)
    if reading is None:
        return ""
    return f"{reading.retained:.2f} [{reading.retained_low:.2f}, {reading.retained_high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11], help="of the generated worlds")
    args = parser.parse_args()
    results = {}
    for name, split, vectors in worlds(args.seeds):
        print(name, file=sys.stderr)
        options = ScoreOptions(ceilings=(), placebo=False, reads=readings(split.item_ids, 0))
        results[name] = Scorer(split, cache_dir="off").score(vectors, options)
    print(table(results))


if __name__ == "__main__":
    main()
