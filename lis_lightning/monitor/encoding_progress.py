"""Progress and estimate of an encode, which costs most where there are many items or a large model."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

from torch import Tensor

PATIENCE = 10.0  # seconds without a line
INTERVAL = 60.0  # seconds between lines
LONG = 120.0  # seconds of an encode after which fewer items are suggested


def with_estimate(
    encoded: Generator[tuple[list[Any], Tensor]],
    num_items: int,
    report: Callable[[str], object],
    clock: Callable[[], float] = time.monotonic,
) -> Generator[tuple[list[Any], Tensor]]:
    """Yield encoded batches, and report the speed and the expected duration of an encode that takes long.

    The first line comes after ten seconds, then one a minute. Items are sorted by length, the longest first, so the
    estimate is rather too long than too short.

    Args:
        encoded: Ids and representations of item batches.
        num_items: Number of items that this process encodes.
        report: Called with each line.
        clock: Seconds.

    Example:
        >>> seconds = iter([0.0, 12.0, 20.0])
        >>> batches = ((["a", "b"], None) for _ in range(2))
        >>> list(with_estimate(batches, 100, print, lambda: next(seconds)))[0][0]
        LISMonitor: 2 of 100 items encoded in 12 s (0.167 a second): about 10 min in all. \
`max_items` of PreferenceSplit.from_log needs fewer items, and a larger batch may be faster
        ['a', 'b']
    """
    began = clock()
    done, due = 0, PATIENCE
    for ids, embeddings in encoded:
        yield ids, embeddings
        done += len(ids)
        elapsed = clock() - began
        if elapsed < due or done >= num_items:
            continue
        due = elapsed + INTERVAL
        total = elapsed * num_items / done
        advice = ". `max_items` of PreferenceSplit.from_log needs fewer items, and a larger batch may be faster"
        report(
            f"LISMonitor: {done:,} of {num_items:,} items encoded in {elapsed:.0f} s ({done / elapsed:.3g} a second): "
            f"about {duration(total)} in all{advice if total > LONG else ''}"
        )


def duration(seconds: float) -> str:
    """Return a duration in seconds, or in minutes if it is long.

    Example:
        >>> duration(40), duration(600)
        ('40 s', '10 min')
    """
    return f"{seconds:.0f} s" if seconds < LONG else f"{seconds / 60:.0f} min"
