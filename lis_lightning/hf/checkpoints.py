"""The state of a monitor in the checkpoints of transformers' Trainer."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.utilities import rank_zero_warn
from transformers import TrainerCallback, TrainerState

from lis_lightning.errors import LisWarning


def saved_state(state: TrainerState, callback: TrainerCallback, name: str | None) -> dict[str, Any] | None:
    """Return what a callback saved in the checkpoint that a training resumes from; None, with a warning, if nothing.

    Args:
        state: State of the Trainer, as it begins.
        callback: The callback.
        name: Name of its monitor: the Trainer puts the states of all callbacks of a class into one list.
    """
    if state.global_step == 0:
        return None
    states: Any = state.stateful_callbacks or {}
    saved = states.get(type(callback).__name__, [])
    saved = saved if isinstance(saved, list) else [saved]
    own: list[dict[str, Any]] = [entry["attributes"] for entry in saved if entry["attributes"].get("name") == name]
    if own:
        return own[-1]  # the Trainer appends the states of a resumed run
    rank_zero_warn(
        f"{type(callback).__name__}: the checkpoint of step {state.global_step} was saved without this monitor; a new "
        "curve and a new record start here.",
        category=LisWarning,
    )
    return None
