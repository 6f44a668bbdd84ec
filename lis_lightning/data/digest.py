"""BLAKE2 digests of arrays, ids and text."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest(*parts: str | bytes | NDArray[Any]) -> str:
    """Return the BLAKE2b digest of some parts as 32 hex digits; it also depends on the boundaries between parts.

    Example:
        >>> digest("ab", "c") == digest("a", "bc")
        False
    """
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            data = f"{part.dtype.str}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
        else:
            data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def digest_ids(ids: NDArray[Any]) -> str:
    """Return the digest of integer or text ids."""
    return digest(json.dumps(ids.tolist()))
