"""Named random streams of a split, so that no two uses of a seed draw the same random numbers."""

from __future__ import annotations

import numpy as np

STREAMS = {
    "smallest detectable gain": 3,
    "placebo": 7,
    "companions": 11,
    "audit": 13,
}


def random_stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator of a named stream.

    Args:
        seed: Seed of the split.
        name: One of :data:`STREAMS`.

    Example:
        >>> [int(random_stream(0, "placebo").integers(1000)) for _ in range(2)]
        [796, 796]
    """
    return np.random.default_rng([seed, STREAMS[name]])
