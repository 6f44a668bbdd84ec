"""What every curve says of every snapshot of a run, and what gold says: one dict a run, ready for JSON."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gold import RANKERS, Data, fit, quality
from numpy.typing import NDArray
from training import RECIPES, train
from worlds import Study

from lis_lightning import LISResult
from lis_lightning.companions import successive_pairs
from lis_lightning.functional.intervals import paired_difference
from lis_lightning.stopping import judge

Matrix = NDArray[np.float32]


class Gold:
    """Gold rankers of one world; a representation that was fitted before is not fitted again.

    Args:
        world: Its other half of users.
        seeds: Of weights and batches; a fit a seed and kind of ranker.
    """

    def __init__(self, world: Study, seeds: Sequence[int] = (0,)) -> None:
        self.data, self.rows = Data(world.gold), world.items.rows(world.gold.item_ids)
        self.fits = [(kind, seed) for seed in seeds for kind in RANKERS]
        rng = np.random.default_rng(23)
        self.traded = rng.permutation(self.rows.size)
        self.part = rng.permutation(world.gold.num_users) % len(self.fits)
        self.known: dict[str, list[list[float]]] = {}
        self.seconds: list[float] = []

    def __call__(self, embeddings: Matrix, *, placebo: bool = False) -> list[list[float]]:
        """Return for each fit its AUC on all test events, and on those of a part of the users that is its own."""
        rows = embeddings[self.rows]
        rows = np.ascontiguousarray(rows[self.traded] if placebo else rows)
        key = hashlib.sha256(rows.tobytes()).hexdigest()
        if key not in self.known:
            self.known[key] = [self._fit(rows, at) for at in range(len(self.fits))]
        return self.known[key]

    def _fit(self, rows: Matrix, at: int) -> list[float]:
        began = time.process_time()
        logits = fit(self.data, rows, *self.fits[at])
        self.seconds.append(time.process_time() - began)
        return [quality(self.data, logits), quality(self.data, logits, self.part == at)]


def recall(world: Study, vectors: Matrix, k: int) -> float:
    """Return how often an item is among the k nearest, by cosine, of the one clicked before it in w2."""
    pairs = successive_pairs(world.scored)
    unit = vectors - vectors.mean(0)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    cosine = unit[pairs[:, 0]] @ unit.T
    cosine[np.arange(len(pairs)), pairs[:, 0]] = -np.inf
    partner = cosine[np.arange(len(pairs)), pairs[:, 1]]
    return float(((cosine > partner[:, None]).sum(1) < k).mean())


def measure(
    world: Study, recipe: str, seed: int, gold: Gold, say: Callable[[str], None], steps: Sequence[int]
) -> dict[str, Any]:
    """Return one run: its snapshots with curves and gold, its verdicts, and what it cost in seconds of CPU."""
    began = time.process_time()
    taken = train(world, RECIPES[recipe], seed, steps)
    spent, kept = {"train": time.process_time() - began}, world.items.rows(world.scored.item_ids)
    objectives = RECIPES[recipe].objectives().values()
    aligned = next((one.preference for one in objectives if one.preference is not None), "pairs")
    options: dict[str, Any] = {"ceilings": {"trained": aligned}, "aligned_to": "trained"}
    results: list[LISResult] = []
    rows, seconds = [], []
    for number, one in enumerate(taken):
        vectors = one.pop("embeddings")
        began = time.process_time()
        result = replace(world.scored.score(vectors[kept], placebo=number == 0, **options), step=one["step"])
        seconds.append(time.process_time() - began)
        results.append(result)
        judgement = judge(results)
        curves = {"AIS": result.ais, "geometry": result.ais_geometry, "realised": result.realised}
        curves |= {"pair AUC": result.companions["pair_auc"], "CKA": result.companions["cka"]}
        curves |= {f"recall@{k}": recall(world, vectors[kept], k) for k in (10, 50)}
        curves |= {"- val loss": -one["val_loss"], "RankMe": result.companions["rankme"]}
        rows.append(
            {"step": one["step"], "curves": curves | {"- train loss": -one["train_loss"]}, "gold": gold(vectors)}
            | {"stop": judgement.stop, "best": judgement.best, "verdict": judgement.verdict} | above(result)
        )  # fmt: skip
        if number in (0, len(taken) - 1):
            rows[-1]["placebo"] = gold(vectors, placebo=True)
        say(f"step {one['step']}: AIS {result.ais:+.4f}, gold AUC {np.mean([a for a, _ in rows[-1]['gold']]):.4f}")
    spent |= {"score": float(np.median(seconds[1:])), "gold fit": float(np.median(gold.seconds))}
    spent |= {"scored events": len(world.scored.events), "gold events": len(world.gold.events)}
    return {"snapshots": rows, "truth": RECIPES[recipe].truth, "cost": spent}


def above(result: LISResult) -> dict[str, float]:
    """Return the ceiling, by how many paired standard errors AIS exceeds it, and the headroom over this snapshot."""
    limit = result.ceilings["trained"]
    excess = paired_difference(result.ais, result.influence, limit.value, limit.influence)
    return {"ceiling": limit.value, "above_z": excess.z, "headroom": result.headroom}
