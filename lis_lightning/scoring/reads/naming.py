"""Conversion of what users pass as readings: names of the built-in kinds, or readings by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from lis_lightning.errors import ConfigError
from lis_lightning.scoring.reads.cosine import Cosine
from lis_lightning.scoring.reads.prefixes import Prefixes
from lis_lightning.scoring.reads.read import Read
from lis_lightning.scoring.reads.search import Search
from lis_lightning.scoring.reads.semantic_ids import SemanticIds

Reads: TypeAlias = Sequence[str] | Mapping[str, Read | str]
BUILT_IN: dict[str, Callable[[], Read]] = {
    "codes": SemanticIds,
    "cosine": Cosine,
    "prefix": Prefixes,
    "search": Search,
}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = {"companion", "more", "period", "slice", "task"}  # first parts of other logged keys


def reads_by_name(reads: Reads) -> dict[str, Read]:
    """Return readings by the name under which they are logged.

    Args:
        reads: Built-in kinds, ``("codes", "prefix")``, or a mapping of names to readings or built-in kinds.

    Raises:
        ConfigError: If a kind is unknown, or a name cannot be part of a logged key.

    Example:
        >>> reads_by_name(["codes"])["codes"]
        SemanticIds(levels=3, size=None, seed=0)
    """
    if isinstance(reads, str):
        raise ConfigError(f"Expected `reads` as a list or a mapping, got text; write ({reads!r},).")
    if not isinstance(reads, Sequence | Mapping):
        raise ConfigError(f"Expected `reads` as a list or a mapping, got {type(reads).__name__}.")
    unnamed = [kind for kind in reads if not isinstance(kind, str)]
    if unnamed:
        raise ConfigError(f"Expected names in `reads`, got {unnamed[0]!r}; write `reads={{'mine': ...}}`.")
    named = dict(reads) if isinstance(reads, Mapping) else {kind: kind for kind in reads}
    for name in named:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _TAKEN:
            raise ConfigError(
                f"Expected names of readings in lower-case letters, digits and _, none of {sorted(_TAKEN)}, got "
                f"{name!r}; it becomes the logged key lis/NAME/ais."
            )
    return {name: _read(kind) for name, kind in named.items()}


def _read(given: Read | str) -> Read:
    if isinstance(given, Read):
        return given
    if not isinstance(given, str) or given not in BUILT_IN:
        raise ConfigError(
            f"Unknown reading {given!r}; expected one of {sorted(BUILT_IN)}, or an object by a name of "
            "your own, as in reads={'codes': lis_lightning.scoring.reads.SemanticIds(levels=2)}."
        )
    return BUILT_IN[given]()
