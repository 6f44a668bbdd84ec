"""Columns of the item table, checked: ids, titles, categories and texts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data.item_rows import first_ids
from lis_lightning.data.tables import id_codes, read_table, require_columns
from lis_lightning.errors import ItemError, LisWarning, LogError


def read_items(source: Any, columns: Sequence[str]) -> pl.DataFrame:
    """Read the item table, and check that it has the columns that are needed.

    Args:
        source: Files or a table, as ``PreferenceSplit.from_log`` takes them.
        columns: Columns that it must have, that of the ids first.

    Raises:
        ItemError: If it cannot be read, is empty, or lacks a column; the message lists its columns and the
            nearest name.
    """
    try:
        table = read_table(source, "item table", ids=columns[:1])
        require_columns(table, columns, "item table")
    except LogError as error:
        raise ItemError(str(error)) from error
    if not table.height:
        raise ItemError("The item table has no rows; give one row for each item of the log.")
    return table


def read_ids(table: pl.DataFrame, column: str) -> NDArray[Any]:
    """Return the ids in the order of the table, int64 or str.

    Raises:
        ItemError: If ids are missing, or are neither integers nor strings.
    """
    try:
        distinct, codes = id_codes(table, column)
    except LogError as error:
        raise ItemError(f"Item table: {error}") from error
    ids: NDArray[Any] = distinct[codes]
    is_wide = ids.dtype.kind == "u" and ids.size and ids.max() > np.iinfo(np.int64).max
    return ids.astype(np.int64) if ids.dtype.kind in "iu" and not is_wide else ids


def read_titles(table: pl.DataFrame, column: str) -> list[str]:
    """Return the short names of the items as text; empty where there is none, or no such column."""
    if column not in table.columns:
        return [""] * table.height
    return table[column].cast(pl.String).fill_null("").str.strip_chars().to_list()


def read_category(table: pl.DataFrame, column: str) -> tuple[str | None, ...]:
    """Return the values of a column as text; None for an empty one."""
    values = table[column].cast(pl.String).str.strip_chars()
    return tuple(values.replace("", None))


def read_texts(
    table: pl.DataFrame, columns: Sequence[str], ids: NDArray[Any], titles: Sequence[str]
) -> tuple[str, ...]:
    """Return the texts of the items; a missing text is replaced by the title, with a warning.

    Args:
        table: The item table.
        columns: Its columns of texts; several are joined by lines of name and value. None of them gives empty texts.
        ids: The items, for messages.
        titles: Replace missing texts.

    Raises:
        ItemError: If the only column is not of texts, or an item has neither text nor title.

    Warns:
        LisWarning: How many texts were missing.
    """
    if not columns:
        return ("",) * len(ids)
    named = ", ".join(map(repr, columns))
    where = f"column {named}" if len(columns) == 1 else f"the columns {named}"
    texts = _joined_texts(table, columns) if len(columns) > 1 else _texts(table, columns[0])
    missing = np.array([not text for text in texts])
    nothing = np.array([not (text or title) for text, title in zip(texts, titles, strict=True)])
    if nothing.any():
        raise ItemError(
            f"{int(nothing.sum())} of {len(ids)} items have neither a text in {where} nor a title: item ids "
            f"{first_ids(ids[nothing])}. Fill them in, or set text=null to use no texts at all."
        )
    if missing.any():
        warnings.warn(
            f"{int(missing.sum())} of {len(ids)} items have no text in {where}, and their titles are used: "
            f"item ids {first_ids(ids[missing])}.",
            LisWarning,
            stacklevel=3,
        )
    return tuple(text or title for text, title in zip(texts, titles, strict=True))


def _texts(table: pl.DataFrame, column: str) -> list[str]:
    if table[column].dtype != pl.String:
        raise ItemError(
            f"Column {column!r} of the item table must hold texts, got {table[column].dtype}; name another column."
        )
    return table[column].fill_null("").str.strip_chars().to_list()


def _joined_texts(table: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the filled columns of each item, a line each: ``brand: Acme``. Lists of texts are joined by commas."""
    lines: list[list[str]] = [[] for _ in range(table.height)]
    for column in columns:
        values = table[column]
        if values.dtype == pl.List(pl.String):
            values = values.list.join(", ")
        elif values.dtype.is_nested():
            raise ItemError(
                f"Column {column!r} of the item table must hold texts, numbers or lists of texts, got {values.dtype}."
            )
        for line, value in zip(lines, values.cast(pl.String).fill_null("").str.strip_chars(), strict=True):
            line += [f"{column}: {value}"] if value else []
    return ["\n".join(line) for line in lines]
