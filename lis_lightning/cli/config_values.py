"""Parts of a composed configuration as Python arguments are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def drop_null(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are not None: ``objectives.pairs=null`` leaves out one of several objectives.

    Example:
        >>> drop_null({"pairs": None, "bpr": 1})
        {'bpr': 1}
    """
    return {name: value for name, value in section.items() if value is not None}


def lists_as_tuples(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section of plain values with its lists as tuples.

    Example:
        >>> lists_as_tuples({"windows": [0.5, 0.25, 0.25], "history": 50})
        {'windows': (0.5, 0.25, 0.25), 'history': 50}
    """
    tuples = {name: tuple(value) for name, value in section.items() if isinstance(value, list)}
    return {**section, **tuples}
