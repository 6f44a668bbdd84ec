"""Several schedules and a clock, in one run: is a snapshot due now?"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lis_lightning.errors import ConfigError
from lis_lightning.monitor.schedule import EverySteps, LocalSchedule, Moment, OnDemand, Schedule

SHARED_EVERY = 10  # optimizer steps between questions to the first of several processes: each makes all of them wait


class Scheduler:
    """What a run's schedules have said so far, and what its snapshots have cost.

    Args:
        schedules: Any of them makes a snapshot due.
    """

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        self.schedules = list(schedules)
        self.steady = [schedule for schedule in schedules if not isinstance(schedule, LocalSchedule)]
        self.local = [schedule for schedule in schedules if isinstance(schedule, LocalSchedule)]
        self.on_demand = [schedule for schedule in schedules if isinstance(schedule, OnDemand)]
        self.last: Moment | None = None
        self._now = Moment()
        self._running = False
        self._began = 0.0
        self._asked = 0
        self._shared = False

    def start(self, folder: Path, *, step: int, epoch: int, shared: bool) -> None:
        """Begin or go on with a training.

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
        for schedule in self.on_demand:
            schedule.start(folder)

    def due(self, step: int, epoch: int, decide: Callable[[bool], bool], *, validation: bool = False) -> bool:
        """Return whether a snapshot is due; the same on every process.

        Args:
            step: Optimizer steps taken.
            epoch: Epochs completed.
            decide: Takes what this process says and returns what the first one says; all call it at the same steps.
            validation: Whether a validation run begins.
        """
        validations = self._now.validations + validation
        self._now = now = Moment(
            step=step, epoch=epoch, validations=validations, seconds=self._seconds(), spent=self._now.spent,
            cost=self._now.cost,
        )  # fmt: skip
        last = self.last or Moment()
        if self.last is not None and step <= last.step:
            self.last = replace(last, epoch=epoch, validations=validations)  # that snapshot serves these too
            return False
        if any(schedule.due(now, last) for schedule in self.steady):
            return True
        if not self.local:
            return False
        if not self._shared:
            return any(schedule.due(now, last) for schedule in self.local)
        if step // SHARED_EVERY == self._asked // SHARED_EVERY:
            return False
        self._asked = step
        return decide(any(schedule.due(now, last) for schedule in self.local))

    @contextlib.contextmanager
    def taking(self, step: int) -> Iterator[None]:
        """Time an attempt at a snapshot, failed or not: the next is due after it."""
        raw = self.last is None
        self.last = self._now = replace(self._now, step=step, cost=0.0)
        with self.waiting(raw=raw):
            yield
        for schedule in self.on_demand:
            schedule.taken()

    @contextlib.contextmanager
    def waiting(self, *, raw: bool = False) -> Iterator[None]:
        """Time what the training waits for; it is part of the cost of the last snapshot."""
        began = time.perf_counter()
        try:
            yield
        finally:
            waited = time.perf_counter() - began
            if raw:  # else the budget would begin with a debt
                self._began += waited
            self._now = replace(
                self._now, spent=self._now.spent + (0.0 if raw else waited), cost=self._now.cost + waited
            )

    def stop(self) -> None:
        """Wait for nobody any longer."""
        self._now = replace(self._now, seconds=self._seconds())
        self._running = False
        for schedule in self.on_demand:
            schedule.stop()

    def describe(self) -> list[str]:
        """Return the schedules in words."""
        return [repr(schedule) for schedule in self.schedules]

    def state_dict(self) -> dict[str, Any]:
        """Return plain values from which :meth:`load_state_dict` goes on."""
        now = replace(self._now, seconds=self._seconds())
        return {"now": asdict(now), "last": None if self.last is None else asdict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another training was saved."""
        self._now = Moment(**state["now"])
        self.last = None if state["last"] is None else Moment(**state["last"])

    def _seconds(self) -> float:
        return time.perf_counter() - self._began if self._running else self._now.seconds


def make_scheduler(every_n_steps: int | None, schedule: Schedule | Sequence[Schedule] | None) -> Scheduler:
    """Return the scheduler of the schedules given to a monitor; every 200 steps if none.

    Raises:
        ConfigError: If `every_n_steps` is below 1, or `schedule` is none.
    """
    if every_n_steps is None and schedule is None:
        every_n_steps = 200
    if every_n_steps is not None and every_n_steps < 1:
        raise ConfigError(f"`every_n_steps` must be at least 1 optimizer step, got {every_n_steps}.")
    given = [] if schedule is None else schedule
    schedules = list(given) if isinstance(given, Sequence) else [given]
    for one in schedules:
        if not isinstance(one, Schedule):
            raise ConfigError(
                f"`schedule` must be a schedule of `lis_lightning.monitor.schedule` or a list of them, got {one!r}: "
                "for example EverySteps(200) or [LogSpaced(10), OnFile()]."
            )
    return Scheduler([*([EverySteps(every_n_steps)] if every_n_steps is not None else []), *schedules])


def check_schedule(
    every_n_steps: int | None, schedule: Schedule | Sequence[Schedule] | None, background_steps: int | None
) -> None:
    """Raise for what a user gave, where no snapshot could be taken so.

    Raises:
        ConfigError: As :func:`make_scheduler`, or if `background_steps` is below 1.
    """
    make_scheduler(every_n_steps, schedule)
    if background_steps is not None and background_steps < 1:
        raise ConfigError(f"`background_steps` must be at least 1 optimizer step or None, got {background_steps}.")
