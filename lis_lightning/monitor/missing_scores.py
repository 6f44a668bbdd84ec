"""Stock callbacks that read a monitor's score, while no snapshot can be scored.

A stock EarlyStopping, ModelCheckpoint or ReduceLROnPlateau raises if its metric is missing, stops if the metric is not
finite, and counts a check without an improvement against its patience. None of this may follow from a failed snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn

from lis_lightning.errors import LisWarning
from lis_lightning.monitor.stock_callbacks import is_ours

WORST = 1e30  # finite, and worse than any score once its sign is that of the mode


class Reader(NamedTuple):
    """A stock callback or learning rate scheduler that reads one of the monitor's metrics."""

    key: str
    owner: Any
    counter: str  # attribute of `owner` that counts checks without an improvement


class MissingScores:
    """Keeps stock callbacks that read a monitor's score from ending a training whose snapshots fail.

    Until a first snapshot is scored they read a placeholder that is worse than any score. A later failure leaves the
    score of the last snapshot. Each failure is taken off the checks that count against their patience.

    Args:
        prefix: Start of the monitor's keys.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._placeholders: set[str] = set()
        self._excused: dict[int, int] = {}  # value of a reader's counter after the last failure

    def failed(self, trainer: pl.Trainer) -> None:
        """Prepare the readers for the time until the next snapshot, after one has failed."""
        readers = list(_readers(trainer, self.prefix))
        missing = [reader for reader in readers if reader.key not in trainer.callback_metrics]
        for reader in missing:
            owners = [candidate.owner for candidate in missing if candidate.key == reader.key]
            trainer.callback_metrics[reader.key] = torch.tensor(_placeholder(owners))
            self._placeholders.add(reader.key)
        if missing:
            names = ", ".join(sorted({type(reader.owner).__name__ for reader in missing}))
            rank_zero_warn(
                f"LISMonitor: {names} will read a placeholder, worse than any score, for "
                f"{sorted(self._placeholders)} until a snapshot is scored.",
                category=LisWarning,
            )
        for reader in readers:
            count = getattr(reader.owner, reader.counter, None)
            # Unless nothing was checked since the last failure: failures may be more frequent than checks.
            if count is not None and count != self._excused.get(id(reader.owner)):
                self._excused[id(reader.owner)] = count - 1
                setattr(reader.owner, reader.counter, count - 1)

    def scored(self, trainer: pl.Trainer, keys: set[str]) -> None:
        """Remove the placeholders of keys that a scored snapshot does not have: Lightning names those as missing."""
        for key in self._placeholders - keys:
            trainer.callback_metrics.pop(key, None)
        self._placeholders.clear()


def _readers(trainer: pl.Trainer, prefix: str) -> Iterator[Reader]:
    """Iterate over the callbacks and learning rate schedulers that read a metric with this prefix."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
    for callback in callbacks:
        monitored = getattr(callback, "monitor", None)
        if is_ours(monitored, prefix):
            yield Reader(str(monitored), callback, "wait_count")
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and is_ours(config.monitor, prefix):
            yield Reader(str(config.monitor), config.scheduler, "num_bad_epochs")


def _placeholder(owners: list[Any]) -> float:
    """Return a value worse than any score, but within the divergence thresholds of the callbacks that read it."""
    smallest = any(getattr(owner, "mode", "max") == "min" for owner in owners)
    thresholds = [getattr(owner, "divergence_threshold", None) for owner in owners]
    limits = [float(threshold) for threshold in thresholds if threshold is not None]
    return min([WORST, *limits]) if smallest else max([-WORST, *limits])
