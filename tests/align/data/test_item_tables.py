from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from lis_lightning.align.data.item_tables import (
    feature_block,
    joined_features,
    load_array,
    read_ids,
    read_items,
    read_texts,
)
from lis_lightning.errors import ConfigError, ItemError, LisWarning, NonFiniteError, ShapeError

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
    with pytest.raises(ItemError, match=r"Column 'item' must hold integer or string ids, got Float64"):
        read_ids(pl.DataFrame({"item": [1.0, 2.0]}), "item")


def test_the_title_stands_in_for_a_missing_text():
    table = pl.DataFrame({"text": ["a", None, "  "]})
    with pytest.warns(LisWarning, match=r"2 of 3 items have no text in column 'text'.* used: item ids 2, 3\."):
        assert read_texts(table, "text", IDS, ["A", "B", "C"]) == ("a", "B", "C")


def test_an_item_without_text_and_title_is_refused():
    table = pl.DataFrame({"text": ["a", None, ""]})
    with pytest.raises(ItemError, match=r"1 of 3 items have neither a text .*'text' nor a title: item ids 3\. "):
        read_texts(table, "text", IDS, ["A", "B", ""])
    with pytest.raises(ItemError, match=r"'text' of the item table must hold texts, got Int64"):
        read_texts(pl.DataFrame({"text": [1, 2, 3]}), "text", IDS, ["", "", ""])


def test_items_may_have_no_texts_at_all():
    assert read_texts(pl.DataFrame({"item": IDS}), None, IDS, ["A", "B", "C"]) == ("", "", "")


def test_features_come_from_npy_safetensors_or_a_column(tmp_path):
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "f.npy", matrix)
    save_file({"anything": torch.from_numpy(matrix).bfloat16()}, tmp_path / "f.safetensors")
    table = pl.DataFrame({"vector": matrix.tolist(), "fixed": pl.Series(matrix)})
    for source in (tmp_path / "f.npy", str(tmp_path / "f.safetensors"), "vector", "fixed"):
        np.testing.assert_array_equal(feature_block(table, source), matrix)


def test_features_of_a_pandas_table_are_read(tmp_path):
    frame = pd.DataFrame({"item": [1, 2], "vector": [[1.0, 2.0], [3.0, 4.0]]})
    table = read_items(frame, ["item"])
    np.testing.assert_array_equal(feature_block(table, "vector"), [[1, 2], [3, 4]])


def test_feature_files_that_cannot_be_used_say_why(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.npy do not exist"):
        load_array(tmp_path / "gone.npy")
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(ShapeError, match=r"objects\.npy are not a matrix of numbers: .*allow_pickle"):
        load_array(tmp_path / "objects.npy")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0")
    with pytest.raises(ShapeError, match=r"cut\.safetensors are not a matrix of numbers"):
        load_array(tmp_path / "cut.safetensors")
    save_file({"b": torch.zeros(2, 2), "a": torch.zeros(2, 2)}, tmp_path / "two.safetensors")
    with pytest.raises(ShapeError, match=r"two\.safetensors holds 2 tensors \(a, b\), expected one"):
        load_array(tmp_path / "two.safetensors")


def test_feature_columns_that_cannot_be_used_say_why():
    table = pl.DataFrame({"ragged": [[1.0], [1.0, 2.0], None, [3.0, 4.0]], "word": list("abcd"), "words": [["a"]] * 4})
    with pytest.raises(ItemError, match=r"column 'ragged' .* most are of 2; 2 are not, the first in rows 0, 2\."):
        feature_block(table, "ragged")
    with pytest.raises(ItemError, match=r"Column 'word' .* lists of numbers, got String"):
        feature_block(table, "word")
    with pytest.raises(ItemError, match=r"Column 'words' .* lists of numbers, got List\(String\)"):
        feature_block(table, "words")
    with pytest.raises(ItemError, match=r"features='wrods' is no \.npy .* no column 'wrods'.*Did you mean 'word"):
        feature_block(table, "wrods")


def test_blocks_are_scaled_by_row_and_joined():
    joined = joined_features([np.array([[3, 4], [0, 0], [5, 0]]), np.full((3, 1), 7.0, np.float16)], IDS)
    assert joined.dtype == np.float32
    np.testing.assert_allclose(joined, [[0.6, 0.8, 1], [0, 0, 1], [1, 0, 1]], rtol=1e-6)
    assert joined_features([], IDS) is None


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        (np.zeros((4, 2)), ShapeError, r"shape \(4, 2\), expected \(3, dim\)"),
        (np.zeros(3), ShapeError, r"shape \(3,\), expected \(3, dim\)"),
        (np.array([["a"]] * 3), ShapeError, "must be numbers, got an array of <U1"),
        (np.array([[0.0], [np.inf], [1.0]]), NonFiniteError, "features of 1 of 3 items .* item ids 2"),
    ],
    ids=["rows", "vector", "words", "infinite"],
)
def test_blocks_that_do_not_fit_are_refused(block, error, message):
    with pytest.raises(error, match=message):
        joined_features([block], IDS)
