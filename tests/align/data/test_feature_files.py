from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from lis_lightning.align.data.feature_files import concatenated_features, feature_block, load_array
from lis_lightning.align.data.item_columns import read_items
from lis_lightning.errors import ConfigError, ItemError, NonFiniteError, ShapeError

IDS = np.array([1, 2, 3])


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
    joined = concatenated_features([np.array([[3, 4], [0, 0], [5, 0]]), np.full((3, 1), 7.0, np.float16)], IDS)
    assert joined.dtype == np.float32
    np.testing.assert_allclose(joined, [[0.6, 0.8, 1], [0, 0, 1], [1, 0, 1]], rtol=1e-6)
    assert concatenated_features([], IDS) is None


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
        concatenated_features([block], IDS)
