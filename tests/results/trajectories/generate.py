"""Record trajectories of every kind: real scores, in generated worlds, of representations whose fate is known.

Each curve is a list of representations, made from the true latents and noise, scored in turn on one split. Run this
again when the score changes, and read what changes in the tests:

    python tests/results/trajectories/generate.py [name ...]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from lis_lightning import PreferenceSplit
from lis_lightning.align.world import simulate_world
from lis_lightning.results.record_contents import pack
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.verdict import judge

WORLD = {"num_users": 300, "num_items": 300, "num_events": 30_000, "content_share": 0.5}


class World:
    """A split, and what its items really are: [num_items, 6] each."""

    def __init__(self, options: dict[str, Any], base: Callable | None = None, **parameters: Any) -> None:
        log, truth = simulate_world(**WORLD | parameters)
        if base is not None:
            log = log.with_columns(pl.Series("base", base(log, truth)))
            options = options | {"base_logit": "base"}
        self.split = PreferenceSplit.from_log(log, label="clicked", max_events=None, **options)
        rows = self.split.item_ids - 1
        self.content, self.full = (truth[f"{kind}_latents"][rows].astype(float) for kind in ("content", "item"))
        self.rng = np.random.default_rng(0)
        self.noise = self.draw()
        self.unseen = ~np.isin(self.split.item_ids, self.split.alignment["item_id"].to_numpy())

    def draw(self) -> np.ndarray:
        return self.content.std() * self.rng.standard_normal(self.content.shape)

    def blurred(self, latents: np.ndarray, *amounts: float) -> Iterator[np.ndarray]:
        """Yield latents with so much of one noise, and a little of new noise, as a model in training jitters."""
        for amount in amounts:
            yield latents + amount * self.noise + 0.1 * self.draw()

    def few_users(self, count: int = 6) -> np.ndarray:
        """Return vectors that know what a few users did in w0, and nothing else."""
        log = self.split.log
        rows = (log.window == 0) & (log.user < count) & (log.item < self.split.num_items)
        vectors = np.zeros((self.split.num_items, count))
        np.add.at(vectors, (log.item[rows], log.user[rows]), 2.0 * log.label[rows] - 1)
        return vectors


def rising(world: World) -> Iterator[np.ndarray]:
    return world.blurred(world.content, 2.0, 1.4, 0.9, 0.5)


def dip_then_rise(world: World) -> Iterator[np.ndarray]:
    return world.blurred(world.content, 1.2, 2.2, 2.5, 2.2, 1.7, 1.2, 0.8, 0.5, 0.3)


def plateau(world: World) -> Iterator[np.ndarray]:
    yield from rising(world)
    yield from world.blurred(world.content, *[0.3] * 10)


def model_bound(world: World) -> Iterator[np.ndarray]:
    return world.blurred(world.content, 4.0, 3.0, 2.4, *[2.0] * 6)


def overfit_items(world: World) -> Iterator[np.ndarray]:
    yield from rising(world)
    lost = world.draw()
    for amount, latents in enumerate(world.blurred(world.content, 0.4, 0.3, 0.2, 0.1, 0.0)):
        yield np.where(world.unseen[:, None], world.content + (0.5 + amount) * lost, latents)


def overfit_users(world: World) -> Iterator[np.ndarray]:
    yield from rising(world)
    known = world.few_users()
    for amount, latents in enumerate(world.blurred(world.content, *[0.4] * 6)):
        yield np.hstack([latents, 0.5 * amount * known])


def collapse(world: World) -> Iterator[np.ndarray]:
    yield from rising(world)
    left, strength, right = np.linalg.svd(world.content - world.content.mean(0), full_matrices=False)
    for decay in (0.3, 0.1, 0.03, 0.01):
        yield left * strength * decay ** np.arange(strength.size) @ right


def at_ceiling(world: World) -> Iterator[np.ndarray]:
    return world.blurred(world.full, 3.0, 2.2, 1.6, 1.2, 0.95, 0.95, 0.95)


def not_binding(world: World) -> Iterator[np.ndarray]:
    return world.blurred(world.full, 3.0, 2.2, 1.6, 0.8, 0.3, 0.0)


TRAJECTORIES: dict[str, tuple[Callable[[World], Iterator[np.ndarray]], Callable[[], World]]] = {
    "dip-then-rise": (dip_then_rise, lambda: World({})),
    "plateau": (plateau, lambda: World({})),
    "model-bound": (model_bound, lambda: World({})),
    "overfit-items": (overfit_items, lambda: World({"unseen_items": 0.35})),
    "overfit-users": (overfit_users, lambda: World({})),
    "collapse": (collapse, lambda: World({})),
    "at-ceiling": (at_ceiling, lambda: World({})),
    "ceiling-not-binding": (not_binding, lambda: World({})),
    "data-bound": (plateau, lambda: World({}, taste=0.3, num_users=600, num_events=60_000)),
    "underpowered": (plateau, lambda: World({}, num_users=40, num_events=2_000)),
    "placebo-failed": (rising, lambda: World({}, base=lambda log, truth: truth["quality"][log["item_id"] - 1])),
}


def record(name: str) -> list[Snapshot]:
    """Return the results of one trajectory, in steps of 100."""
    representations, world = TRAJECTORIES[name]
    place = world()
    return [
        Snapshot.of(place.split.score(latents, ceilings=("pairs",), placebo=number == 0), step=100 * number)
        for number, latents in enumerate(representations(place))
    ]


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in names or TRAJECTORIES:
        results = record(name)
        (Path(__file__).parent / f"{name}.jsonl").write_text("\n".join(pack(results)) + "\n")
        for number, result in enumerate(results):
            judgement = judge(results[: number + 1])
            print(
                f"{name:20s}{result.step:5d}{result.ais:+9.4f} ±{1.96 * result.se:.4f} z {judgement.gain_z:+6.1f}",
                end="",
            )
            print("  STOP " if judgement.stop else "  ", f"{judgement.verdict}: {judgement.message}")


if __name__ == "__main__":
    main(sys.argv[1:])
