"""Snapshots on request: schedules that are due when a user touches a file or sends a signal.

Files and signals can reach one process and not the others, so only the first process is asked.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from typing_extensions import override

from lis_lightning.errors import ConfigError
from lis_lightning.monitor.schedule import LocalSchedule, Moment


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
    _modified: float | None = field(default=None, init=False, repr=False)
    _handled: float | None = field(default=None, init=False, repr=False)
    _next_poll: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.poll_seconds >= 0:
            raise ConfigError(f"`OnFile(poll_seconds)` must be at least 0, got {self.poll_seconds}.")

    @override
    def start(self, folder: Path) -> None:
        self._file = folder / self.path
        self._modified = self._handled = None
        self._next_poll = 0.0

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        if self._file is None or now.seconds < self._next_poll:
            return False
        self._next_poll = now.seconds + self.poll_seconds
        try:
            self._modified = self._file.stat().st_mtime
        except OSError:
            self._modified = None
        return self._modified is not None and self._modified != self._handled

    @override
    def taken(self) -> None:
        if self._file is not None and self._modified is not None:
            self._handled = self._modified  # a file that cannot be removed must not trigger at every step
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
        >>> schedule.request()
        >>> schedule.due(Moment(), last=Moment())
        True
    """

    name: str = "SIGUSR1"
    _requested: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.name not in signal.Signals.__members__:
            raise ConfigError(f"`OnSignal(name)` must be a signal such as 'SIGUSR1', got {self.name!r}.")

    @override
    def start(self, folder: Path) -> None:
        self._requested = False
        _SignalHandlers.add(signal.Signals[self.name], self)

    @override
    def due(self, now: Moment, last: Moment) -> bool:
        return self._requested

    @override
    def taken(self) -> None:
        self._requested = False

    @override
    def stop(self) -> None:
        _SignalHandlers.remove(signal.Signals[self.name], self)

    def request(self) -> None:
        """Request a snapshot, as the signal does."""
        self._requested = True


class _SignalHandlers:
    """One handler per signal, shared by all schedules that listen for it (several monitors can)."""

    _listeners: dict[int, list[OnSignal]] = {}  # noqa: RUF012  # per process, like signal handlers
    _previous: dict[int, Any] = {}  # noqa: RUF012  # handlers to restore

    @classmethod
    def add(cls, number: signal.Signals, listener: OnSignal) -> None:
        listeners = cls._listeners.setdefault(number, [])
        if not listeners:
            if threading.current_thread() is not threading.main_thread():
                raise ConfigError(f"OnSignal({number.name!r}) needs a fit in the main thread; use OnFile() elsewhere.")
            previous = signal.getsignal(number)
            if previous not in (signal.SIG_DFL, signal.SIG_IGN):
                raise ConfigError(
                    f"OnSignal({number.name!r}): the signal already has a handler, {previous!r} (Lightning requeues "
                    "SLURM jobs by SIGUSR1); use another signal, such as OnSignal('SIGUSR2')."
                )
            cls._previous[number] = signal.signal(number, cls._handle)
        # By identity: two schedules of different monitors can be equal.
        if not any(schedule is listener for schedule in listeners):
            listeners.append(listener)

    @classmethod
    def remove(cls, number: signal.Signals, listener: OnSignal) -> None:
        listeners = cls._listeners.get(number, [])
        if any(schedule is listener for schedule in listeners):
            cls._listeners[number] = [schedule for schedule in listeners if schedule is not listener]
            if not cls._listeners[number]:
                signal.signal(number, cls._previous.pop(number))

    @classmethod
    def _handle(cls, number: int, frame: FrameType | None) -> None:
        for listener in cls._listeners.get(number, []):
            listener.request()
