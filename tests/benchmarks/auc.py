"""Exact AUC against its floor and against scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.metrics import roc_auc_score

from lis_lightning.functional.auc import auroc
from lis_lightning.functional.grouped_auc import grouped_auroc_influence
from tests.benchmarks.row import Row, best_times


def rows() -> Iterator[Row]:
    """Yield AUC at a million and at ten million events, and per-user AUC of 10 000 users."""
    rng = np.random.default_rng(0)
    for size in (1_000_000, 10_000_000):
        labels = (rng.random(size) < 0.3).astype(np.int8)
        scores = rng.standard_normal(size) + 0.5 * labels
        positives, negatives = scores[labels == 1], scores[labels == 0]
        ours, floor, peer = best_times(
            lambda scores=scores, labels=labels: auroc(scores, labels),
            lambda p=positives, n=negatives: np.searchsorted(np.sort(n), np.sort(p)),
            lambda scores=scores, labels=labels: roc_auc_score(labels, scores),
            repeats=5,
        )
        what = f"auroc, {size:.0e} events"
        yield Row(what=what, ours=ours, other=floor, against="np.sort of both classes + np.searchsorted", bar=1.3)
        yield Row(what=what, ours=ours, other=peer, against="sklearn roc_auc_score", kind="peer", bar=3)
    users, events = 10_000, 100
    labels = rng.random((users, events)) < 0.3
    scores = rng.standard_normal((users, events))
    groups = np.repeat(np.arange(users), events)
    order = rng.permutation(groups.size)  # as a log comes: by time
    flat = scores.ravel()[order], labels.ravel()[order], groups[order]
    ours, peer = best_times(
        lambda: grouped_auroc_influence(*flat, users),
        lambda: [roc_auc_score(label, score) for label, score in zip(labels, scores, strict=True)],
        repeats=1,
    )
    what = "grouped_auroc_influence, 1e4 users of 100 events"
    yield Row(what=what, ours=ours, other=peer, against="loop of sklearn", kind="peer", bar=20)
