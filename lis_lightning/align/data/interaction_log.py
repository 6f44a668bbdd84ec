"""Any interaction log and item table, read by the names of their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from lis_lightning.align.data.alignment_data import AlignmentData
from lis_lightning.align.data.feature_files import concatenated_features, feature_block
from lis_lightning.align.data.images import OnBadImage, check_images, image_paths, is_image_name
from lis_lightning.align.data.item_columns import read_category, read_ids, read_items, read_texts, read_titles
from lis_lightning.align.data.item_table import ItemImage, ItemTable
from lis_lightning.data.columns import Label, task_labels
from lis_lightning.data.log_reading import log_columns
from lis_lightning.data.split_folder import is_saved_split
from lis_lightning.data.tables import require_columns
from lis_lightning.data.times import Time
from lis_lightning.errors import ConfigError, ItemError


def load_log(
    log: Any,
    items: Any = None,
    *,
    user: str = "user_id",
    item: str = "item_id",
    time: Time | Sequence[str] = "timestamp",
    label: Label | Sequence[Any] | Mapping[str, Any] = "label",
    item_id: str = "item_id",
    text: str | Sequence[str] | None = "text",
    title: str = "title",
    image: str | Sequence[str] | None = None,
    image_folder: str | Path | None = None,
    features: str | Path | Sequence[str | Path] | None = None,
    categories: Sequence[str] = (),
    on_bad_image: OnBadImage = "raise",
    content: bool = True,
    columns: Sequence[str] | None = None,
) -> AlignmentData:
    """Name any interaction log, and read its item table, by the names of their columns.

    Args:
        log: As ``PreferenceSplit.from_log`` takes it, or the folder of a saved split. It is not read yet.
        items: Files or a table of the items, one row each; None if only the log is needed.
        user: Column of the log.
        item: Column of the log.
        time: Column of the log, or the column and the format of its text, as in ``("when", "%m/%d/%Y")``.
        label: Column of the log with 0/1, ``(column, threshold)``, ``(column, "buy")``, or None if every row is a
            positive; several tasks as a list of columns, or as a mapping of names to any of these.
        item_id: Column of the item table that matches ``item``.
        text: Column of the item table; several are joined with their names, as in "title: red cup", one on each line,
            without the empty ones; None if the items have no text.
        title: Column of the item table with short names, used for display if it exists.
        image: Column of the item table with paths within ``image_folder``; a list column, or several columns, for
            several images an item; the path of a folder stands for all images in it, such as the frames of a video.
            None, with an image folder given: the files, or folders, are named by the item ids.
        image_folder: The only folder that images are read from; None: the folder of the item table's file.
        features: A ``.npy`` file with rows in the order of the item table, a ``.safetensors`` file with one such
            matrix, a column of the item table that holds lists, or several of these. The rows of each are scaled to
            unit length, then they are concatenated.
        categories: Columns of the item table with categories of the items, such as a taxonomy or a brand.
        on_bad_image: ``"raise"``, or ``"blank"`` to go on without the images that cannot be used.
        content: Whether texts, images and features are read; an audit needs the ids only.
        columns: Names of all columns of the log, for text files without a header.

    Raises:
        LogError: If the log cannot be read or lacks the item column.
        ItemError: If the item table cannot be read, lacks a column, has missing or repeated ids, or an image cannot be
            used.
        ShapeError, NonFiniteError: If features do not fit.
        ConfigError: If images are named without a folder, or the label has none of these forms.

    Example:
        >>> log = pl.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "timestamp": [1, 2], "label": [0, 1]})
        >>> items = pl.DataFrame({"item_id": [7, 8], "text": ["red cup", "blue mug"]})
        >>> load_log(log, items).items.texts
        ('red cup', 'blue mug')
    """
    roles: dict[str, Any] = {}
    if isinstance(log, Sequence) and not isinstance(log, str):
        log = list(log)  # a list of a configuration is of a type of its own
    if not is_saved_split(log):
        present = log_columns(log, columns)
        require_columns(present, [item])
        when = time if isinstance(time, str) else tuple(time)
        roles = {"user": user, "item": item, "time": when, "label": task_labels(label, present), "columns": columns}
    if items is None:
        return AlignmentData("log", log, roles, None)
    if not content:
        text = image = image_folder = features = None
    item_table = load_items(
        items, item_id=item_id, text=text, title=title, image=image, image_folder=image_folder, features=features,
        categories=categories, on_bad_image=on_bad_image,
    )  # fmt: skip
    return AlignmentData("log", log, roles, item_table)


def load_items(
    items: Any,
    *,
    item_id: str = "item_id",
    text: str | Sequence[str] | None = "text",
    title: str = "title",
    image: str | Sequence[str] | None = None,
    image_folder: str | Path | None = None,
    features: str | Path | Sequence[str | Path] | None = None,
    categories: Sequence[str] = (),
    on_bad_image: OnBadImage = "raise",
) -> ItemTable:
    """Read an item table; arguments and errors are those of :func:`load_log`."""
    texts, pictures = _columns(text), _columns(image)
    item_rows = read_items(items, [item_id, *texts, *pictures, *categories])
    ids, titles = read_ids(item_rows, item_id), read_titles(item_rows, title)
    folder = _image_folder(items, pictures, image_folder)
    item_table = ItemTable(
        ids=ids,
        texts=read_texts(item_rows, texts, ids, titles),
        images=_images(item_rows, pictures, ids, folder),
        titles=tuple(titles),
        categories={name: read_category(item_rows, name) for name in categories},
    )
    sources = [features] if isinstance(features, str | Path) else list(features or ())
    blocks = [feature_block(item_rows, source) for source in sources]
    item_table = replace(item_table, features=concatenated_features(blocks, ids))
    return check_images(item_table, on_bad_image)


def _columns(names: str | Sequence[str] | None) -> list[str]:
    """Return the columns of one part of the items; none if they do not have it."""
    return [names] if isinstance(names, str) else list(names or ())


def _image_folder(items: Any, columns: Sequence[str], folder: str | Path | None) -> Path | None:
    """Return the folder that images may be read from; None if the items have no images."""
    if folder is not None:
        return Path(folder)
    if not columns:
        return None
    if isinstance(items, str | Path):
        return Path(items).parent
    raise ConfigError(f"Item images are named in column {columns[0]!r}, but not where they are; set image_folder.")


def _images(
    table: pl.DataFrame, columns: Sequence[str], ids: NDArray[Any], folder: Path | None
) -> tuple[ItemImage, ...]:
    """Return the images of each item, named by columns or by the item id."""
    if folder is None:
        return (None,) * len(ids)
    if columns:
        return image_paths(ids, _image_names(table, columns), folder)
    image_paths(ids[:0], [], folder)  # raises if there is no such folder
    paths = list(folder.expanduser().iterdir())
    folders = {path.name: path.name for path in paths if path.is_dir()}
    files = folders | {path.stem: path.name for path in paths if is_image_name(path)}
    names = [files.get(str(item)) for item in ids.tolist()]
    if not any(names):
        raise ItemError(
            f"The image folder {folder} holds no image named by an item id, such as {ids[0]}.jpg; name "
            "the column of the item table with their paths (image), or leave image_folder out."
        )
    return image_paths(ids, names, folder)


def _image_names(table: pl.DataFrame, columns: Sequence[str]) -> list[list[str | None]]:
    """Return the names of all images of each item, from columns of names or of lists of names."""
    rows: list[list[str | None]] = [[] for _ in range(table.height)]
    for column in columns:
        values = table[column]
        if values.dtype not in (pl.String, pl.List(pl.String)):
            raise ItemError(
                f"Column {column!r} of the item table must hold image paths, or lists of them, got {values.dtype}."
            )
        for row, value in zip(rows, values.to_list(), strict=True):
            row += [value] if isinstance(value, str) else list(value or ())
    return rows
