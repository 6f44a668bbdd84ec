"""Random streams of a split, named in one place: no two draws of one seed share random numbers by accident."""

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
        seed: Of the split.
        name: One of :data:`STREAMS`.

    Example:
        >>> [int(random_stream(0, "placebo").integers(1000)) for _ in range(2)]
        [796, 796]
    """
    return np.random.default_rng([seed, STREAMS[name]])
