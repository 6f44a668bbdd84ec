from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lis_lightning.align.data import ItemTable
from lis_lightning.errors import ItemError, NonFiniteError, ShapeError


def _table(count: int) -> ItemTable:
    return ItemTable(np.arange(100, 100 + count), ("item",) * count, (None,) * count)


def test_select_keeps_rows_together_in_the_asked_order():
    table = ItemTable(
        np.array(["a", "b", "c"]),
        ("A", "B", "C"),
        (None, Path("b.png"), None),
        np.eye(3, dtype=np.float32),
        ("first", "second", "third"),
    )
    chosen = table.select(np.array(["c", "b"]))
    assert chosen.ids.tolist() == ["c", "b"]
    assert chosen.texts == ("C", "B")
    assert chosen.images == (None, Path("b.png"))
    assert chosen.titles == ("third", "second")
    np.testing.assert_array_equal(chosen.features, [[0, 0, 1], [0, 1, 0]])
    assert len(chosen) == 2
    assert table.rows(["b", "b", "a"]).tolist() == [1, 1, 0]


def test_titles_default_to_the_start_of_the_text():
    table = ItemTable(np.array([1, 2]), ("x" * 100, "short"), (None, None), titles=("", "named"))
    assert table.titles == ("x" * 60, "named")
    assert ItemTable(np.array([1]), ("y" * 100,), (None,)).titles == ("y" * 60,)


def test_absent_ids_are_counted_and_the_first_five_named():
    table = _table(3)
    with pytest.raises(ItemError, match=r"7 of 8 item ids .* of 3 items: 1, 2, 3, 4, 5 and 2 more\. Add") as caught:
        table.select([101, 1, 2, 3, 4, 5, 6, 7])
    assert "likely cause" not in str(caught.value)


def test_numbers_against_strings_are_named_as_the_likely_cause():
    with pytest.raises(ItemError, match=r"likely cause: .* ids are integers \(100\) .* strings \('100'\)"):
        _table(1).select(["100"])
    texts = ItemTable(np.array(["7"], dtype=object), ("seven",), (None,))
    with pytest.raises(ItemError, match=r"ids are strings \('7'\) and the others integers \(7\)"):
        texts.select(np.array([7]))


def test_repeated_ids_are_named():
    with pytest.raises(ItemError, match=r"2 item ids occur more than once .* 3, 4\. Keep one row"):
        ItemTable(np.array([4, 3, 4, 3, 1]), ("",) * 5, (None,) * 5)


@pytest.mark.parametrize("name", ["texts", "images", "titles"])
def test_fields_of_another_length_are_refused(name):
    given = {"texts": ("a", "b"), "images": (None, None), "titles": ("a", "b")} | {name: ("a", "b", "c")}
    with pytest.raises(ItemError, match=rf"`{name}` has 3 rows for 2 item ids"):
        ItemTable(np.array([1, 2]), **given)


def test_features_must_have_one_finite_row_an_item():
    fields = {"ids": np.array([5, 6]), "texts": ("a", "b"), "images": (None, None)}
    with pytest.raises(ShapeError, match=r"shape \(3, 4\), expected \(2, dim\)"):
        ItemTable(**fields, features=np.zeros((3, 4), np.float32))
    with pytest.raises(ShapeError, match=r"shape \(2,\)"):
        ItemTable(**fields, features=np.zeros(2, np.float32))
    with pytest.raises(NonFiniteError, match=r"features of 1 of 2 items hold NaN or infinity: item ids 6\."):
        ItemTable(**fields, features=np.array([[0, 1], [0, np.nan]], np.float32))
