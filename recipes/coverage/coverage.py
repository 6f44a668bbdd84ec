"""Do the intervals hold? Draw users over and over from worlds whose items are fixed: `python coverage.py [--quick]`."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import binomtest

from lis_lightning import PreferenceSplit
from lis_lightning.align.world import simulate_world
from lis_lightning.functional import Estimate, cluster_interval, fieller_ratio, paired_difference
from lis_lightning.results import LISResult, corrected_best, judge

NUM_USERS = 200  # of each draw
POPULATION = 20  # times as many users to draw from
EQUALS = 5  # equally good snapshots, as of a run on a plateau
WORLDS: dict[str, dict[str, float]] = {
    "dense": {"num_items": 150, "num_events": 16_000},
    "sparse": {"num_items": 800, "num_events": 10_000, "late_items": 0.5},
    "rare clicks": {"num_items": 250, "num_events": 20_000, "click_rate": 0.1},
}
Row = tuple[str, int, str, float, float, float, float, float]
COLUMNS = ("world", "draw", "what", "value", "low", "high", "low_test", "high_test")


@cache
def population(world: str) -> tuple[pl.DataFrame, dict[str, NDArray[Any]]]:
    """Return the events of all users of a world, and its truth."""
    params = WORLDS[world]
    return simulate_world(
        **params | {"num_users": NUM_USERS * POPULATION, "num_events": int(params["num_events"]) * POPULATION}
    )


def representations(item_ids: NDArray[Any], truth: dict[str, NDArray[Any]], draw: int) -> dict[str, NDArray[Any]]:
    """Return snapshots by name: the same at every draw, but for the `equal` ones, whose noise is fresh."""
    row = item_ids - 1
    content, fixed = truth["content_latents"].astype(float), np.random.default_rng(5)
    noise = content.std() * fixed.standard_normal((3, *content.shape))
    vectors = {"content": content, "noisy": content + noise[0], "noisier": content + 2 * noise[1], "nothing": noise[2]}
    fresh = content.std() * np.random.default_rng([draw, 6]).standard_normal((EQUALS, *content.shape))
    return {name: x[row] for name, x in vectors.items()} | {
        f"equal {i}": content[row] + x[row] for i, x in enumerate(fresh)
    }


def one_draw(world: str, draw: int) -> list[Row]:
    """Score one draw of users: windows, base, ceilings and probe are all made anew."""
    log, truth = population(world)
    chosen = np.random.default_rng([draw, 7]).choice(NUM_USERS * POPULATION, NUM_USERS, replace=False) + 1
    log = log.filter(pl.col("user_id").is_in(chosen))
    split = PreferenceSplit.from_log(log, label="clicked")
    vectors = representations(split.item_ids, truth, draw)
    results = {n: split.score(x, placebo=False, cache_dir="off") for n, x in vectors.items()}
    return [(world, draw, *measured) for measured in quantities(results, split.num_users)]


def quantities(results: dict[str, LISResult], num_users: int) -> Iterator[tuple[Any, ...]]:
    """Yield estimates with their intervals: as they are, and as they were if only test users were drawn."""
    known = {f"AIS {n}": (r.ais, r.influence) for n, r in results.items() if not n.startswith("equal")}
    known |= {f"ceiling {n}": (limit.value, limit.influence) for n, limit in results["content"].ceilings.items()}
    for name, (value, influence) in known.items():
        yield name, *_bounds(cluster_interval(value, influence), cluster_interval(value, influence[:num_users]))
    differences = ("AIS content", "AIS noisy"), ("AIS noisy", "AIS noisier"), ("ceiling pairs", "AIS content")
    ways = [("-", paired_difference, *pair) for pair in differences]
    ways += [("/", fieller_ratio, part, "ceiling pairs") for part in ("AIS content", "AIS noisy")]
    for sign, of, first, second in ways:
        (a, influence_a), (b, influence_b) = known[first], known[second]
        test = of(a, influence_a[:num_users], b, influence_b[:num_users])
        yield f"{first} {sign} {second}", *_bounds(of(a, influence_a, b, influence_b), test)
    plateau = [result for name, result in results.items() if name.startswith("equal")]
    change = plateau[1].compare(plateau[0])
    equals = [cluster_interval(result.ais, result.influence) for result in plateau]
    picked = max(equals, key=lambda estimate: estimate.value), corrected_best(plateau)
    for name, estimate in zip(("", ", best", ", best, corrected"), (equals[0], *picked), strict=True):
        yield f"AIS equal{name}", *_bounds(estimate, estimate)
    yield "null: one equal - another", change.value, change.low, change.high, np.nan, np.nan
    yield "null: verdict improving", float(judge(plateau).verdict == "improving"), *[np.nan] * 4


def _bounds(whole: Estimate, test: Estimate) -> tuple[float, float, float, float, float]:
    return whole.value, whole.low, whole.high, test.low, test.high


def table(rows: pl.DataFrame) -> pl.DataFrame:
    """Return for each world and quantity how often the intervals hold the mean over draws; of nulls, 0."""
    kind, unpicked = pl.col("what").str.replace(", best.*", ""), ~pl.col("what").str.contains(", best")
    rows = rows.with_columns(truth=pl.when(unpicked).then("value").mean().over("world", kind))
    center = pl.when(pl.col("what").str.starts_with("null")).then(0.0).otherwise(pl.col("truth"))
    inside = pl.col("low").le(center) & pl.col("high").ge(center)
    inside_test = pl.col("low_test").le(center) & pl.col("high_test").ge(center)
    verdict, share = pl.col("what").str.contains("verdict"), pl.struct("coverage", "draws")
    return (
        rows.with_columns(hit=pl.when(verdict).then(1.0 - pl.col("value")).otherwise(inside.cast(pl.Float64)))
        .group_by("world", "what", maintain_order=True)
        .agg(
            draws=pl.len(),
            mean=pl.col("value").mean(),
            sd=pl.col("value").std(),
            width=((pl.col("high") - pl.col("low")) / 2 / 1.96).median() / pl.col("value").std(),
            zero=(pl.col("high") == pl.col("low")).mean(),
            coverage=pl.col("hit").mean(),
            test_users_only=inside_test.filter(pl.col("low_test").is_not_nan()).mean(),
        )
        .with_columns(share.map_elements(_binomial, return_dtype=pl.String).alias("95 % of it"))
    )


def _binomial(row: dict[str, Any]) -> str:
    """Return Clopper and Pearson's interval of a share."""
    low, high = binomtest(round(row["coverage"] * row["draws"]), row["draws"]).proportion_ci(method="exact")
    return f"{low:.3f} to {high:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200, help="draws of users in each world")
    parser.add_argument("--quick", dest="draws", action="store_const", const=20, help="20 draws")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS), help="which worlds")
    parser.add_argument("--out", type=Path, default=Path("coverage.csv"), help="rows; what is there is not done again")
    args, world, draw = parser.parse_args(), pl.col("world"), pl.col("draw")
    rows = pl.read_csv(args.out).rows() if args.out.exists() else []
    todo = sorted({*itertools.product(args.worlds, range(args.draws))} - {row[:2] for row in rows})
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(args.jobs) as pool:
        for count, future in enumerate(as_completed([pool.submit(one_draw, *job) for job in todo]), 1):
            rows += future.result()
            if count % 10 == 0 or count == len(todo):
                pl.DataFrame(rows, COLUMNS, orient="row").write_csv(args.out)
                print(f"{count} of {len(todo)} draws", file=sys.stderr, flush=True)
    draws = pl.DataFrame(rows, COLUMNS, orient="row").filter(world.is_in(args.worlds), draw < args.draws)
    plain = {"tbl_formatting": "MARKDOWN", "tbl_hide_column_data_types": True, "tbl_hide_dataframe_shape": True}
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, float_precision=4, fmt_str_lengths=40, **plain):
        print(table(draws))


if __name__ == "__main__":
    main()
