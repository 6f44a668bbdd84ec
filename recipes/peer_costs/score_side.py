"""Ours: `score_side.py scored|ranked FOLDER...`; started by costs.py."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from contender import Matrix, arrays, serve

from lis_lightning.scoring import Scorer  # noqa: F401  # an import is no cost of a score


def load(which: str, folder: Path) -> tuple[Callable[[Matrix], float], Matrix, float]:
    split = pickle.loads((folder / f"{which}.pkl").read_bytes())  # noqa: S301  # prepare.py wrote it
    given = arrays(folder)

    def ais(rows: Matrix) -> float:
        # Without a placebo, as a monitor scores all snapshots but the first; nothing is read from a cache on disk.
        return float(split.score(rows, placebo=False, cache_dir="off").ais)

    return ais, given[f"{which}_snapshots"], float(given["one_off"][int(which == "ranked")])


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(load)
