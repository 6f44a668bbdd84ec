"""FuxiCTR's own DIN, refitted for each snapshot: `fuxictr_side.py din FOLDER...`; run by its own interpreter.

It is the one that the package brings, with the defaults of its class: each item, of target and history, is its ID
embedding beside the snapshot's row as a frozen pretrained embedding; user and as-of counts are features as gold's are.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contender import Matrix, arrays, serve
from fuxictr.features import FeatureMap
from fuxictr.pytorch.torch_utils import seed_everything
from model_zoo.LongCTR.DIN.DIN import DIN
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

WIDTH, BATCH, EPOCHS = 10, 128, 1  # as its example of DIN; a second epoch made it worse
DENSE = 4


class Batches:
    """What FuxiCTR's loader for this model yields: features of events, of items (history, then target), and a mask."""

    def __init__(self, given: dict[str, NDArray[Any]], at: NDArray[np.int64], *, shuffle: bool = False) -> None:
        self.given = {
            name: torch.from_numpy(given[name]) for name in ("user", "item", "past", "sign", "dense", "label")
        }
        self.at, self.shuffle = torch.from_numpy(at), shuffle

    def __len__(self) -> int:
        return -(-len(self.at) // BATCH)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], dict[str, Any], torch.Tensor]]:
        given, order = self.given, self.at[torch.randperm(len(self.at))] if self.shuffle else self.at
        for at in order.split(BATCH):
            clicked = given["sign"][at] > 0
            history = torch.where(clicked, given["past"][at] + 1, 0)  # 0 is padding
            items = torch.cat([history, given["item"][at, None] + 1], dim=1).flatten()
            event = {"user": given["user"][at] + 1, "label": given["label"][at]}
            event |= {f"dense_{column}": given["dense"][at, column] for column in range(DENSE)}
            yield event, {"item_id": items, "item_rows": items}, clicked


def features(folder: Path, num_users: int, num_items: int, dim: int) -> FeatureMap:
    """Return what FuxiCTR wants to know of the columns, as it would write it itself of raw files."""
    ids = {"type": "categorical", "padding_idx": 0}
    item = {**ids, "source": "item", "vocab_size": num_items + 2, "oov_idx": num_items + 1}
    rows = {"pretrained_emb": "rows.npz", "pretrain_dim": dim, "pretrain_usage": "init", "freeze_emb": True}
    known = FeatureMap("snapshot", str(folder))
    known.features = OrderedDict(
        {"user": {**ids, "source": "user", "vocab_size": num_users + 2}}
        | {f"dense_{column}": {"type": "numeric", "source": ""} for column in range(DENSE)}
        | {"item_id": item, "item_rows": item | rows}
    )
    known.labels, known.default_emb_dim = ["label"], WIDTH
    vocabulary = {str(number): number + 1 for number in range(num_items)}
    (folder / "feature_vocab.json").write_text(json.dumps({"item_id": vocabulary, "item_rows": vocabulary}))
    return known


def auc(given: dict[str, NDArray[Any]], rows: Matrix, folder: Path) -> float:
    """Return the AUC on w2 of a DIN trained on nine tenths of the events before it; it watches the last."""
    seed_everything(0)
    rows = rows - rows.mean(0)
    rows /= max(float(np.sqrt((rows**2).mean())), 1e-12)  # as gold does: a scale is not what a representation knows
    np.savez(folder / "rows.npz", key=np.arange(len(rows)).astype(str), value=rows)
    model = DIN(
        features(folder, int(given["sizes"][0]), len(rows), rows.shape[1]),
        embedding_dim=WIDTH, optimizer="adam", loss="binary_crossentropy", metrics=["AUC"], verbose=0,
        model_root=str(folder),
    )  # fmt: skip
    Path(model.model_dir).mkdir(exist_ok=True)
    train = given["train"][np.random.default_rng(0).permutation(len(given["train"]))]
    cut = len(train) * 9 // 10
    model.fit(Batches(given, train[:cut], shuffle=True), epochs=EPOCHS, validation_data=Batches(given, train[cut:]))
    return float(roc_auc_score(given["label"][given["test"]], model.predict(Batches(given, given["test"]))))


def load(_: str, folder: Path) -> tuple[Callable[[Matrix], float], Matrix, float]:
    given = arrays(folder)
    return lambda rows: auc(given, rows, folder), given["ranked_snapshots"], float(given["one_off"][1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(load)
