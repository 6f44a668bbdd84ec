"""The schedules of one run together with its clock and the measured cost of its snapshots."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lis_lightning.errors import ConfigError
from lis_lightning.monitor.on_demand import OnDemand
from lis_lightning.monitor.schedule import EverySteps, LocalSchedule, Moment, Schedule

# Optimizer steps between broadcasts of the first process's answer; each broadcast synchronises all processes.
SHARED_EVERY = 10


class Scheduler:
    """Decides when a run takes a snapshot, and times the snapshots.

    Args:
        schedules: A snapshot is due when any of them is due.

    Attributes:
        schedules: The same.
        last: Moment of the last snapshot, None before the first.
    """

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        self.schedules = list(schedules)
        self._deterministic = [schedule for schedule in schedules if not isinstance(schedule, LocalSchedule)]
        self._local = [schedule for schedule in schedules if isinstance(schedule, LocalSchedule)]
        self._on_demand = [schedule for schedule in schedules if isinstance(schedule, OnDemand)]
        self.last: Moment | None = None
        self._now = Moment()
        self._running = False
        self._began = 0.0
        self._last_decided = 0
        self._shared = False

    def start(self, folder: Path, *, step: int, epoch: int, shared: bool) -> None:
        """Start the clock and the schedules of a new or resumed training.

        Args:
            folder: Folder of the run.
            step: Optimizer steps taken before.
            epoch: Epochs completed before.
            shared: Whether there are several processes.
        """
        self._began = time.perf_counter() - self._now.seconds
        self._running = True
        self._now = replace(self._now, step=step, epoch=epoch)
        self._shared = shared
        for schedule in self._on_demand:
            schedule.start(folder)

    def due(self, step: int, epoch: int, decide: Callable[[bool], bool], *, validation: bool = False) -> bool:
        """Return whether a snapshot is due; the same on every process.

        Args:
            step: Optimizer steps taken.
            epoch: Epochs completed.
            decide: Takes this process's answer and returns the first process's; all call it at the same steps.
            validation: Whether a validation run begins.
        """
        validations = self._now.validations + validation
        self._now = now = Moment(
            step=step, epoch=epoch, validations=validations, seconds=self._seconds(), spent=self._now.spent,
            cost=self._now.cost,
        )  # fmt: skip
        last = self.last or Moment()
        if self.last is not None and step <= last.step:
            # The snapshot of this step also serves the end of its epoch and its validation.
            self.last = replace(last, epoch=epoch, validations=validations)
            return False
        if any(schedule.due(now, last) for schedule in self._deterministic):
            return True
        if not self._local:
            return False
        if not self._shared:
            return any(schedule.due(now, last) for schedule in self._local)
        if step // SHARED_EVERY == self._last_decided // SHARED_EVERY:
            return False
        self._last_decided = step
        return decide(any(schedule.due(now, last) for schedule in self._local))

    @contextlib.contextmanager
    def taking(self, step: int) -> Iterator[None]:
        """Time a snapshot and make it the last one, even if it fails."""
        raw = self.last is None
        self.last = self._now = replace(self._now, step=step, cost=0.0)
        with self.waiting(raw=raw):
            yield
        for schedule in self._on_demand:
            schedule.taken()

    @contextlib.contextmanager
    def waiting(self, *, raw: bool = False) -> Iterator[None]:
        """Add the time that the training waits in the block to the cost of the last snapshot."""
        began = time.perf_counter()
        try:
            yield
        finally:
            waited = time.perf_counter() - began
            if raw:  # not part of the budget, which would otherwise start overdrawn
                self._began += waited
            self._now = replace(
                self._now, spent=self._now.spent + (0.0 if raw else waited), cost=self._now.cost + waited
            )

    def stop(self) -> None:
        """Stop the clock and the schedules."""
        self._now = replace(self._now, seconds=self._seconds())
        self._running = False
        for schedule in self._on_demand:
            schedule.stop()

    def describe(self) -> list[str]:
        """Return the representation of each schedule, such as ``EverySteps(n=200)``."""
        return [repr(schedule) for schedule in self.schedules]

    def state_dict(self) -> dict[str, Any]:
        """Return the state in plain values, for :meth:`load_state_dict`."""
        now = replace(self._now, seconds=self._seconds())
        return {"now": asdict(now), "last": None if self.last is None else asdict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self._now = Moment(**state["now"])
        self.last = None if state["last"] is None else Moment(**state["last"])

    def _seconds(self) -> float:
        return time.perf_counter() - self._began if self._running else self._now.seconds


def make_scheduler(every_n_steps: int | None, schedule: Schedule | Sequence[Schedule] | None) -> Scheduler:
    """Return the scheduler of the schedules given to a monitor; every 200 steps if none.

    Raises:
        ConfigError: If `every_n_steps` is below 1, or `schedule` is neither a schedule nor a list of them.
    """
    if every_n_steps is None and schedule is None:
        every_n_steps = 200
    if every_n_steps is not None and every_n_steps < 1:
        raise ConfigError(f"`every_n_steps` must be at least 1 optimizer step, got {every_n_steps}.")
    given = [] if schedule is None else schedule
    schedules = list(given) if isinstance(given, Sequence) else [given]
    for item in schedules:
        if not isinstance(item, Schedule):
            raise ConfigError(
                f"`schedule` must be a schedule of `lis_lightning.monitor` or a list of them, got {item!r}: "
                "for example EverySteps(200) or [LogSpaced(10), OnFile()]."
            )
    if every_n_steps is not None:
        schedules.insert(0, EverySteps(every_n_steps))
    return Scheduler(schedules)


def check_schedule(
    every_n_steps: int | None, schedule: Schedule | Sequence[Schedule] | None, background_steps: int | None
) -> None:
    """Check the arguments of a monitor that say when snapshots are taken and read.

    Raises:
        ConfigError: As :func:`make_scheduler`, or if `background_steps` is below 1.
    """
    make_scheduler(every_n_steps, schedule)
    if background_steps is not None and background_steps < 1:
        raise ConfigError(f"`background_steps` must be at least 1 optimizer step or None, got {background_steps}.")
