"""Which items gained most by training, and which lost: the gain of each item, followed from snapshot to snapshot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data.tables import Table, id_codes, read_table, require_columns
from lis_lightning.errors import ItemError, ShapeError
from lis_lightning.functional.intervals import Z95, Estimate
from lis_lightning.results.result import LISResult


@dataclass(frozen=True, eq=False)
class Catalogue:
    """How items are shown to people, in the order of R's rows.

    Attributes:
        ids: Item ids, [num_items].
        titles: A name each; the id where none is known.
        images: File of a picture each, None where there is none.

    Example:
        >>> table = pl.DataFrame({"item_id": [9, 7], "title": ["mug", "cup"]})
        >>> Catalogue.of(np.array([7, 8]), table).titles
        ('cup', '8')
    """

    ids: NDArray[Any]
    titles: tuple[str, ...]
    images: tuple[Path | None, ...]

    @classmethod
    def of(cls, ids: NDArray[Any], table: str | Path | Table | None = None, *, item: str = "item_id") -> Self:
        """Return the catalogue of some items.

        Args:
            ids: Item ids in the order of R's rows, ``split.item_ids``.
            table: One row an item, with the columns `item` and, where known, ``title`` and ``image`` (a path). Items
                that it lacks go by their id; None: all of them do.
            item: Its column of ids.

        Raises:
            ItemError: If an id occurs twice, or ``image`` is no column of paths.
            LogError: If the table cannot be read or has no column of ids.
        """
        if table is None:
            return cls(ids, tuple(map(str, ids.tolist())), (None,) * len(ids))
        rows = read_table(table, what="catalogue")
        require_columns(rows, [item], "catalogue")
        known, codes = id_codes(rows, item)
        if known.size < rows.height:
            twice = known[np.bincount(codes) > 1]
            raise ItemError(f"The catalogue has {twice.size} ids more than once: {twice[:5].tolist()}. Keep one each.")
        if "image" in rows.columns and rows["image"].dtype not in (pl.String, pl.Null):
            raise ItemError(f"Column 'image' of the catalogue must hold paths, got {rows['image'].dtype}.")
        row_of = dict(zip(known[codes].tolist(), range(rows.height), strict=True))
        place = [row_of.get(one) for one in ids.tolist()]

        def column(name: str) -> list[Any]:
            values = rows[name].to_list() if name in rows.columns else [None] * rows.height
            return [None if row is None else values[row] for row in place]

        titles = (str(title or one) for title, one in zip(column("title"), ids.tolist(), strict=True))
        return cls(ids, tuple(titles), tuple(path and Path(path) for path in column("image")))

    @staticmethod
    def beside(record: Path) -> Path:
        """Return where the catalogue of a run lies: beside its record, named like it."""
        return record.with_name(record.stem.replace("record", "items", 1) + ".parquet")

    def write(self, path: Path) -> None:
        """Write a parquet file that :meth:`read` takes."""
        images = [None if image is None else str(image.absolute()) for image in self.images]
        columns = {"item_id": self.ids, "title": self.titles, "image": pl.Series(images, dtype=pl.String)}
        pl.DataFrame(columns).write_parquet(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what :meth:`write` wrote, in the same order."""
        return cls.of(pl.read_parquet(path)["item_id"].to_numpy(), path)


@dataclass(frozen=True, kw_only=True)
class Mover:
    """An item whose gain rose or fell.

    Attributes:
        item_id: Its id.
        title: Its name.
        image: File of its picture; None where there is none.
        gain: What its test events add to AIS now, in AUC units.
        change: By how much that rose since the first snapshot. The interval takes the two as independent, which they
            are not: it is too wide rather than too narrow. It does not know that this item was picked among many.
    """

    item_id: Any
    title: str
    image: Path | None
    gain: Estimate
    change: Estimate


def movers(first: LISResult, last: LISResult, catalogue: Catalogue, *, num: int = 10) -> list[Mover]:
    """Return the items whose gain rose most between two snapshots, then those whose gain fell most.

    Args:
        first: The earlier snapshot.
        last: The later one, on the same split.
        catalogue: The items of the split.
        num: How many of each at most.

    Returns:
        Movers, those that rose first, each by how much; none where a result has no gains of items.

    Raises:
        ShapeError: If the results or the catalogue do not fit together.
    """
    if not first.item_gains.size or not last.item_gains.size:
        return []
    sizes = (first.item_gains.size, last.item_gains.size, catalogue.ids.size)
    if len(set(sizes)) > 1 or first.split_hash != last.split_hash:
        raise ShapeError(
            f"Items are compared on one split only: the results have {sizes[0]} and {sizes[1]} items on splits "
            f"{first.split_hash!r} and {last.split_hash!r}, the catalogue {sizes[2]}."
        )
    change = last.item_gains - first.item_gains
    order = np.argsort(-change, kind="stable")
    rose = [row for row in order[:num] if change[row] > 0]
    fell = [row for row in order[::-1][:num] if change[row] < 0]
    return [_mover(int(row), first, last, catalogue) for row in (*rose, *fell)]


def _mover(row: int, first: LISResult, last: LISResult, catalogue: Catalogue) -> Mover:
    error, before = float(last.item_errors[row]), float(first.item_errors[row])
    gain = float(last.item_gains[row])
    return Mover(
        item_id=catalogue.ids[row].item() if isinstance(catalogue.ids[row], np.generic) else catalogue.ids[row],
        title=catalogue.titles[row],
        image=catalogue.images[row],
        gain=_estimate(gain, error),
        change=_estimate(gain - float(first.item_gains[row]), math.hypot(error, before)),
    )


def _estimate(value: float, se: float) -> Estimate:
    return Estimate(value=value, se=se, low=value - Z95 * se, high=value + Z95 * se)


def concentration(gains: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the smallest share of the items that make half of what is gained; 0.5 where all gain alike.

    Args:
        gains: Of each item; those that lose count nothing.

    Returns:
        A share in (0, 0.5]; NaN where nothing is gained.

    Example:
        >>> concentration([4.0, 1.0, 1.0, 1.0, 1.0])
        0.2
    """
    gained = np.sort(np.clip(np.asarray(gains, float), 0, None))[::-1]
    if not gained.size or gained[0] <= 0:
        return math.nan
    running = np.cumsum(gained)
    return float((np.searchsorted(running, running[-1] / 2) + 1) / gained.size)
