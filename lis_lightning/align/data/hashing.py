"""A hash of integers: the same on every machine and in every process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mix_bits(keys: NDArray[np.int64], seed: int = 0) -> NDArray[np.uint64]:
    """Return the splitmix64 hash of each key: 64 well-mixed bits (Steele, Lea and Flood 2014).

    Args:
        keys: Integers, of any shape.
        seed: Another seed gives an independent hash.

    Returns:
        Hashes of the same shape.

    Example:
        >>> mix_bits(np.array([0, 1])).tolist()
        [16294208416658607535, 10451216379200822465]
    """
    bits = keys.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))
