"""Three results of a run as they reach the loggers, and the keys under which they are logged; those are frozen."""

from __future__ import annotations

import math

import numpy as np

from lis_lightning.results.result import Ceiling, SliceEstimate
from lis_lightning.results.snapshot import Snapshot

FROZEN_KEYS = {"lis/ais", "lis/ais_low", "lis/ais_high", "lis/headroom", "lis/realised", "lis/best_ais"}
MORE_KEYS = {
    f"lis/more/{name}"
    for name in (
        "ais_geometry", "auc", "gauc_gain", "gauc_gain_low", "gauc_gain_high", "headroom_low", "headroom_high",
        "realised_low", "realised_high", "gain_z", "ais_seen", "ais_unseen", "train_loss", "encode_seconds",
        "score_seconds", "companion/pair_auc", "companion/cka", "companion/rankme", "slice/head_items",
        "slice/head_items_low", "slice/head_items_high",
    )
}  # fmt: skip
CONSTANTS = {
    f"lis/more/{name}"
    for name in (
        "auc_base", "ceiling_pairs", "ceiling_pairs_low", "ceiling_pairs_high", "ceiling_ids", "ceiling_ids_low",
        "ceiling_ids_high",
    )
}  # fmt: skip


def make_result(step, ais, verdict, **fields):
    ceiling = Ceiling(value=0.02, low=0.01, high=0.03)
    values = {
        "ais": ais, "ais_low": ais - 0.001, "ais_high": ais + 0.001, "ais_geometry": ais / 2, "auc_base": 0.75,
        "auc": 0.75 + ais, "gauc_gain": ais / 3, "realised": ais / 0.02, "realised_low": ais / 0.04,
        "realised_high": ais / 0.01, "gain_z": 1.5, "ais_seen": ais, "ais_unseen": ais, "verdict": verdict,
        "message": f"about {verdict}", "ceilings": {"pairs": ceiling, "ids": ceiling}, "encode_seconds": 1.25,
        "score_seconds": 0.5, "companions": {"pair_auc": 0.6, "cka": 0.1, "rankme": 8.0}, "step": step,
        "influence": np.zeros(3), "split_hash": "abc",
        "slices": {
            "head items": SliceEstimate(value=ais, se=0.001, low=ais - 0.002, high=ais + 0.002, num_events=80),
            "new users": SliceEstimate(value=math.nan, se=math.nan, low=math.nan, high=math.nan, num_events=2),
        },
    }  # fmt: skip
    return Snapshot(**values | fields)


RESULTS = [
    make_result(0, 0.002, "warming-up", gain_z=math.nan, realised=math.nan, best_ais=0.002),
    make_result(20, 0.006, "improving", best_ais=0.006),
    make_result(40, 0.004, "plateau", best_ais=0.006),
]
