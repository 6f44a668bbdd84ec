"""Conversion of what users pass as preference data: a built-in name, an object or a callable."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from lis_lightning.errors import ConfigError
from lis_lightning.scoring.preferences.built_in import BUILT_IN
from lis_lightning.scoring.preferences.preference_data import PreferenceData
from lis_lightning.scoring.preferences.vector_builder import Builder, VectorBuilder

Preference: TypeAlias = str | PreferenceData | Builder
_NAME = re.compile(r"[a-z0-9_]+")


def as_preference(given: Any) -> PreferenceData:
    """Return preference data as an object.

    Args:
        given: A built-in kind, ``"pairs"`` or ``"ids"``, preference data, or a callable.

    Raises:
        ConfigError: If `given` is none of these.

    Example:
        >>> as_preference("pairs").name
        'pairs'
    """
    if isinstance(given, PreferenceData):
        return given
    if isinstance(given, str):
        if given not in BUILT_IN:
            raise ConfigError(f"Unknown preference data {given!r}; expected one of {sorted(BUILT_IN)}.")
        return BUILT_IN[given]
    if not callable(given):
        raise ConfigError(
            f"Expected preference data as one of {sorted(BUILT_IN)}, a PairTable, IdEmbeddings, Completed or a "
            f"callable, got {type(given).__name__}; read a table with PairTable(table, user=...)."
        )
    return VectorBuilder(given)


def by_name(ceilings: Sequence[str] | Mapping[str, Preference]) -> dict[str, PreferenceData]:
    """Return preference data by the name under which its ceiling is logged.

    Args:
        ceilings: Built-in kinds, ``("pairs", "ids")``, or a mapping of names to preference data.

    Raises:
        ConfigError: If a name cannot be part of a logged key, or a value is no preference data.

    Example:
        >>> by_name({"clicks": "pairs"})["clicks"].name
        'pairs'
    """
    if isinstance(ceilings, str):
        raise ConfigError(f"Expected `ceilings` as a list or a mapping, got text; write ({ceilings!r},).")
    if isinstance(ceilings, Mapping):
        chosen = dict(ceilings)
    else:
        unnamed = [item for item in ceilings if not isinstance(item, str)]
        if unnamed:
            raise ConfigError(
                f"Only built-in preference data {tuple(BUILT_IN)} can be given without a name, got {unnamed[0]!r}; "
                'write `ceilings={"mine": ...}`.'
            )
        chosen = {kind: kind for kind in ceilings}
    for name in chosen:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith(("_low", "_high")):
            raise ConfigError(
                f"Expected names of ceilings in lower-case letters, digits and _, not ending in _low or _high, got "
                f"{name!r}; it becomes the key lis/more/ceiling_NAME."
            )
    return {name: as_preference(preference) for name, preference in chosen.items()}
