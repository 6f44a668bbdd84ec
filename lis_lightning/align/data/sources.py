"""An interaction log and its items, ready to fine-tune on or to audit: MovieLens, or any log and item table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.align.data.item_tables import (
    feature_block,
    joined_features,
    load_array,
    read_category,
    read_ids,
    read_items,
    read_texts,
    read_titles,
)
from lis_lightning.align.data.items import ItemTable, OnBadImage, check_images, image_paths
from lis_lightning.data.columns import Label, task_labels
from lis_lightning.data.tables import id_codes, read_table, require_columns
from lis_lightning.errors import ConfigError, ItemError, LogError

if TYPE_CHECKING:
    from lis_lightning.align.world.world import World

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
_ML100K_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_RATING_COLUMNS = ("user_id", "item_id", "rating", "timestamp")


@dataclass(frozen=True, eq=False)
class AlignmentData:
    """What a fine-tuning run or an audit starts from.

    Attributes:
        name: Where it comes from, for display.
        log: One row an event.
        columns: The log's columns as ``PreferenceSplit.from_log`` takes them: ``user``, ``item``, ``time``, ``label``.
        items: A row for every item of the log; None where only the log was read.
        truth: The generated world; None for real data.
    """

    name: str
    log: pl.DataFrame
    columns: dict[str, Any]
    items: ItemTable | None
    truth: World | None = None


def load_movielens(
    folder: str | Path | None = None,
    *,
    features: Sequence[str] | None = ("text_minilm", "image_efficientnet_lite0"),
    threshold: float = 4,
    on_bad_image: OnBadImage = "raise",
    content: bool = True,
) -> AlignmentData:
    """Read MovieLens, in whichever of three layouts the folder holds.

    - ML-100K as GroupLens gives it: ``u.data`` and ``u.item``;
    - ML-1M as GroupLens gives it: ``ratings.dat`` and ``movies.dat``;
    - with posters: ``interactions.parquet``, ``items.parquet``, ``images/<item_id>.jpg`` and ``<feature>.npy``.

    Args:
        folder: The folder; None stands for ``$LIS_DATA/ml100k_mm``.
        features: Names of ``.npy`` files of item features in the folder, rows in the order of the items. Rows of each
            are scaled to length 1 and put side by side. A GroupLens folder without any of them has no features.
        threshold: Ratings from here on are positive.
        on_bad_image: ``"raise"``, or ``"blank"`` for plain grey in place of images that cannot be used.
        content: Whether images are checked and features read; an audit needs neither.

    Raises:
        ConfigError: If no folder is given or it holds none of the three, or a feature file does not exist.
        LogError: If the ratings cannot be read.
        ItemError: If items cannot be read, or an image cannot be used.
        ShapeError: If a feature file has not one row an item.
    """
    place = _movielens_folder(folder)
    readers = {
        ("interactions.parquet", "items.parquet"): _read_posters,
        ("u.data", "u.item"): _read_ml100k,
        ("ratings.dat", "movies.dat"): _read_ml1m,
    }
    layout = next((names for names in readers if all((place / name).is_file() for name in names)), None)
    if layout is None:
        wanted = ", or ".join(" and ".join(names) for names in readers)
        held = ", ".join(sorted(path.name for path in place.iterdir())[:8]) or "nothing"
        raise ConfigError(
            f"{place} is no MovieLens folder: expected {wanted}; it holds {held}. Other layouts are read by data=log."
        )
    log, items = readers[layout](place)
    _require_rows(log, "item_id", items)
    columns = {"user": "user_id", "item": "item_id", "time": "timestamp", "label": ("rating", threshold)}
    if not content:
        return AlignmentData("movielens", log, columns, items)
    names = tuple(features or ())
    if layout[0] != "interactions.parquet" and not any((place / f"{name}.npy").is_file() for name in names):
        names = ()
    blocks = [load_array(_feature_file(place, name)) for name in names]
    items = replace(items, features=joined_features(blocks, items.ids))
    return AlignmentData("movielens", log, columns, check_images(items, on_bad_image))


def load_log(
    log: Any,
    items: Any = None,
    *,
    user: str = "user_id",
    item: str = "item_id",
    time: str = "timestamp",
    label: Label | Sequence[Any] | Mapping[str, Any] = "label",
    item_id: str = "item_id",
    text: str | None = "text",
    title: str = "title",
    image: str | None = None,
    image_folder: str | Path | None = None,
    features: str | Path | Sequence[str | Path] | None = None,
    categories: Sequence[str] = (),
    on_bad_image: OnBadImage = "raise",
    content: bool = True,
) -> AlignmentData:
    """Read any interaction log and item table by the names of their columns.

    Args:
        log: Parquet or CSV path or glob, or a polars, pandas or pyarrow table.
        items: The same for the items, one row each; None where only the log is needed.
        user: Column of the log.
        item: Column of the log.
        time: Column of the log.
        label: Column of the log with 0/1, ``(column, threshold)``, or None where every row is a positive; several tasks
            as a list of columns, or as a mapping of names to any of these.
        item_id: Column of the item table that matches ``item``.
        text: Column of the item table; None where the items have no text.
        title: Column of the item table with short names, used for display where it exists.
        image: Column of the item table with paths within ``image_folder``. None, with an image folder given: the files
            are named by the item ids.
        image_folder: The only folder images are read from; None: the folder of the item table's file.
        features: A ``.npy`` file with rows in the order of the item table, a ``.safetensors`` file with one such
            matrix, a column of the item table that holds lists, or several of these. Rows of each are scaled to
            length 1 and put side by side.
        categories: Columns of the item table that say what kind of item it is: a taxonomy, a brand.
        on_bad_image: ``"raise"``, or ``"blank"`` for plain grey in place of images that cannot be used.
        content: Whether texts, images and features are read; an audit takes no more than the ids.

    Raises:
        LogError: If the log cannot be read or lacks the item column.
        ItemError: If the item table cannot be read, lacks a column, has missing or repeated ids, lacks items of the
            log, or an image cannot be used.
        ShapeError, NonFiniteError: If features do not fit.
        ConfigError: If images are named and no folder is, or the label is none of those.
    """
    events = read_table(log)
    require_columns(events, [item])
    columns = {"user": user, "item": item, "time": time, "label": task_labels(label)}
    if items is None:
        return AlignmentData("log", events, columns, None)
    if not content:
        text = image = image_folder = features = None
    table = read_items(items, [item_id, *([text] if text else []), *([image] if image else []), *categories])
    ids, titles = read_ids(table, item_id), read_titles(table, title)
    folder = _image_folder(items, image, image_folder)
    found = ItemTable(
        ids=ids,
        texts=read_texts(table, text, ids, titles),
        images=(None,) * len(ids) if folder is None else _images(table, image, ids, folder),
        titles=tuple(titles),
        categories={name: read_category(table, name) for name in categories},
    )
    sources = [features] if isinstance(features, str | Path) else list(features or ())
    found = replace(found, features=joined_features([feature_block(table, source) for source in sources], ids))
    _require_rows(events, item, found)
    return AlignmentData("log", events, columns, check_images(found, on_bad_image))


def _movielens_folder(folder: str | Path | None) -> Path:
    if folder is None and not os.environ.get("LIS_DATA"):
        raise ConfigError(
            "No MovieLens folder is given. Download ml-100k.zip or ml-1m.zip from grouplens.org/datasets/movielens, "
            "unpack it and set data.folder=path/to/ml-100k; or set LIS_DATA to a folder that holds ml100k_mm/."
        )
    place = Path(os.environ["LIS_DATA"]) / "ml100k_mm" if folder is None else Path(folder).expanduser()
    if not place.is_dir():
        raise ConfigError(f"The MovieLens folder {place} does not exist; set data.folder to the unpacked download.")
    return place


def _read_ml100k(place: Path) -> tuple[pl.DataFrame, ItemTable]:
    log = _read_ratings((place / "u.data").read_bytes(), place / "u.data")
    ids, titles, genres = [], [], []
    for number, line in enumerate((place / "u.item").read_text("latin-1").strip("\n").split("\n"), start=1):
        cells = line.strip("\r").split("|")
        if len(cells) != 5 + len(_ML100K_GENRES) or not cells[0].isdigit():
            raise ItemError(
                f"{place / 'u.item'}, line {number}: expected an id and {4 + len(_ML100K_GENRES)} more fields between "
                f"'|', got {len(cells)} fields starting with {line[:40]!r}."
            )
        ids.append(int(cells[0]))
        titles.append(cells[1])
        genres.append([name for name, flag in zip(_ML100K_GENRES, cells[5:], strict=True) if flag == "1"])
    return log, _titled_items(ids, titles, genres)


def _read_ml1m(place: Path) -> tuple[pl.DataFrame, ItemTable]:
    log = _read_ratings((place / "ratings.dat").read_bytes().replace(b"::", b"\t"), place / "ratings.dat")
    ids, titles, genres = [], [], []
    for number, line in enumerate((place / "movies.dat").read_text("latin-1").strip("\n").split("\n"), start=1):
        cells = line.strip("\r").split("::")
        if len(cells) != 3 or not cells[0].isdigit():
            raise ItemError(f"{place / 'movies.dat'}, line {number}: expected id::title::genres, got {line[:40]!r}.")
        ids.append(int(cells[0]))
        titles.append(cells[1])
        genres.append(cells[2].split("|"))
    return log, _titled_items(ids, titles, genres)


def _read_ratings(content: bytes, source: Path) -> pl.DataFrame:
    """Read user, item, rating and timestamp between tabs."""
    schema = dict.fromkeys(_RATING_COLUMNS, pl.Int64)
    try:
        log = pl.read_csv(content, separator="\t", has_header=False, schema=schema)
    except pl.exceptions.PolarsError as error:
        raise LogError(f"{source} is not a MovieLens rating file (user, item, rating, timestamp): {error}") from error
    if not log.height:
        raise LogError(f"{source} has no ratings; unpack the download again.")
    return log


def _titled_items(ids: list[int], titles: list[str], genres: list[list[str]]) -> ItemTable:
    texts = tuple(f"{title}. {', '.join(names)}." for title, names in zip(titles, genres, strict=True))
    main = tuple(names[0] if names else None for names in genres)
    return ItemTable(
        np.array(ids, dtype=np.int64), texts, (None,) * len(ids), titles=tuple(titles), categories={"genre": main}
    )


def _read_posters(place: Path) -> tuple[pl.DataFrame, ItemTable]:
    log = read_table(place / "interactions.parquet")
    require_columns(log, _RATING_COLUMNS)
    table = read_items(place / "items.parquet", ["item_id", "title", "text", "has_image"])
    ids, titles = read_ids(table, "item_id"), read_titles(table, "title")
    names = [f"{item}.jpg" if has else None for item, has in zip(ids.tolist(), table["has_image"], strict=True)]
    texts, images = read_texts(table, "text", ids, titles), image_paths(ids, names, place / "images")
    genres = table["genres"].str.split(" ").list.first() if "genres" in table.columns else None
    categories = {} if genres is None else {"genre": tuple(genres)}
    return log, ItemTable(ids=ids, texts=texts, images=images, titles=tuple(titles), categories=categories)


def _image_folder(items: Any, image: str | None, folder: str | Path | None) -> Path | None:
    """Return where images may be read from; None where the items have none."""
    if folder is not None:
        return Path(folder)
    if image is None:
        return None
    if isinstance(items, str | Path):
        return Path(items).parent
    raise ConfigError(f"Item images are named in column {image!r}, but not where they are; set image_folder.")


def _images(table: pl.DataFrame, column: str | None, ids: NDArray[Any], folder: Path) -> tuple[Path | None, ...]:
    if column is not None:
        if table[column].dtype != pl.String:
            raise ItemError(f"Column {column!r} of the item table must hold image paths, got {table[column].dtype}.")
        return image_paths(ids, table[column].to_list(), folder)
    image_paths(ids[:0], [], folder)
    held = {path.stem: path.name for path in folder.expanduser().iterdir() if path.suffix.lower() in _IMAGE_ENDINGS}
    names = [held.get(str(item)) for item in ids.tolist()]
    if not any(names):
        raise ItemError(
            f"The image folder {folder} holds no image named by an item id, such as {ids[0]}{_IMAGE_ENDINGS[0]}; name "
            "the column of the item table with their paths (image), or leave image_folder out."
        )
    return image_paths(ids, names, folder)


def _feature_file(place: Path, name: str) -> Path:
    path = place / f"{name}.npy"
    if not path.is_file():
        held = ", ".join(sorted(other.stem for other in place.glob("*.npy"))) or "none"
        raise ConfigError(f"There are no item features {name!r} in {place}; it has {held}.")
    return path


def _require_rows(log: pl.DataFrame, column: str, items: ItemTable) -> None:
    """Raise ItemError if the log has items that the table lacks."""
    distinct, _ = id_codes(log, column)
    items.rows(distinct)
