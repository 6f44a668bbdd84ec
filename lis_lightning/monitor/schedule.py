"""Snapshot schedules: at which optimizer steps a snapshot is due.

Every run is scored before the first step and at the end. Between them a snapshot is taken whenever any schedule of the
list is due, at most once per optimizer step::

    LISMonitor(split, items, every_n_steps=200)
    LISMonitor(split, items, schedule=LogSpaced(10, per_decade=4))
    LISMonitor(split, items, schedule=[EveryValidation(), OnFile(), OnSignal("SIGUSR2")])

A schedule is a function of two moments, now and the last snapshot, so that a resumed run continues the same sequence.
Clocks, signals and files can differ between processes: for these only the first process is asked, every few steps, and
its answer is broadcast.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from typing_extensions import override

from lis_lightning.errors import ConfigError


@dataclass(frozen=True)
class Moment:
    """A point in a training, in the units that schedules count.

    Attributes:
        step: Optimizer steps taken.
        epoch: Epochs completed.
        validations: Validation runs begun.
        seconds: Wall-clock time of the training, of the parts before a resume too, without the raw snapshot.
        spent: Seconds that the training waited for snapshots, without the raw one.
        cost: Seconds that it waited for the last one.

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
        """Return whether a snapshot is due now, after the last one (the raw one, if there was no other)."""


class LocalSchedule(Schedule):
    """A schedule whose answer can differ between processes: only the first process is asked."""


class OnDemand(LocalSchedule):
    """A schedule that is due when a user requests a snapshot."""

    @abstractmethod
    def start(self, folder: Path) -> None:
        """Start listening for requests; `folder` is the folder of the run."""

    @abstractmethod
    def taken(self) -> None:
        """Clear the request: a snapshot has been taken."""

    @abstractmethod
    def stop(self) -> None:
        """Stop listening."""


@dataclass(frozen=True)
class EverySteps(Schedule):
    """Every `n` optimizer steps, however many batches each takes.

    Example:
        >>> EverySteps(200).due(Moment(step=400), last=Moment(step=200))
        True
    """

    n: int

    def __post_init__(self) -> None:
        _check_whole("EverySteps", "n", self.n, "optimizer step")

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        return now.step // self.n > last.step // self.n


@dataclass(frozen=True)
class EveryEpochs(Schedule):
    """At the last batch of every `n`-th epoch, before callbacks that act on the end of the epoch.

    Example:
        >>> EveryEpochs(2).due(Moment(epoch=2), last=Moment(epoch=1))
        True
    """

    n: int = 1

    def __post_init__(self) -> None:
        _check_whole("EveryEpochs", "n", self.n, "epoch")

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        return now.epoch // self.n > last.epoch // self.n


@dataclass(frozen=True)
class EveryValidation(Schedule):
    """Before every `n`-th validation run of the Trainer.

    With it, stock ``EarlyStopping(monitor="lis/ais")`` and ``ModelCheckpoint(monitor="lis/ais")``, which read the
    metric after a validation, get the score of the current weights. The sanity check does not count as a validation
    run.

    Example:
        >>> EveryValidation(2).due(Moment(validations=3), last=Moment(validations=2))
        False
    """

    n: int = 1

    def __post_init__(self) -> None:
        _check_whole("EveryValidation", "n", self.n, "validation run")

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        return now.validations // self.n > last.validations // self.n


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
        return max(
            0, 1 + math.floor(self.per_decade * math.log10((step + 0.5) / self.first))
        )  # scheduled steps are rounded


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


@dataclass
class OnFile(OnDemand):
    """When a file appears: ``touch RUN/snapshot``. The file is removed when the snapshot has been taken.

    Args:
        path: The file; relative to the folder of the run's record.
        poll_seconds: Seconds between checks for the file; shared file systems can be slow.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     schedule = OnFile("now")
        ...     schedule.start(Path(folder))
        ...     (Path(folder) / "now").touch()
        ...     schedule.due(Moment(seconds=1.0), last=Moment())
        True
    """

    path: str = "snapshot"
    poll_seconds: float = 1.0
    _file: Path | None = field(default=None, init=False, repr=False)
    _seen: float | None = field(default=None, init=False, repr=False)
    _served: float | None = field(default=None, init=False, repr=False)
    _next_look: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.poll_seconds >= 0:
            raise ConfigError(f"`OnFile(poll_seconds)` must be at least 0, got {self.poll_seconds}.")

    @override
    def start(self, folder: Path) -> None:
        self._file = folder / self.path
        self._seen = self._served = None
        self._next_look = 0.0

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        if self._file is None or now.seconds < self._next_look:
            return False
        self._next_look = now.seconds + self.poll_seconds
        try:
            self._seen = self._file.stat().st_mtime
        except OSError:
            self._seen = None
        return self._seen is not None and self._seen != self._served

    @override
    def taken(self) -> None:
        if self._file is not None and self._seen is not None:
            self._served = self._seen  # a file that cannot be removed must not trigger at every step
            with contextlib.suppress(OSError):
                self._file.unlink()

    @override
    def stop(self) -> None:
        self._file = None


@dataclass
class OnSignal(OnDemand):
    """When the process gets a signal: ``kill -USR1 PID``; with several processes, the first of them (rank 0).

    Args:
        name: The signal. Lightning's automatic requeue under SLURM uses SIGUSR1: use SIGUSR2 there.

    Example:
        >>> schedule = OnSignal("SIGUSR2")
        >>> schedule.ask()
        >>> schedule.due(Moment(), last=Moment())
        True
    """

    name: str = "SIGUSR1"
    _asked: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.name not in signal.Signals.__members__:
            raise ConfigError(f"`OnSignal(name)` must be a signal such as 'SIGUSR1', got {self.name!r}.")

    @override
    def start(self, folder: Path) -> None:
        self._asked = False
        _Switchboard.add(signal.Signals[self.name], self)

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        return self._asked

    @override
    def taken(self) -> None:
        self._asked = False

    @override
    def stop(self) -> None:
        _Switchboard.remove(signal.Signals[self.name], self)

    def ask(self) -> None:
        """Request a snapshot, as the signal does."""
        self._asked = True


class _Switchboard:
    """One handler per signal, shared by all schedules that listen for it (several monitors can)."""

    _waiting: dict[int, list[OnSignal]] = {}  # noqa: RUF012  # per process, like signal handlers
    _before: dict[int, Any] = {}  # noqa: RUF012

    @classmethod
    def add(cls, number: signal.Signals, waiting: OnSignal) -> None:
        present = cls._waiting.setdefault(number, [])
        if not present:
            if threading.current_thread() is not threading.main_thread():
                raise ConfigError(f"OnSignal({number.name!r}) needs a fit in the main thread; use OnFile() elsewhere.")
            before = signal.getsignal(number)
            if before not in (signal.SIG_DFL, signal.SIG_IGN):
                raise ConfigError(
                    f"OnSignal({number.name!r}): the signal has a handler already, {before!r} (Lightning requeues "
                    "SLURM jobs by SIGUSR1); use another one, such as OnSignal('SIGUSR2')."
                )
            cls._before[number] = signal.signal(number, cls._handle)
        if not any(schedule is waiting for schedule in present):
            present.append(waiting)

    @classmethod
    def remove(cls, number: signal.Signals, waiting: OnSignal) -> None:
        present = cls._waiting.get(number, [])
        if any(schedule is waiting for schedule in present):
            cls._waiting[number] = [schedule for schedule in present if schedule is not waiting]
            if not cls._waiting[number]:
                signal.signal(number, cls._before.pop(number))

    @classmethod
    def _handle(cls, number: int, frame: FrameType | None) -> None:
        for waiting in cls._waiting.get(number, []):
            waiting.ask()


def _check_whole(schedule: str, name: str, value: Any, unit: str) -> None:
    """Raise unless a value is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"`{schedule}({name})` must be at least 1 {unit}, a whole number, got {value!r}.")
