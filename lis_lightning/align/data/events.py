"""The events that alignment may learn from: those of the alignment window, as rows of the item table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.data.tables import id_codes
from lis_lightning.data.times import timestamps


@dataclass(frozen=True, eq=False)
class AlignmentEvents:
    """Events of the alignment window, without withheld items, sorted by user and then by time.

    Later events are left out, since they would let a run train on what it is scored on.

    Attributes:
        user: User of each event, from 0, [n].
        item: Row of its item in `items`, [n].
        label: 0 or 1, [n].
        time: When, [n].
        items: The item table.
        withheld: Rows of the items that alignment must not see: scored events of these items reveal memorisation.
        units_per_day: Time units in a day, if known.
        seed: Of everything that is drawn at random.

    Example:
        >>> items = ItemTable(np.array([7, 8]), ("red cup", "blue mug"), (None, None))
        >>> zeros = np.zeros(2, int)
        >>> events = AlignmentEvents(zeros, np.array([0, 1]), np.array([1, 0]), np.arange(2), items, zeros[:0], None, 0)
        >>> events.positives.item.tolist()
        [0]
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    label: NDArray[np.int8]
    time: NDArray[Any]
    items: ItemTable
    withheld: NDArray[np.int64]
    units_per_day: int | None
    seed: int

    @classmethod
    def from_split(cls, split: PreferenceSplit, items: ItemTable, *, seed: int = 0) -> AlignmentEvents:
        """Return the events of ``split.alignment``.

        Args:
            split: Only its alignment window is used.
            items: All items.
            seed: Of everything that is drawn at random.

        Raises:
            ItemError: If items of the window have no row in the table.
        """
        table = split.alignment
        item_ids, item_codes = id_codes(table, split.settings["item"])
        item = items.rows(item_ids)[item_codes]
        _, user = id_codes(table, split.settings["user"])
        time, _ = timestamps(table, split.settings["time"])
        order = np.lexsort((time, user))  # stable: events at one time keep the order of the split
        # Unseen items of the evaluation windows are withheld from alignment.
        withheld = items.rows(split.item_ids[np.unique(split.events.item[split.events.unseen])])
        return cls(
            user=user[order],
            item=item[order],
            label=table["label"].to_numpy()[order],
            time=time[order],
            items=items,
            withheld=withheld,
            units_per_day=split.settings["units_per_day"],
            seed=seed,
        )

    def __len__(self) -> int:
        return self.user.size

    @property
    def positives(self) -> AlignmentEvents:
        """The clicks: events with label 1."""
        keep = self.label == 1
        return replace(self, user=self.user[keep], item=self.item[keep], label=self.label[keep], time=self.time[keep])

    def shuffled(self) -> AlignmentEvents:
        """Return the events with their items permuted: a negative control without preferences.

        The activity of users and the popularity of items stay the same.
        """
        return replace(self, item=np.random.default_rng([self.seed, 11]).permutation(self.item))
