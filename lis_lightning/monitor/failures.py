"""Failure handling of a monitored run: errors are recorded and warned about once per kind, and training goes on.

Only what can heal is survived. An error of the raw snapshot that every later one would repeat, such as a wrong
`item_key`, is raised: before the first step nothing is lost yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn
from typing_extensions import override

from lis_lightning.errors import ConfigError, ItemError, LisError, LisWarning, RecordError, ShapeError

# A wrong setting, a missing file, or a mistake in the code of the module or the items.
CANNOT_HEAL = (
    ConfigError, ShapeError, ItemError, FileNotFoundError, TypeError, AttributeError, LookupError, NameError,
    NotImplementedError, ImportError,
)  # fmt: skip


def cannot_heal(error: BaseException | None) -> bool:
    """Return whether an error of the raw snapshot would be repeated by every later one.

    Example:
        >>> cannot_heal(FileNotFoundError("7.png")), cannot_heal(MemoryError())
        (True, False)
    """
    return isinstance(error, CANNOT_HEAL)


def permanent_error(error: Exception, hint: str = "") -> LisError | None:
    """Return the error to raise in place of one that cannot heal, with what to do about it; None if it can.

    Args:
        error: What the raw snapshot raised.
        hint: A further cause with its fix, in a sentence.
    """
    if not cannot_heal(error):
        return None
    if isinstance(error, LisError):
        return type(error)(f"{error} {hint}".strip())
    if isinstance(error, FileNotFoundError):
        fix = "Put the file there, or leave the events of its item out of the log."
    else:
        fix = "Correct `encode_items`, `encode` or `items`; Trainer(fast_dev_run=True) tries them in seconds."
    return ConfigError(
        f"The snapshot before the first step failed, and every later one would: {type(error).__name__}: {error}. "
        f"{fix} {hint}".strip()
    )


class Failures:
    """The failures of a run.

    Args:
        record: Called with ``what``, ``step`` and ``error`` for each failure, to write it down. An error that it raises
            is only added to :attr:`last`.

    Attributes:
        strict: Whether a failure is raised instead of tolerated.
        step: Optimizer step at which the monitor is working.
        last: The last failure as text, None before the first.
        num_snapshots: Number of snapshots that failed.
        last_snapshot: Why the last of them failed, as text.
    """

    def __init__(self, record: Callable[..., Any]) -> None:
        self.strict = False
        self.step = 0
        self.last: str | None = None
        self.num_snapshots = 0
        self.last_snapshot = ""
        self._record = record
        self._warned: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of failed snapshots and the last error, for a checkpoint."""
        return {"num_snapshots": self.num_snapshots, "last_snapshot": self.last_snapshot, "last": self.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.num_snapshots, self.last_snapshot = state["num_snapshots"], state["last_snapshot"]
        self.last = state["last"]

    def adopt(self, recorded: Sequence[Mapping[str, Any]]) -> None:
        """Take over the failures in a record that another process has written."""
        snapshots = [failure["error"] for failure in recorded if failure["what"] == "snapshot"]
        self.num_snapshots, self.last_snapshot = len(snapshots), "".join(snapshots[-1:])
        self.last = recorded[-1]["error"] if recorded else None

    def tolerate(
        self, what: str, *, unless: Callable[[Exception], LisError | None] = lambda error: None
    ) -> AbstractContextManager[None, bool]:
        """Return a context that records an exception raised in it instead of raising it, unless the run is strict.

        An interrupt (Ctrl-C, SIGTERM) is not an ``Exception``: it passes through and ends the training.

        Args:
            what: What the block does, for the record and the warning, such as ``"snapshot"``.
            unless: Returns the error to raise in place of one that is not tolerated, else None.

        Example:
            >>> import warnings
            >>> failures = Failures(record=lambda **failure: print(failure))
            >>> failures.step = 200
            >>> with warnings.catch_warnings(action="ignore"), failures.tolerate("snapshot"):
            ...     raise ValueError("no items")
            {'what': 'snapshot', 'step': 200, 'error': 'ValueError: no items'}
        """
        return _Tolerance(self, what, unless)

    def add_logger_failures(self, failures: Iterable[str], *, may_raise: bool = True) -> None:
        """Record the failures that a function of :mod:`lis_lightning.tracking.loggers` returned.

        Args:
            failures: One sentence per failure.
            may_raise: Whether a strict run raises the first one.

        Raises:
            RecordError: If the run is strict and `may_raise` is set.
        """
        for failure in failures:
            if self.strict and may_raise:
                raise RecordError(f"{failure}. Mend or remove this logger.")
            self.add("logger", failure)

    def add(self, what: str, error: str) -> None:
        """Record a failure, and warn if it is the first of its kind.

        Args:
            what: What failed.
            error: Type and message of the exception; failures are of one kind if `what` and type agree.
        """
        self.last = error
        if what == "snapshot":
            self.num_snapshots += 1
            self.last_snapshot = error
        try:
            self._record(what=what, step=self.step, error=error)
        except Exception as record_error:  # most often the full disk that caused the failure itself
            self.last = f"{error} (not recorded: {record_error})"
        kind = f"{what} {error.split(':')[0]}"
        if kind not in self._warned:
            self._warned.add(kind)
            rank_zero_warn(
                f"LISMonitor: the {what} of step {self.step} failed. {error} Training goes on; later failures of "
                "this kind are only recorded.",
                category=LisWarning,
            )


class _Tolerance(AbstractContextManager[None, bool]):
    """A block whose exceptions are recorded; a class, as mypy takes it that a generator's block never swallows any."""

    def __init__(self, failures: Failures, what: str, unless: Callable[[Exception], LisError | None]) -> None:
        self._failures = failures
        self._what = what
        self._unless = unless

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        if refusal := self._unless(error):
            raise refusal from error
        if self._failures.strict:
            return False
        self._failures.add(self._what, f"{type(error).__name__}: {error}")
        return True
