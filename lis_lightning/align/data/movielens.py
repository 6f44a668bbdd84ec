"""MovieLens in the layouts of GroupLens, and with posters and features."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.align.data.alignment_data import AlignmentData
from lis_lightning.align.data.feature_files import concatenated_features, load_array
from lis_lightning.align.data.images import OnBadImage, check_images, image_paths
from lis_lightning.align.data.item_columns import read_ids, read_items, read_texts, read_titles
from lis_lightning.align.data.item_table import ItemTable
from lis_lightning.data.tables import id_codes, read_table, require_columns
from lis_lightning.errors import ConfigError, ItemError, LogError

_ML100K_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_RATING_COLUMNS = ("user_id", "item_id", "rating", "timestamp")


def load_movielens(
    folder: str | Path | None = None,
    *,
    features: Sequence[str] | None = ("text_minilm", "image_efficientnet_lite0"),
    threshold: float = 4,
    on_bad_image: OnBadImage = "raise",
    content: bool = True,
) -> AlignmentData:
    """Read MovieLens from a folder in one of three layouts.

    - ML-100K as distributed by GroupLens: ``u.data`` and ``u.item``;
    - ML-1M as distributed by GroupLens: ``ratings.dat`` and ``movies.dat``;
    - with posters: ``interactions.parquet``, ``items.parquet``, ``images/<item_id>.jpg`` and ``<feature>.npy``.

    Args:
        folder: The folder; None stands for ``$LIS_DATA/ml100k_mm``.
        features: Names of ``.npy`` files of item features in the folder, with rows in the order of the items. The rows
            of each are scaled to unit length, then the files are concatenated. A GroupLens folder without any of these
            files has no features.
        threshold: Ratings of this value and above are positive.
        on_bad_image: ``"raise"``, or ``"blank"`` to use plain grey for images that cannot be used.
        content: Whether images are checked and features are read; an audit needs neither.

    Raises:
        ConfigError: If no folder is given, its layout is none of the three, or a feature file does not exist.
        LogError: If the ratings cannot be read.
        ItemError: If items cannot be read, or an image cannot be used.
        ShapeError: If a feature file has not one row an item.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "ratings.dat").write_text("1::661::3::978302109")
        >>> _ = (folder / "movies.dat").write_text("661::James and the Giant Peach (1996)::Animation|Musical")
        >>> load_movielens(folder).items.texts
        ('James and the Giant Peach (1996). Animation, Musical.',)
    """
    path = movielens_folder(folder)
    readers = {
        ("interactions.parquet", "items.parquet"): _read_posters,
        ("u.data", "u.item"): _read_ml100k,
        ("ratings.dat", "movies.dat"): _read_ml1m,
    }
    files = {entry.name for entry in path.iterdir()}
    layout = next((names for names in readers if files.issuperset(names)), None)
    if layout is None:
        expected = ", or ".join(" and ".join(names) for names in readers)
        listed = ", ".join(sorted(files)[:8]) or "nothing"
        raise ConfigError(
            f"{path} is no MovieLens folder: expected {expected}; it holds {listed}. Other layouts are read by "
            "data=log."
        )
    log, items = readers[layout](path)
    items.rows(id_codes(log, "item_id")[0])  # raises for items without a row
    columns = {"user": "user_id", "item": "item_id", "time": "timestamp", "label": ("rating", threshold)}
    if not content:
        return AlignmentData("movielens", log, columns, items)
    matrices = _feature_matrices(path, features or (), optional=layout != ("interactions.parquet", "items.parquet"))
    items = replace(items, features=concatenated_features(matrices, items.ids))
    return AlignmentData("movielens", log, columns, check_images(items, on_bad_image))


def movielens_folder(folder: str | Path | None) -> Path:
    """Return the folder with MovieLens; None stands for ``$LIS_DATA/ml100k_mm``."""
    if folder is None and not os.environ.get("LIS_DATA"):
        raise ConfigError(
            "No MovieLens folder is given. Download ml-100k.zip or ml-1m.zip from grouplens.org/datasets/movielens, "
            "unpack it and set data.folder=path/to/ml-100k; or set LIS_DATA to a folder that holds ml100k_mm/."
        )
    path = Path(os.environ["LIS_DATA"]) / "ml100k_mm" if folder is None else Path(folder).expanduser()
    if not path.is_dir():
        raise ConfigError(f"The MovieLens folder {path} does not exist; set data.folder to the unpacked download.")
    return path


def _read_ml100k(folder: Path) -> tuple[pl.DataFrame, ItemTable]:
    log = _read_ratings((folder / "u.data").read_bytes(), folder / "u.data")
    # Id, title, two release dates and a link; then a flag for each genre.
    rows = _read_rows(folder / "u.item", "|", 5 + len(_ML100K_GENRES))
    genres = [_flagged_genres(cells[5:]) for cells in rows]
    return log, _titled_items(rows, genres)


def _flagged_genres(flags: Sequence[str]) -> list[str]:
    return [name for name, flag in zip(_ML100K_GENRES, flags, strict=True) if flag == "1"]


def _read_ml1m(folder: Path) -> tuple[pl.DataFrame, ItemTable]:
    log = _read_ratings((folder / "ratings.dat").read_bytes().replace(b"::", b"\t"), folder / "ratings.dat")
    rows = _read_rows(folder / "movies.dat", "::", 3)
    return log, _titled_items(rows, [cells[2].split("|") for cells in rows])


def _read_ratings(content: bytes, source: Path) -> pl.DataFrame:
    """Read user, item, rating and timestamp, separated by tabs."""
    schema = dict.fromkeys(_RATING_COLUMNS, pl.Int64)
    try:
        log = pl.read_csv(content, separator="\t", has_header=False, schema=schema)
    except pl.exceptions.PolarsError as error:
        raise LogError(f"{source} is not a MovieLens rating file (user, item, rating, timestamp): {error}") from error
    if not log.height:
        raise LogError(f"{source} has no ratings; unpack the download again.")
    return log


def _read_rows(path: Path, separator: str, num_fields: int) -> list[list[str]]:
    """Return the fields of each line of an item file, which begins with the item id."""
    rows = []
    for number, line in enumerate(path.read_text("latin-1").strip("\n").split("\n"), start=1):
        cells = line.strip("\r").split(separator)
        if len(cells) != num_fields or not cells[0].isdigit():
            raise ItemError(
                f"{path}, line {number}: expected an id and {num_fields - 1} more fields between {separator!r}, "
                f"got {len(cells)} fields starting with {line[:40]!r}."
            )
        rows.append(cells)
    return rows


def _titled_items(rows: Sequence[Sequence[str]], genres: Sequence[Sequence[str]]) -> ItemTable:
    """Return the items of a file with id and title first; title and genres are the text, the first genre a category."""
    ids = np.array([int(cells[0]) for cells in rows], dtype=np.int64)
    titles = tuple(cells[1] for cells in rows)
    texts = tuple(f"{title}. {', '.join(names)}." for title, names in zip(titles, genres, strict=True))
    main = tuple(next(iter(names), None) for names in genres)
    return ItemTable(ids, texts, (None,) * len(ids), titles=titles, categories={"genre": main})


def _read_posters(folder: Path) -> tuple[pl.DataFrame, ItemTable]:
    log = read_table(folder / "interactions.parquet")
    require_columns(log, _RATING_COLUMNS)
    table = read_items(folder / "items.parquet", ["item_id", "title", "text", "has_image"])
    ids, titles = read_ids(table, "item_id"), read_titles(table, "title")
    names: list[str | None] = [f"{item}.jpg" for item in ids.tolist()]
    for row in np.flatnonzero(~table["has_image"].cast(pl.Boolean).to_numpy()):
        names[row] = None
    texts, images = read_texts(table, ["text"], ids, titles), image_paths(ids, names, folder / "images")
    categories = {}
    if "genres" in table.columns:
        categories["genre"] = tuple(table["genres"].str.split(" ").list.first())
    return log, ItemTable(ids=ids, texts=texts, images=images, titles=tuple(titles), categories=categories)


def _feature_matrices(folder: Path, names: Sequence[str], *, optional: bool) -> list[NDArray[Any]]:
    """Return the matrices of these names; none if they are optional and the folder has none of them."""
    paths = [folder / f"{name}.npy" for name in names]
    if optional and not any(path.is_file() for path in paths):
        return []
    for path in paths:
        if not path.is_file():
            existing = ", ".join(sorted(matrix.stem for matrix in folder.glob("*.npy")))
            raise ConfigError(f"There are no item features {path.stem!r} in {folder}; it has {existing or 'none'}.")
    return [load_array(path) for path in paths]
