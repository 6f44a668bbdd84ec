"""Agreement between processes: an error on one is raised on all, so that no process waits for another forever."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from lis_lightning.errors import ConfigError, SnapshotError
from lis_lightning.monitor.failures import cannot_heal
from lis_lightning.monitor.training import Training

Value = TypeVar("Value")


def together(training: Training, action: Callable[[], Value]) -> Value:
    """Call a function on every process; if it raises on one process, raise on all.

    Args:
        training: The training whose processes these are.
        action: Called without arguments.

    Returns:
        The value of `action` on this process.

    Raises:
        SnapshotError: With several processes; names those that failed and why. A single process raises its own error.
        ConfigError: The same, if the error of one of them cannot heal.
    """
    error: Exception | None = None
    try:
        value = action()
    except Exception as caught:
        error = caught
    _raise_on_all(training, error)
    return value


@contextlib.contextmanager
def on_first(training: Training, *, strict: bool) -> Iterator[None]:
    """Run a block that does its work on the first process only and nothing on the others.

    Args:
        training: The training whose processes these are.
        strict: Whether the block may raise; then all processes raise together.

    Raises:
        SnapshotError: As :func:`together`.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        if not strict:
            raise
        error = caught
    if strict:
        _raise_on_all(training, error)


def _raise_on_all(training: Training, error: Exception | None) -> None:
    """Raise on every process if any process has an error."""
    if not training.any(error is not None):
        return
    if training.world_size == 1 and error is not None:
        raise error
    errors: list[tuple[str, bool] | None] = [None] * training.world_size
    own = None if error is None else (f"{type(error).__name__}: {error}", cannot_heal(error))
    torch.distributed.all_gather_object(errors, own)
    failed = {rank: text_and_kind for rank, text_and_kind in enumerate(errors) if text_and_kind}
    message = "; ".join(f"process {rank}: {text}" for rank, (text, _) in failed.items())
    permanent = any(kind for _, kind in failed.values())
    raise (ConfigError if permanent else SnapshotError)(message) from error
