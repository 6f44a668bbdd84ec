"""Movers: the items whose contribution to AIS rose or fell most between two snapshots, with titles and images."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data.tables import Table, id_codes, read_table, require_columns
from lis_lightning.errors import ItemError, ShapeError
from lis_lightning.functional.intervals import Estimate
from lis_lightning.results.result import LISResult


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Titles and images of the items, in the order of R's rows.

    Attributes:
        ids: Item ids, [num_items].
        titles: Title of each item; its id if it has no title.
        images: Image file of each item; None if it has none.

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
            table: One row per item, with the columns `item` and optionally ``title`` and ``image`` (a path). Items
                that are not in the table are shown by their id; with None, all items are.
            item: Column of `table` that holds the ids.

        Raises:
            ItemError: If an id occurs twice, or ``image`` is no column of paths.
            LogError: If the table cannot be read or has no column of ids.
        """
        if table is None:
            return cls(ids, tuple(map(str, ids.tolist())), (None,) * len(ids))
        rows = read_table(table, what="catalogue")
        require_columns(rows, [item], "catalogue")
        distinct, codes = id_codes(rows, item)
        if distinct.size < rows.height:
            repeated = distinct[np.bincount(codes) > 1]
            raise ItemError(
                f"The catalogue has {repeated.size} ids more than once: {repeated[:5].tolist()}. Keep one row each."
            )
        if "image" in rows.columns and rows["image"].dtype not in (pl.String, pl.Null):
            raise ItemError(f"Column 'image' of the catalogue must hold paths, got {rows['image'].dtype}.")
        row_of = dict(zip(distinct[codes].tolist(), rows.iter_rows(named=True), strict=True))
        item_rows = [row_of.get(item_id, {}) for item_id in ids.tolist()]
        titles = tuple(str(row.get("title") or item_id) for row, item_id in zip(item_rows, ids.tolist(), strict=True))
        paths = [row.get("image") for row in item_rows]
        return cls(ids, titles, tuple(path and Path(path) for path in paths))

    @staticmethod
    def beside(record: Path) -> Path:
        """Return the path of a run's catalogue: in the folder of its record, with a matching name."""
        return record.with_name(record.stem.replace("record", "items", 1) + ".parquet")

    @cached_property
    def parquet(self) -> bytes:
        """The contents of the file that :meth:`read` reads.

        Polars hangs in a forked process (the strategies ``ddp_fork`` and ``ddp_notebook``): compute it before.
        """
        images = [image and str(image.absolute()) for image in self.images]
        columns = {"item_id": self.ids, "title": self.titles, "image": pl.Series(images, dtype=pl.String)}
        pl.DataFrame(columns).write_parquet(file := io.BytesIO())
        return file.getvalue()

    def write(self, path: Path) -> None:
        """Write a parquet file for :meth:`read`."""
        path.write_bytes(self.parquet)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what :meth:`write` wrote, in the same order."""
        return cls.of(pl.read_parquet(path)["item_id"].to_numpy(), path)


@dataclass(frozen=True, kw_only=True)
class Mover:
    """An item whose gain rose or fell between two snapshots.

    Attributes:
        item_id: Its id.
        title: Its title.
        image: Its image file; None if it has none.
        gain: Contribution of its test events to AIS in the later snapshot, in AUC units.
        change: Change of that contribution since the earlier snapshot. The interval treats the two as independent; they
            are positively correlated, so it is too wide rather than too narrow. It uses the t quantile of all test
            users, although those of one item are fewer, and is not corrected for the selection of this item among many.
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
        num: Largest number of items that rose, and of items that fell.

    Returns:
        Items that rose, by falling change, then items that fell, by rising change; empty if a result has no item gains.

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
    critical = last.critical_value
    gain, gain_before = float(last.item_gains[row]), float(first.item_gains[row])
    error, error_before = float(last.item_errors[row]), float(first.item_errors[row])
    return Mover(
        item_id=catalogue.ids[row : row + 1].tolist()[0],
        title=catalogue.titles[row],
        image=catalogue.images[row],
        gain=_estimate(gain, error, critical),
        change=_estimate(gain - gain_before, math.hypot(error, error_before), critical),
    )


def _estimate(value: float, se: float, critical: float) -> Estimate:
    return Estimate(value=value, se=se, low=value - critical * se, high=value + critical * se)


def concentration(gains: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the smallest share of the items that together make half of the total gain; 0.5 if all gain the same.

    Args:
        gains: Gain of each item; losses count as 0.

    Returns:
        A share in (0, 0.5]; NaN if no item gains.

    Example:
        >>> concentration([4.0, 1.0, 1.0, 1.0, 1.0])
        0.2
    """
    gained = np.sort(np.clip(np.asarray(gains, float), 0, None))[::-1]
    if not gained.size or gained[0] <= 0:
        return math.nan
    running = np.cumsum(gained)
    return float((np.searchsorted(running, running[-1] / 2) + 1) / gained.size)
