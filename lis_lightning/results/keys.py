"""Logged keys of results: few by default, all others under ``more/``, none with a blank."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

HEADLINES = ("ais", "ais_low", "ais_high", "headroom", "realised", "best_ais")
"""The numbers that are logged by default, without the prefix ``lis/``."""

INTERVAL = ("ais", "ais_low", "ais_high")
"""The numbers that are logged by default of another label or a later period."""


FAMILIES = ("more", "task", "period")
"""First parts of keys with several parts; no monitor may have such a name."""


def name_parts(names: Iterable[str]) -> dict[str, str]:
    """Return each name as a part of a key: letters, digits, ``_``, ``.`` and ``-``, numbered where two are the same.

    Args:
        names: Different names, such as those of slices. Their order decides which of two is numbered.

    Example:
        >>> name_parts(["head items", "surface=home feed", "a/b", "a b"])
        {'head items': 'head_items', 'surface=home feed': 'surface_home_feed', 'a/b': 'a_b', 'a b': 'a_b_2'}
    """
    parts: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = part = re.sub(r"[^\w.-]+", "_", name).strip("_") or "_"
        number = 2
        while taken & (keys := {part, f"{part}_low", f"{part}_high"}):
            part = f"{plain}_{number}"
            number += 1
        taken |= keys
        parts[name] = part
    return parts


def keyed(numbers: Mapping[str, float], headlines: Collection[str], *, more: bool) -> dict[str, float]:
    """Return numbers by logged key: the headlines under their names, the others under ``more/`` or not at all.

    Args:
        numbers: Numbers by name.
        headlines: Names that are logged by default.
        more: Whether to return the others too.

    Example:
        >>> keyed({"ais": 0.01, "auc": 0.7}, HEADLINES, more=True)
        {'ais': 0.01, 'more/auc': 0.7}
    """
    keys = {name: value for name, value in numbers.items() if name in headlines}
    if more:
        keys |= {f"more/{name}": value for name, value in numbers.items() if name not in headlines}
    return keys


def number_name(key: str) -> str:
    """Return the name of the number that is logged under a key, without ``lis/`` before it.

    Example:
        >>> number_name("more/slice/head_items"), number_name("task/like/more/auc"), number_name("codes/more/ais_low")
        ('slice/head_items', 'task/like/auc', 'codes/ais_low')
    """
    return re.sub(r"^((?:(?:task|period)/[^/]+/|[^/]+/)?)more/", r"\1", key)


def nest(prefix: str, numbers: Mapping[str, float]) -> dict[str, float]:
    """Return numbers with a prefix and a slash before their names.

    Example:
        >>> nest("task/like", {"ais": 0.01})
        {'task/like/ais': 0.01}
    """
    return {f"{prefix}/{name}": value for name, value in numbers.items()}
