"""What steps that may take long print: a line, and a progress bar that appears once they do."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TypeVar

PATIENCE = 1.0  # seconds without a bar
_Element = TypeVar("_Element")


def with_progress(elements: Iterable[_Element], total: int, description: str) -> Iterator[_Element]:
    """Yield the elements; show a progress bar on standard error, if it is a terminal, once a second has passed.

    Args:
        elements: What takes time to produce or to consume.
        total: Their number.
        description: Stands before the bar.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    started = time.monotonic()
    with ExitStack() as stack:
        progress: Progress | None = None
        for done, element in enumerate(elements, start=1):
            yield element
            if progress is None and time.monotonic() - started > PATIENCE:
                console = Console(stderr=True)
                columns = (*Progress.get_default_columns(), MofNCompleteColumn())
                bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
                progress = stack.enter_context(bar)
                task = progress.add_task(description, total=total)
            if progress is not None:
                progress.update(task, completed=done)


def note(text: str) -> None:
    """Print a line without wrapping."""
    from rich.console import Console

    Console().print(text, markup=False, highlight=False, soft_wrap=True)
