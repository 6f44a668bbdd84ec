"""Watched metrics: what a team logs already, noted with each snapshot so that its worth in AIS can be told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lis_lightning.errors import ConfigError, LisWarning

_OURS = ("lis/", "lis_", "eval_lis_")  # keys of monitors
PATIENCE = 3  # snapshots without a value after which a key is reported


def check_watch(watch: Sequence[str]) -> None:
    """Check the keys to watch.

    Raises:
        ConfigError: If `watch` is not a sequence of names.

    Example:
        >>> check_watch(["val/recall@20"])
    """
    if isinstance(watch, str) or not all(isinstance(key, str) and key for key in watch):
        raise ConfigError(f"Expected `watch` to be a list of logged keys, as in ['val/recall@20'], got {watch!r}.")


class Watch:
    """The latest values of some metrics, by the snapshot that they belong to.

    A value belongs to the snapshot of the step at which it is logged; otherwise to the next one. So the value of a
    validation that runs right after a snapshot is of the same weights.

    Args:
        keys: Keys of the metrics.

    Example:
        >>> watch = Watch(["val/recall@20"])
        >>> watch.note(150, {"val/recall@20": 0.25, "loss": 1.0})
        {}
        >>> watch.begin(200)  # a snapshot
        >>> watch.of(200)
        {'val/recall@20': 0.25}
        >>> watch.note(200, {"val/recall@20": 0.26})  # a validation right after it
        {'val/recall@20': 0.26}
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self._step = -1  # of the last snapshot
        self._noted: dict[str, float] = {}  # belongs to it
        self._pending: dict[str, float] = {}  # belongs to the next one
        self._logged: set[str] = set()  # keys of everything that was logged
        self._num_snapshots = 0
        self._reported = False

    def note(self, step: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Note freshly logged metrics; return those that belong to the last snapshot.

        Args:
            step: Optimizer steps taken.
            metrics: Values by key: numbers, or tensors of one number.
        """
        self._logged |= {str(key) for key in metrics}
        values = {key: _number(metrics[key]) for key in self.keys if key in metrics}
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        target = self._noted if step == self._step else self._pending
        target.update(finite)
        return finite if step == self._step else {}

    def begin(self, step: int) -> None:
        """Begin a snapshot, to which everything noted since the last one belongs."""
        self._step, self._noted, self._pending = step, self._pending, {}
        self._num_snapshots += 1
        if self._num_snapshots == PATIENCE + 1:  # the raw snapshot is taken before anything is logged
            self.report_missing()

    def of(self, step: int) -> dict[str, float]:
        """Return the values that belong to the snapshot of a step; empty if it is not the last one."""
        return dict(self._noted) if step == self._step else {}

    def report_missing(self) -> None:
        """Warn, once, of keys that were never logged."""
        missing = [key for key in self.keys if key not in self._logged]
        if self._reported or not missing:
            return
        self._reported = True
        others = sorted(key for key in self._logged - set(self.keys) if not key.startswith(_OURS))
        rank_zero_warn(
            f"`watch` names {', '.join(map(repr, missing))}, which nothing has logged so far, so that its worth in AIS "
            f"cannot be told. Logged keys: {', '.join(others) or 'none'}.",
            category=LisWarning,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, in plain values."""
        return {
            "step": self._step, "noted": dict(self._noted), "pending": dict(self._pending),
            "logged": sorted(self._logged), "num_snapshots": self._num_snapshots, "reported": self._reported,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, as far as it is of keys that are still watched."""
        self._step, self._num_snapshots, self._reported = state["step"], state["num_snapshots"], state["reported"]
        self._logged = set(state["logged"])
        self._noted = {key: value for key, value in state["noted"].items() if key in self.keys}
        self._pending = {key: value for key, value in state["pending"].items() if key in self.keys}


def _number(value: Any) -> float:
    """Return a metric as a number; NaN for anything that is not one."""
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except Exception:  # whatever the metric is, a training does not end for it
        return math.nan
