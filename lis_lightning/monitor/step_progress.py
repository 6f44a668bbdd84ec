"""Progress lines of work in numbered steps, with an estimate of the time left; for logs, where no bar is shown."""

from __future__ import annotations

import time
from collections.abc import Callable

from lis_lightning.monitor.encoding_progress import duration


class StepProgress:
    """Report steps of work that takes long, with the time left as estimated from the steps that are done.

    Steps differ in length, so the estimate is a rough one that gets better.

    Args:
        name: Of what is working; stands before each line.
        report: Called with each line.
        patience: Seconds before the first line.
        interval: Seconds between lines, at least.
        clock: Seconds.

    Example:
        >>> seconds = iter([0.0, 0.0, 12.0, 13.0])
        >>> progress = StepProgress("lis-audit", print, patience=0, interval=5, clock=lambda: next(seconds))
        >>> for number, step in enumerate(["AIS of text", "LIS of pairs", "LIS of ids"]):
        ...     progress(step, number, 3)
        lis-audit: AIS of text (1 of 3)
        lis-audit: LIS of pairs (2 of 3), about 24 s left
    """

    def __init__(
        self,
        name: str,
        report: Callable[[str], object],
        *,
        patience: float,
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.interval = interval
        self._report = report
        self._clock = clock
        self._began = clock()
        self._due = patience

    def __call__(self, step: str, number: int, total: int) -> None:
        """Report a step that begins.

        Args:
            step: What it is.
            number: Its number, from 0.
            total: Number of steps.
        """
        elapsed = self._clock() - self._began
        if elapsed < self._due:
            return
        self._due = elapsed + self.interval
        left = f", about {duration(elapsed / number * (total - number))} left" if number else ""
        self._report(f"{self.name}: {step} ({number + 1} of {total}){left}")
