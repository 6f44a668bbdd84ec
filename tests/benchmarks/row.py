"""One line of the benchmark table, and how two things are timed against each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured, against what, and the bar it must meet.

    Attributes:
        what: The thing measured, with its sizes.
        ours: Its cost.
        other: Cost of what it is compared with; None where the bar is on `ours` itself.
        against: Words for the other: ``"np.sort + searchsorted"``.
        kind: ``"floor"``: ours / other must be at most the bar. ``"peer"``: other / ours must be at least the bar.
            ``"limit"``: ours must be at most the bar.
        bar: The bar; None for a number without one.
        unit: Of `ours` and `other`.
    """

    what: str
    ours: float
    other: float | None = None
    against: str = ""
    kind: Literal["floor", "peer", "limit"] = "floor"
    bar: float | None = None
    unit: str = "s"

    @property
    def ratio(self) -> float | None:
        """Ours over the floor, or the peer over ours; None without another."""
        if self.other is None:
            return None
        return self.other / self.ours if self.kind == "peer" else self.ours / self.other

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without a bar."""
        value = self.ours if self.kind == "limit" else self.ratio
        if self.bar is None or value is None:
            return None
        return value >= self.bar if self.kind == "peer" else value <= self.bar


def best_times(*actions: Callable[[], object], repeats: int = 5) -> list[float]:
    """Return the best wall-clock seconds of each action, run in turns so that a busy moment hits all of them."""
    best = [float("inf")] * len(actions)
    for _ in range(repeats):
        for index, action in enumerate(actions):
            began = time.perf_counter()
            action()
            best[index] = min(best[index], time.perf_counter() - began)
    return best
