from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from lis_lightning.align.data.item_columns import read_ids, read_items, read_texts
from lis_lightning.errors import ItemError, LisWarning

IDS = np.array([1, 2, 3])


def test_missing_column_lists_those_there_are_and_the_nearest():
    with pytest.raises(ItemError, match=r"item table has no column 'txet'; it has \['item', 'text'\].*mean 'text'\?"):
        read_items(pl.DataFrame({"item": [1], "text": ["a"]}), ["item", "txet"])


def test_an_empty_or_absent_table_is_refused(tmp_path):
    with pytest.raises(ItemError, match="item table has no rows"):
        read_items(pl.DataFrame({"item": []}), ["item"])
    with pytest.raises(ItemError, match=r"item table '.*gone\.parquet' does not exist"):
        read_items(tmp_path / "gone.parquet", ["item"])
    with pytest.raises(ItemError, match=r"item table .* got int"):
        read_items(3, ["item"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series([30, 10, 20], dtype=pl.Int32), [30, 10, 20]),
        (pl.Series(["b", "a", "c"]), ["b", "a", "c"]),
    ],
    ids=["int", "str"],
)
def test_ids_keep_the_order_of_the_table(values, expected):
    ids = read_ids(pl.DataFrame({"item": values}), "item")
    assert ids.tolist() == expected
    assert ids.dtype.kind in "iO"


def test_missing_or_odd_ids_are_refused():
    with pytest.raises(ItemError, match=r"Item table: Column 'item' has 2 missing ids, the first in row 1"):
        read_ids(pl.DataFrame({"item": [1, None, None]}), "item")
    with pytest.raises(ItemError, match=r"Column 'item' must hold integer or string ids, got Float64 with fractions"):
        read_ids(pl.DataFrame({"item": [1.5, 2.0]}), "item")


def test_the_title_stands_in_for_a_missing_text():
    table = pl.DataFrame({"text": ["a", None, "  "]})
    with pytest.warns(LisWarning, match=r"2 of 3 items have no text in column 'text'.* used: item ids 2, 3\."):
        assert read_texts(table, ["text"], IDS, ["A", "B", "C"]) == ("a", "B", "C")


def test_an_item_without_text_and_title_is_refused():
    table = pl.DataFrame({"text": ["a", None, ""]})
    with pytest.raises(ItemError, match=r"1 of 3 items have neither a text .*'text' nor a title: item ids 3\. "):
        read_texts(table, ["text"], IDS, ["A", "B", ""])
    with pytest.raises(ItemError, match=r"'text' of the item table must hold texts, got Int64"):
        read_texts(pl.DataFrame({"text": [1, 2, 3]}), ["text"], IDS, ["", "", ""])


def test_several_columns_become_a_line_each_without_the_empty_ones():
    table = pl.DataFrame({"text": ["a", None, " "], "tags": [["x", "y"], [], None], "price": [1.5, None, None]})
    columns = ["text", "tags", "price"]
    with pytest.warns(LisWarning, match=r"2 of 3 items have no text in the columns 'text', 'tags', 'price', and their"):
        texts = read_texts(table, columns, IDS, ["A", "B", "C"])
    assert texts == ("text: a\ntags: x, y\nprice: 1.5", "B", "C")
    with pytest.raises(ItemError, match=r"'box' of the item table must hold texts, numbers or lists of texts, got Str"):
        read_texts(table.with_columns(box=pl.struct("text")), ["text", "box"], IDS, ["A", "B", "C"])


def test_items_may_have_no_texts_at_all():
    assert read_texts(pl.DataFrame({"item": IDS}), [], IDS, ["A", "B", "C"]) == ("", "", "")


def test_unsigned_ids_beyond_63_bits_keep_their_value():
    assert read_ids(pl.DataFrame({"item": pl.Series([2**64 - 1], dtype=pl.UInt64)}), "item").tolist() == [2**64 - 1]
