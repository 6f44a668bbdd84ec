"""One run of the study in three steps, each kept on disk: train and snapshot, fit gold rankers, score."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from alignments import RECIPES
from numpy.typing import NDArray
from training import train
from trees import BoostedTrees
from worlds import Study

from lis_lightning.results import Record, Snapshot
from lis_lightning.scoring import successive_pairs

Matrix = NDArray[np.float32]
Say = Callable[[str], None]


class Gold:
    """Gold rankers of one world; a representation that was fitted before is not fitted again.

    Args:
        world: Its other half of users.
        seeds: Of the trees; a fit each.
    """

    def __init__(self, world: Study, seeds: Sequence[int] = (0,)) -> None:
        self.ranker, self.rows, self.seeds = BoostedTrees(world), world.items.rows(world.gold.item_ids), seeds
        rng = np.random.default_rng(23)
        self.traded = rng.permutation(self.rows.size)
        part = rng.permutation(world.gold.num_users) % len(seeds)
        self.part = part[self.ranker.users]
        self.base = self.ranker.base_auc
        self.known: dict[str, list[list[float]]] = {}

    def __call__(self, snapshots: Sequence[Matrix], *, placebo: bool = False) -> list[list[list[float]]]:
        """Return for each snapshot and fit the AUC on all test events, and on a part of the users that is its own."""
        return [self._measured(rows[self.rows][self.traded if placebo else slice(None)]) for rows in snapshots]

    def _measured(self, rows: Matrix) -> list[list[float]]:
        key = hashlib.sha256(rows.tobytes()).hexdigest()
        if key not in self.known:
            fits = [self.ranker.logits(rows, seed) for seed in self.seeds]
            parts = [self.ranker.auc(logits, self.part == number) for number, logits in enumerate(fits)]
            self.known[key] = [list(pair) for pair in zip(map(self.ranker.auc, fits), parts, strict=True)]
        return self.known[key]


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
    world: Study, recipe: str, seed: int, gold: Callable[[], Gold], folder: Path, say: Say, steps: Sequence[int] = ()
) -> None:
    """Write what is missing of one run: `snapshots.npz`, `gold.json` and `record.jsonl`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "snapshots.npz").exists():
        taken = train(world, RECIPES[recipe], seed, steps)
        arrays = {name: np.array([one[name] for one in taken]) for name in taken[0]}
        np.savez(folder / "draft.npz", **arrays)
        (folder / "draft.npz").replace(folder / "snapshots.npz")
        say("trained")
    taken = dict(np.load(folder / "snapshots.npz"))
    if not (folder / "gold.json").exists():
        ends = [taken["embeddings"][at] for at in (0, -1)]
        answers: dict[str, Any] = {"gold": gold()(list(taken["embeddings"])), "placebo": gold()(ends, placebo=True)}
        answers["base"] = gold().base
        draft = folder / "gold.draft"
        draft.write_text(json.dumps(answers))
        draft.replace(folder / "gold.json")
        say(f"gold from {np.mean(answers['gold'][0], axis=0)[0]:.4f} to {np.mean(answers['gold'][-1], axis=0)[0]:.4f}")
    if not (folder / "record.jsonl").exists():
        score(world, recipe, taken, folder)
        say("scored")


def score(world: Study, recipe: str, taken: dict[str, NDArray[Any]], folder: Path) -> None:
    """Write the results of all snapshots as a monitor would, and recall beside them."""
    objectives = RECIPES[recipe].objectives().values()
    aligned = next((one.preference for one in objectives if one.preference is not None), "pairs")
    options: dict[str, Any] = {"ceilings": {"trained": aligned, "pairs": "pairs"}, "aligned_to": "trained"}
    scored_rows, draft = world.items.rows(world.scored.item_ids), folder / "draft.jsonl"
    draft.unlink(missing_ok=True)
    record = Record.create(draft, run_id=folder.name, split_hash=world.scored.hash)
    seconds, recalls = [], []
    for number, (step, rows) in enumerate(zip(taken["step"].tolist(), taken["embeddings"], strict=True)):
        began = time.process_time()
        result = world.scored.score(rows[scored_rows], placebo=number == 0, **options)
        seconds.append(time.process_time() - began)
        record.append(Snapshot.of(result, step=step))
        recalls.append({f"recall@{k}": recall(world, rows[scored_rows], k) for k in (10, 50)})
    cost = {"score": float(np.median(seconds[1:])), "scored events": len(world.scored.events)}
    (folder / "curves.json").write_text(json.dumps({"recall": recalls} | cost))
    draft.replace(folder / "record.jsonl")
