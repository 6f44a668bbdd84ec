"""The generated world as the data of a fine-tuning run or an audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lis_lightning.align.data.alignment_data import AlignmentData
from lis_lightning.align.world.world import generate_world


def load_world(cache_dir: str | Path, *, content: bool = True, **parameters: Any) -> AlignmentData:
    """Return a generated world with its log, items and known truth.

    The world is generated on first use, and again if its files are damaged.

    Args:
        cache_dir: Folder that holds the generated worlds.
        content: Whether items have images and texts. Without them the world is drawn in memory and nothing is written.
        parameters: Fields of :class:`~lis_lightning.align.world.WorldParams`.

    Raises:
        ConfigError: If a parameter is unknown or out of range.

    Example:
        >>> data = load_world("unused", content=False, num_users=50, num_items=20, num_events=400)
        >>> data.log.height, len(data.items)
        (400, 20)
    """
    world = generate_world(cache_dir if content else None, **parameters)
    columns = {"user": "user_id", "item": "item_id", "time": "timestamp", "label": "clicked"}
    return AlignmentData("world", world.log, columns, world.items, world)
