"""What a training survives: each failure remembered, recorded, and warned of once for each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pytorch_lightning.utilities import rank_zero_warn

from lis_lightning.errors import LisWarning, RecordError

Value = TypeVar("Value")


class Failures:
    """The failures of a run.

    Args:
        note: Called with ``what``, ``step`` and ``error`` of each, to keep it; what it raises is passed over.

    Attributes:
        strict: Whether a failure is raised instead.
        step: The step that is being worked on.
        last: The last failure, in words.
    """

    def __init__(self, note: Callable[..., Any]) -> None:
        self.note = note
        self.strict = False
        self.step = 0
        self.last: str | None = None
        self._warned: set[str] = set()

    def survived(self, what: str, action: Callable[[], Value]) -> Value | None:
        """Return what an action returns; None where it fails and the training is to go on.

        An interrupt (Ctrl-C, SIGTERM) is no failure, and ends the training as it should.
        """
        try:
            return action()
        except Exception as error:
            if self.strict:
                raise
            self._keep(what, f"{type(error).__name__}: {error}")
            return None

    def of_loggers(self, failures: Iterable[str], *, may_raise: bool = True) -> None:
        """Keep what :mod:`lis_lightning.tracking.loggers` says has failed.

        Args:
            failures: A sentence each.
            may_raise: Whether they are worth the end of a strict run.

        Raises:
            RecordError: If strict, at the first one.
        """
        for failure in failures:
            if self.strict and may_raise:
                raise RecordError(f"{failure}. Mend or remove this logger.")
            self._keep("logger", failure)

    def _keep(self, what: str, error: str) -> None:
        self.last = error
        try:
            self.note(what=what, step=self.step, error=error)
        except Exception as unnoted:  # most often the disk, which has failed already
            self.last = f"{error} (not recorded: {unnoted})"
        kind = f"{what} {error.split(':')[0]}"
        if kind not in self._warned:
            self._warned.add(kind)
            rank_zero_warn(
                f"LISMonitor: the {what} of step {self.step} failed. {error} Training goes on; later failures of "
                "this kind are only recorded.",
                category=LisWarning,
            )
