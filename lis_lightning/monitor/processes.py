"""Several processes that must agree on what failed, so that none waits for the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch

from lis_lightning.errors import SnapshotError

Value = TypeVar("Value")


def together(trainer: pl.Trainer, action: Callable[[], Value]) -> Value:
    """Do something on every process; where it fails on one it fails on all, so that none waits for the others.

    Raises:
        SnapshotError: With several processes, naming those that failed and why. A single one raises its own error.
    """
    error: Exception | None = None
    try:
        value = action()
    except Exception as caught:
        error = caught
    if trainer.strategy.reduce_boolean_decision(error is None, all=True):
        return value
    if trainer.world_size == 1 and error is not None:
        raise error
    texts: list[str | None] = [None] * trainer.world_size
    torch.distributed.all_gather_object(texts, error and f"{type(error).__name__}: {error}")
    raise SnapshotError("; ".join(f"process {rank}: {text}" for rank, text in enumerate(texts) if text)) from error


def share_of(trainer: pl.Trainer) -> dict[str, int]:
    """Return `rank` and `world_size` among the processes that see different data.

    Those that hold parts of one layer (tensor parallel) encode the same items.
    """
    sampler = getattr(trainer.strategy, "distributed_sampler_kwargs", None) or {}
    return {
        "rank": sampler.get("rank", trainer.global_rank),
        "world_size": sampler.get("num_replicas", trainer.world_size),
    }


def on_first(trainer: pl.Trainer, *actions: Callable[[], Any], strict: bool) -> None:
    """Do what concerns the first process; the actions do nothing on the others.

    Args:
        trainer: The Trainer in charge.
        *actions: What is done, in this order.
        strict: Whether an action may raise; all processes then raise together.

    Raises:
        SnapshotError: As :func:`together`.
    """

    def act() -> None:
        for action in actions:
            action()

    if strict:
        together(trainer, act)
    else:
        act()
