"""What alignment may learn from: the events of the alignment window, as rows of the item table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.align.data.items import ItemTable
from lis_lightning.data.split import PreferenceSplit


@dataclass(frozen=True, eq=False)
class AlignmentEvents:
    """Events of w0 without the withheld items, sorted by user, then time.

    An event of a later window would let a run see what it is scored on.

    Attributes:
        user: User of each event, from 0, [n].
        item: Row of its item in `items`, [n].
        label: 0 or 1, [n].
        time: When, [n].
        items: The item table.
        withheld: Rows of the items that alignment must not see, whose scored events show memorising.
        units_per_day: How many time units make a day, if known.
        seed: Of whatever is drawn.
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
        """Return the events that ``split.alignment`` holds.

        Args:
            split: Its alignment window is used, and nothing else.
            items: All items.
            seed: Of whatever is drawn.

        Raises:
            ItemError: If items of the window have no row in the table.
        """
        table = split.alignment
        item = items.rows(table["item"].to_list())
        user = np.unique(table["user"].to_numpy(), return_inverse=True)[1].astype(np.int64)
        time = table["time"].to_numpy()
        order = np.lexsort((time, user))  # stable: events at one time keep the order of the split
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
        """The clicks."""
        keep = self.label == 1
        return replace(self, user=self.user[keep], item=self.item[keep], label=self.label[keep], time=self.time[keep])

    def shuffled(self) -> AlignmentEvents:
        """Return the same events with items traded between them: users and popularity stay, preferences go.

        A negative control: what a run learns from these is not preference.
        """
        return replace(self, item=np.random.default_rng([self.seed, 11]).permutation(self.item))
