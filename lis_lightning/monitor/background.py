"""Scores computed in a thread while the training goes on, and read at a fixed later step.

A representation has to be taken while the weights stand still; its score needs no weights. A thread, since the score
spends its time in NumPy and torch, which let the training run meanwhile; a process would first load torch for seconds,
and would need a copy of the split. The score draws no global random number and calls no other process. It is read at a
step that is known beforehand, however long it takes, so that curves and stops do not depend on the machine's mood.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Background(Generic[Value]):
    """At most one value on its way.

    Args:
        delay: Optimizer steps after which a value is read.

    Attributes:
        step: Optimizer step that the value belongs to; None where there is none.

    Example:
        >>> background = Background(delay=50)
        >>> background.submit(200, lambda: "score")
        >>> [background.due(step) for step in (249, 250)], background.take()
        ([False, True], 'score')
    """

    def __init__(self, delay: int) -> None:
        self.delay = delay
        self.step: int | None = None
        self._future: Future[Value] | None = None
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, step: int, job: Callable[[], Value]) -> None:
        """Begin to compute; the value before must have been taken.

        Args:
            step: Optimizer step that the value belongs to.
            job: Computes the value.
        """
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="lis-score")
        self._future = self._executor.submit(job)
        self.step = step

    def restore(self, step: int, value: Value | Exception) -> None:
        """Have a value, or the error in its place, that was computed before."""
        self._future = Future()
        if isinstance(value, Exception):
            self._future.set_exception(value)
        else:
            self._future.set_result(value)
        self.step = step

    def due(self, step: int) -> bool:
        """Return whether the value is to be read now."""
        return self.step is not None and step >= self.step + self.delay

    def peek(self) -> Value | Exception:
        """Wait for the value, or the error in its place, and leave it where it is."""
        try:
            return self._waited().result()
        except Exception as error:
            return error

    def take(self) -> Value:
        """Wait for the value and return it, or raise what its job raised; an interrupted wait leaves it where it is."""
        future = self._waited()
        self.step = self._future = self._executor = None
        return future.result()

    def _waited(self) -> Future[Value]:
        """Return the future when it is done and its thread has ended."""
        if self._future is None:
            raise RuntimeError("Nothing was submitted.")
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        return self._future
