"""Hard negatives: items that were shown to users of an item and skipped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lis_lightning.align.data.events import AlignmentEvents


def skipped_items(events: AlignmentEvents, anchors: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Draw, for each anchor item, items that a user who clicked it was shown and skipped.

    Each draw is in two steps: a random click on the anchor, then a random skip of the user who clicked.

    Args:
        events: The events of the alignment window.
        anchors: Rows of items, [n].
        number: How many items to draw for each, with replacement.

    Returns:
        Rows of items, [n, number]; -1 where nobody clicked the anchor, the user skipped nothing, or the anchor itself
        was drawn.
    """
    # Skips are sorted by user: those of user u are at begin[u] to begin[u + 1].
    skipped = events.label == 0
    begin = np.searchsorted(events.user[skipped], np.arange(events.user.max(initial=-1) + 2))
    items = events.item[skipped]
    # Clicks sorted by item: those on an anchor are at first to past.
    clicks = events.positives
    order = np.argsort(clicks.item, kind="stable")
    first, past = (np.searchsorted(clicks.item[order], anchors, side=side) for side in ("left", "right"))
    rng = np.random.default_rng([events.seed, 12])
    shape = (anchors.size, number)
    click = first[:, None] + (rng.random(shape) * (past - first)[:, None]).astype(np.int64)
    user = clicks.user[order][np.minimum(click, order.size - 1)]
    skip = begin[user] + (rng.random(shape) * (begin[user + 1] - begin[user])).astype(np.int64)
    if not items.size:
        return np.full(shape, -1)
    possible = (past > first)[:, None] & (begin[user + 1] > begin[user])
    drawn = np.where(possible, items[np.minimum(skip, items.size - 1)], -1)
    return np.where(drawn == anchors[:, None], -1, drawn)
