"""A gold ranker of the study, refitted for each snapshot: `gold_side.py din|dcn FOLDER...`; started by costs.py."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from contender import Matrix, arrays, serve

sys.path.append(str(Path(__file__).parent.parent / "evidence"))
from neural_rankers import Data, fit, quality


def load(kind: str, folder: Path) -> tuple[Callable[[Matrix], float], Matrix, float]:
    data = Data(pickle.loads((folder / "ranked.pkl").read_bytes()))  # noqa: S301  # prepare.py wrote it
    given = arrays(folder)

    def auc(rows: Matrix) -> float:
        return quality(data, fit(data, [rows], kind, 0)[0])

    return auc, given["ranked_snapshots"], float(given["one_off"][1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(load)
