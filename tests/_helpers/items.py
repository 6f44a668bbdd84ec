"""A dataset of items that records which of them are read."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset


class Items(Dataset):
    """Items 0 to n - 1, each of which is read once too often if it is read when not asked for."""

    def __init__(self, item_ids):
        self.item_ids = list(item_ids)
        self.read = []

    def __len__(self):
        return len(self.item_ids)

    def __getitem__(self, row):
        self.read.append(self.item_ids[row])
        return {"item_id": self.item_ids[row], "x": torch.full((3,), float(row))}
