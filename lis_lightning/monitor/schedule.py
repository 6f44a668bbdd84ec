"""Snapshot schedules: at which optimizer steps a snapshot is due.

Every run is scored before the first step and at the end. Between them a snapshot is taken whenever any schedule of the
list is due, at most once per optimizer step::

    LISMonitor(split, items, every_n_steps=200)
    LISMonitor(split, items, schedule=LogSpaced(10, per_decade=4))
    LISMonitor(split, items, schedule=[EveryValidation(), OnFile(), OnSignal("SIGUSR2")])

A schedule is a function of two moments, now and the last snapshot, so a resumed run continues the same sequence.
Clocks can differ between processes: a schedule that reads one is asked on the first process only, every few steps, and
the answer is broadcast. :mod:`lis_lightning.monitor.on_demand` has the schedules that react to a user's request.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from lis_lightning.errors import ConfigError


@dataclass(frozen=True)
class Moment:
    """A point in a training, in the units that schedules count.

    Attributes:
        step: Optimizer steps taken; batches where Lightning does not count the steps (manual optimisation).
        epoch: Epochs completed.
        validations: Validation runs begun.
        seconds: Wall-clock time of the training, including the time before a resume, excluding the raw snapshot.
        spent: Seconds that the training has waited for snapshots, excluding the raw one.
        cost: Seconds that the training waited for the last snapshot.

    Example:
        >>> Moment(step=200, epoch=1).step
        200
    """

    step: int = 0
    epoch: int = 0
    validations: int = 0
    seconds: float = 0.0
    spent: float = 0.0
    cost: float = 0.0


class Schedule(ABC):
    """Base class of snapshot schedules; a subclass defines :meth:`due`.

    Example:
        >>> class EvenSteps(Schedule):
        ...     def due(self, now, last):
        ...         return now.step % 2 == 0
        >>> [EvenSteps().due(Moment(step=step), last=Moment()) for step in (1, 2)]
        [False, True]
    """

    @abstractmethod
    def due(self, now: Moment, last: Moment) -> bool:
        """Return whether a snapshot is due now; `last` is the moment of the last snapshot, at first the raw one."""


class LocalSchedule(Schedule):
    """A schedule whose answer can differ between processes: only the first process is asked."""


class Periodic(Schedule):
    """Base class of schedules that are due at every `n`-th count of one field of :class:`Moment`."""

    n: int
    counter: ClassVar[str]  # field of Moment
    unit: ClassVar[str]

    def __post_init__(self) -> None:
        _check_whole(type(self).__name__, "n", self.n, self.unit)

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        return bool(getattr(now, self.counter) // self.n > getattr(last, self.counter) // self.n)


@dataclass(frozen=True)
class EverySteps(Periodic):
    """Every `n` optimizer steps, however many batches each takes.

    Example:
        >>> EverySteps(200).due(Moment(step=400), last=Moment(step=200))
        True
    """

    n: int
    counter: ClassVar[str] = "step"
    unit: ClassVar[str] = "optimizer step"


@dataclass(frozen=True)
class EveryEpochs(Periodic):
    """At the last batch of every `n`-th epoch, before callbacks that act on the end of the epoch.

    Example:
        >>> EveryEpochs(2).due(Moment(epoch=2), last=Moment(epoch=1))
        True
    """

    n: int = 1
    counter: ClassVar[str] = "epoch"
    unit: ClassVar[str] = "epoch"


@dataclass(frozen=True)
class EveryValidation(Periodic):
    """Before every `n`-th validation run of the Trainer.

    With it, stock ``EarlyStopping(monitor="lis/ais")`` and ``ModelCheckpoint(monitor="lis/ais")``, which read the
    metric after a validation, get the score of the current weights. The sanity check does not count as a validation
    run.

    Example:
        >>> EveryValidation(2).due(Moment(validations=3), last=Moment(validations=2))
        False
    """

    n: int = 1
    counter: ClassVar[str] = "validations"
    unit: ClassVar[str] = "validation run"


@dataclass(frozen=True)
class LogSpaced(Schedule):
    """At `first` steps, then `per_decade` times while the number of steps grows tenfold.

    Fine-tuning moves representations most at its beginning, where this schedule has most of its snapshots.

    Example:
        >>> schedule = LogSpaced(10, per_decade=2)
        >>> [step for step in range(1, 1001) if schedule.due(Moment(step=step), last=Moment(step=step - 1))]
        [10, 32, 100, 316, 1000]
    """

    first: int = 10
    per_decade: int = 4

    def __post_init__(self) -> None:
        _check_whole("LogSpaced", "first", self.first, "optimizer step")
        _check_whole("LogSpaced", "per_decade", self.per_decade, "snapshot")

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        return self._passed(now.step) > self._passed(last.step)

    def _passed(self, step: int) -> int:
        """Return the number of scheduled steps up to and including `step`."""
        decades = math.log10((step + 0.5) / self.first)  # scheduled steps are rounded, hence the half
        return max(0, 1 + math.floor(self.per_decade * decades))


@dataclass(frozen=True)
class AtSteps(Schedule):
    """At the given optimizer steps.

    Example:
        >>> AtSteps([1, 10]).due(Moment(step=10), last=Moment(step=9))
        True
    """

    steps: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise ConfigError("`AtSteps(steps)` needs at least one optimizer step, got none.")
        for step in self.steps:
            _check_whole("AtSteps", "steps", step, "optimizer step")

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        return any(last.step < step <= now.step for step in self.steps)


@dataclass(frozen=True)
class EveryMinutes(LocalSchedule):
    """When `minutes` of wall-clock time have passed since the last snapshot began.

    Example:
        >>> EveryMinutes(5).due(Moment(seconds=299), last=Moment())
        False
    """

    minutes: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ConfigError(f"`EveryMinutes(minutes)` must be above 0, got {self.minutes}.")

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        return now.seconds - last.seconds >= 60 * self.minutes


@dataclass(frozen=True)
class Budget(LocalSchedule):
    """As often as a time budget allows: snapshots take at most a `share` of the training's wall-clock time.

    The spacing follows the measured cost of the snapshots. The raw snapshot, which also computes the ceilings, and the
    one at the end are not counted in the budget.

    Example:
        >>> raw = Moment(cost=3.0)
        >>> [Budget(0.05).due(Moment(seconds=seconds, cost=3.0), last=raw) for seconds in (59.0, 60.0)]
        [False, True]
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"`Budget(share)` must be between 0 and 1 (0.05 for 5 %), got {self.share}.")

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        return now.spent + now.cost <= self.share * now.seconds


def _check_whole(schedule: str, name: str, value: Any, unit: str) -> None:
    """Raise unless a value is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"`{schedule}({name})` must be at least 1 {unit}, a whole number, got {value!r}.")
