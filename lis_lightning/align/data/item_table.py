"""The item table: ids, texts, images and features of the items in one fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data.item_rows import first_ids, rows_of
from lis_lightning.errors import ItemError, NonFiniteError, ShapeError

_TITLE_CHARACTERS = 60

ItemImage = Path | tuple[Path, ...] | None
"""The image of an item: its path, those of several images, or None for an item without one."""


@dataclass(frozen=True, eq=False)
class ItemTable:
    """Items in a fixed order; row ``i`` of every field belongs to ``ids[i]``.

    Attributes:
        ids: Original ids, [num_items], int64 or str, each once.
        texts: Description of each item; may be empty.
        images: Path of each item's image; a tuple of paths for several images, or for the frames of a video; None for
            an item without one.
        features: Precomputed features, [num_items, dim], finite; None if there are none.
        titles: Short name for display; defaults to the first 60 characters of the text.
        categories: Values by name of the category, such as a genre; None for an item without a value.

    Raises:
        ItemError: If an id occurs twice, or a field has another number of rows than there are ids.
        ShapeError: If ``features`` is not [num_items, dim].
        NonFiniteError: If a feature is NaN or infinite.

    Example:
        >>> items = ItemTable(np.array([7, 9]), ("red cup", "blue mug"), (None, None))
        >>> items.select([9]).texts
        ('blue mug',)
    """

    ids: NDArray[Any]
    texts: tuple[str, ...]
    images: tuple[ItemImage, ...]
    features: NDArray[np.float32] | None = None
    titles: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        titles = self.titles or ("",) * len(self.texts)
        columns = {"texts": self.texts, "images": self.images, "titles": titles, **self.categories}
        for name, rows in columns.items():
            if len(rows) != len(self.ids):
                raise ItemError(f"`{name}` has {len(rows)} rows for {len(self.ids)} item ids; give one row an item.")
        shown = tuple(title or text[:_TITLE_CHARACTERS] for title, text in zip(titles, self.texts, strict=True))
        object.__setattr__(self, "titles", shown)
        values, counts = np.unique(self.ids, return_counts=True)
        if (counts > 1).any():
            raise ItemError(
                f"{int((counts > 1).sum())} item ids occur more than once in the item table: "
                f"{first_ids(values[counts > 1])}. Keep one row an item."
            )
        if self.features is not None:
            check_features(self.features, self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def catalogue(self) -> pl.DataFrame:
        """Return how items are displayed: columns ``item_id``, ``title`` and ``image``, the path of the first one."""
        images = [next(map(str, image_files(image)), None) for image in self.images]
        return pl.DataFrame({"item_id": self.ids, "title": self.titles, "image": pl.Series(images, dtype=pl.String)})

    def rows(self, ids: Iterable[Any]) -> NDArray[np.int64]:
        """Return the row of each of the given ids.

        Args:
            ids: Item ids, in any order, possibly repeated.

        Raises:
            ItemError: If ids are absent; the message counts them and names the first five.
        """
        return rows_of(ids, self.ids, "item table", "Add their rows, or leave them out of the log.")

    def row(self, row: int) -> ItemTable:
        """Return the table of the text and the image in one row; faster than `select`, which looks up an id."""
        return ItemTable(self.ids[row : row + 1], self.texts[row : row + 1], self.images[row : row + 1])

    def select(self, ids: Iterable[Any]) -> ItemTable:
        """Return the table of the given ids, in that order.

        Args:
            ids: Item ids, each once.

        Raises:
            ItemError: If ids are absent; the message counts them and names the first five.
        """
        rows = self.rows(ids)

        def chosen(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[row] for row in rows)

        features = None if self.features is None else self.features[rows]
        return ItemTable(
            ids=self.ids[rows],
            texts=chosen(self.texts),
            images=chosen(self.images),
            features=features,
            titles=chosen(self.titles),
            categories={name: chosen(values) for name, values in self.categories.items()},
        )


def image_files(image: ItemImage) -> tuple[Path, ...]:
    """Return the paths of all images of an item; none if it has no image."""
    if image is None:
        return ()
    return image if isinstance(image, tuple) else (image,)


def check_features(features: NDArray[np.float32], ids: NDArray[Any]) -> None:
    """Raise unless ``features`` is a finite matrix with one row an item.

    Args:
        features: Should be [num_items, dim].
        ids: The items, [num_items].

    Raises:
        ShapeError: With the shape given and the one expected.
        NonFiniteError: With the first five items that have NaN or infinity.
    """
    if features.ndim != 2 or features.shape[0] != len(ids):
        raise ShapeError(
            f"Item features have shape {features.shape}, expected ({len(ids)}, dim): one row an item, in the order of "
            "the item table."
        )
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise NonFiniteError(
            f"The features of {int(broken.sum())} of {len(ids)} items hold NaN or infinity: item ids "
            f"{first_ids(ids[broken])}. Write zeros for items without features."
        )
