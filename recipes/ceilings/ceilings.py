"""Which ceiling binds? Estimators of LIS in generated worlds whose truth is known: `python ceilings.py [--quick]`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from lis_lightning import Completed, PreferenceSplit
from lis_lightning.align.world import simulate_world
from lis_lightning.functional import (
    ItemVectors,
    complete_vectors,
    id_vectors,
    pair_vectors,
    paired_difference,
    principal_coordinates,
)
from lis_lightning.scoring import Arm, Scorer, evaluate, look_up_items, probe_inputs, user_folds
from lis_lightning.scoring.preferences import as_preference, build_pairs, leave_users_out

Array = NDArray[Any]
Limit = tuple[float, Array]  # a ceiling and its influence
MEDIUM: dict[str, float] = {"num_users": 300, "num_items": 400, "num_events": 24_000}
WORLDS: dict[str, dict[str, float]] = {
    "default": MEDIUM,
    "sparse, cold": {"num_users": 700, "num_items": 3000, "num_events": 16_000, "late_items": 0.8, "recency": 10.0},
    "strong content": {**MEDIUM, "content_share": 0.95},
    "weak content": {**MEDIUM, "content_share": 0.3},
    "drift": {**MEDIUM, "drift": 0.9},
    "few users": {"num_users": 60, "num_items": 250, "num_events": 12_000},
    "no moods": {**MEDIUM, "browsing": 0.0},
    "dense": {"num_users": 300, "num_items": 100, "num_events": 24_000},
    "short": {"num_users": 2500, "num_items": 500, "num_events": 24_000},
    "rare clicks": {**MEDIUM, "click_rate": 0.08},
}


def pairs_as(dim: int, split: PreferenceSplit | None = None) -> Callable[[pl.DataFrame], tuple[Array, Array]]:
    """Return pairs of other dimensions; with a split as a null, whose users trade their clicks within their fold."""

    def build(events: pl.DataFrame) -> tuple[Array, Array]:
        clicks = events.filter(pl.col("label") == 1)
        if split is not None:
            folds = clicks.join(split.user_folds(), on="user", how="left", maintain_order="left")
            clicks = folds.with_columns(pl.col("item").shuffle(seed=9).over("fold"))
        ids, items = np.unique(clicks["item"].to_numpy(), return_inverse=True)
        return ids, pair_vectors(clicks["user"].to_numpy(), items, ids.size, dim=dim).vectors

    return build


def snapshots(split: PreferenceSplit, truth: dict[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Return what fine-tuning runs of every kind would hold: raw, aligned, perfect, memorised, broken."""
    row, log = split.item_ids - 1, split.log
    onehot = np.concatenate([np.eye(codes.max() + 1)[codes[row]] for codes in truth["attributes"].T], axis=1)
    true, latent = truth["content_latents"][row].astype(float), truth["item_latents"][row].astype(float)
    noise, spread = rng.standard_normal((row.size, 32)), true.std()
    raw = np.concatenate([onehot, 0.3 * noise], axis=1)
    hard = np.tanh(np.concatenate([1.5 * onehot, noise], 1) @ rng.standard_normal((raw.shape[1], 128)) / 3)
    seen = (log.window == 0) & ~np.isin(log.item, split.events.item[split.events.unseen])
    pairs, clicks = build_pairs(log, seen), np.bincount(log.item[seen & (log.label == 1)], minlength=log.num_items)
    pairs = ItemVectors(pairs.vectors[: row.size], pairs.present[: row.size])
    ids = id_vectors(log.user[seen], log.item[seen], log.label[seen].astype(float), log.num_items).vectors[: row.size]

    def aligned(content: Array, strength: float = 1e12) -> Array:
        given = ItemVectors(content - content.mean(0), np.ones(row.size, bool))
        return complete_vectors(pairs, clicks[: row.size], given, strength=strength).vectors

    vectors = {"raw": raw, "raw, hard to read": hard, "content": true}
    vectors |= {f"content + {x} noise": true + x * spread * rng.standard_normal(true.shape) for x in (0.5, 1.0, 2.0)}
    vectors |= {"aligned to w0 pairs": aligned(onehot), "aligned, hard to read": aligned(hard)}
    vectors |= {"pairs memorised": aligned(onehot, 0.0), "pairs, partly": aligned(onehot, 10.0)}
    vectors["content and ids"] = np.concatenate([true / spread, 0.7 * ids / ids.std()], axis=1)
    vectors["private memorised"] = np.where(pairs.present[:, None], (true + latent) / 2, true)
    return vectors | {"random": noise, "shuffled": rng.permutation(true)}


def study(split: PreferenceSplit, vectors: dict[str, Array]) -> tuple[dict[str, Arm], dict[str, dict[str, Limit]]]:
    """Return every snapshot scored, and by estimator the ceiling of each of them."""
    prepared, log = Scorer(split).base_ranker, split.log
    reads = {
        n: look_up_items(prepared.histories, [principal_coordinates(torch.from_numpy(x))]) for n, x in vectors.items()
    }
    arms = {n: evaluate(split, prepared, probe_inputs(prepared, r), prepared.logits) for n, r in reads.items()}
    null, ids = pairs_as(32, split), split.item_ids
    kinds: dict[str, Any] = {"pairs": "pairs", "ids": "ids", "pairs, 8 dims": pairs_as(8)}
    kinds |= {"pairs, 64 dims": pairs_as(64), "pairs + raw": Completed("pairs", vectors["raw"], ids)}
    kinds |= {"pairs + hard raw": Completed("pairs", vectors["raw, hard to read"], ids)}
    kinds |= {"null": null, "null + raw": Completed(null, vectors["raw"], ids)}
    leaks = {name: as_preference(kind).match(split).future() for name, kind in kinds.items()}
    fold = np.r_[user_folds(split, 20), np.full(log.num_users - split.num_users, -1)][log.user]
    leaks["pairs, 20 folds"] = leave_users_out(lambda rows: build_pairs(log, rows), np.ones(fold.size, bool), fold, 20)
    alone = {name: Scorer(split).leak_arm(leak) for name, leak in leaks.items()}
    limits = {name: dict.fromkeys(arms, (arm.gain.value, arm.gain.influence)) for name, arm in alone.items()}
    for name in ("pairs", "ids", "pairs + raw", "pairs + hard raw", "null", "null + raw"):
        above = {n: Scorer(split, cache_dir="off").headroom(kinds[name], arm) for n, arm in arms.items()}
        limits[f"R, then {name}"] = {
            n: (arms[n].gain.value + a.value, arms[n].gain.influence + a.influence) for n, a in above.items()
        }
    return arms, limits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the first two worlds")
    parser.add_argument("--seeds", type=int, default=1, help="worlds of each kind")
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS), help="kinds of worlds")
    args = parser.parse_args()
    rows: list[tuple[Any, ...]] = []
    for world in args.worlds[:2] if args.quick else args.worlds:
        for seed in range(args.seeds):
            began = time.process_time()
            log, truth = simulate_world(seed=seed, **WORLDS[world])
            split = PreferenceSplit.from_log(log, label="clicked")
            arms, limits = study(split, snapshots(split, truth, np.random.default_rng([seed, 5])))
            true = arms["content"].gain.value
            rows += [("AIS: " + name, world, arm.gain.value / true, None) for name, arm in arms.items()]
            for way, of in limits.items():
                excess = [paired_difference(a.gain.value, a.gain.influence, *of[n]).z for n, a in arms.items()]
                rows += [(way, world, of[n][0] / true, z) for n, z in zip(arms, excess, strict=True)]
            seconds = time.process_time() - began
            print(f"{world}, seed {seed}: content gains {true:.4f}; {seconds:.0f} s", file=sys.stderr, flush=True)
    table = pl.DataFrame(rows, schema=["estimator", "world", "ratio", "z"], orient="row", infer_schema_length=None)
    ratio, z = pl.col("ratio"), pl.col("z")
    low, high = ratio.min().round(2), ratio.max().round(2)
    cell = pl.when(low == high).then(low.cast(pl.String)).otherwise(pl.format("{} to {}", low, high)).alias("cell")
    bound = table.group_by("estimator", maintain_order=True).agg(
        bound=(z < 2).mean().round(3), worst_z=z.max().round(1)
    )
    cells = (
        table.group_by("estimator", "world", maintain_order=True)
        .agg(cell)
        .pivot("world", index="estimator", values="cell")
    )
    plain = {"tbl_formatting": "MARKDOWN", "tbl_hide_column_data_types": True, "tbl_hide_dataframe_shape": True}
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=300, **plain):
        print(bound.join(cells, on="estimator", maintain_order="left"))


if __name__ == "__main__":
    main()
