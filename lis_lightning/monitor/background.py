"""Scoring in a background thread while training goes on, with the score read at a fixed later step.

Encoding needs the weights to stand still; scoring does not need them. A thread is enough, since scoring spends its time
in NumPy and torch, which release the GIL; a process would take seconds to import torch, and need a copy of the split.
Scoring draws no global random numbers and calls no other process. The score is read at a step fixed in advance, however
long it takes to compute, so that curves and stops do not depend on timing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Background(Generic[Value]):
    """A slot for at most one value that is computed in a thread.

    Args:
        delay: Optimizer steps between the submission of a value and its reading.

    Attributes:
        step: Optimizer step that the pending value belongs to; None if there is none.

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

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a pickle, with the value that is pending: threads cannot be pickled."""
        value = None if self.step is None else self.peek()
        return {"delay": self.delay, "step": self.step, "value": value}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.delay, self.step, self._future, self._executor = state["delay"], None, None, None
        if state["step"] is not None:
            self.restore(state["step"], state["value"])

    def submit(self, step: int, job: Callable[[], Value]) -> None:
        """Start computing a value; the previous one must have been taken.

        Args:
            step: Optimizer step that the value belongs to.
            job: Computes the value.
        """
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="lis-score")
        self._future = self._executor.submit(job)
        self.step = step

    def restore(self, step: int, value: Value | Exception) -> None:
        """Restore a value that was computed before a resume, or the exception that its job raised."""
        self._future = Future()
        if isinstance(value, Exception):
            self._future.set_exception(value)
        else:
            self._future.set_result(value)
        self.step = step

    def due(self, step: int) -> bool:
        """Return whether the pending value is to be read at this step."""
        return self.step is not None and step >= self.step + self.delay

    def peek(self) -> Value | Exception:
        """Wait for the value and return it, or the exception that its job raised; it stays pending."""
        try:
            return self._finished().result()
        except Exception as error:
            return error

    def take(self) -> Value:
        """Wait for the value and return it, or raise what its job raised; an interrupted wait keeps it."""
        future = self._finished()
        self.step = self._future = self._executor = None
        return future.result()

    def _finished(self) -> Future[Value]:
        """Wait for the thread to end and return its future."""
        if self._future is None:
            raise RuntimeError("Nothing was submitted.")
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        return self._future
