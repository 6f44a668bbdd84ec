import math

import numpy as np
import polars as pl
import pytest
import torch

from lis_lightning import IdEmbeddings, LeakageImpactScore, PairTable
from lis_lightning.errors import ConfigError, LogError, NonFiniteError, ShapeError
from lis_lightning.functional import ItemVectors
from lis_lightning.scoring.preferences import (
    BUILT_IN,
    CrossFittedVectors,
    MatchedPreference,
    PreferenceData,
    as_preference,
    by_name,
)

TABLE = pl.DataFrame(
    {"item_a": [1, 1, 2], "item_b": [2, 3, 3], "user": ["x", "y", "y"], "w": [1.0, 2.0, 0.5], "t": [1.0, 2.0, 3.0]}
)
MATRIX = np.arange(12.0).reshape(4, 3) + 1


def ids(vectors=MATRIX, item_ids=(1, 2, 3, 4), claim=True):
    return IdEmbeddings(vectors, item_ids, holds_no_evaluation_events=claim)


def test_a_pair_table_is_read_from_anything_a_log_is_read_from(tmp_path):
    TABLE.write_parquet(tmp_path / "pairs.parquet")
    TABLE.write_csv(tmp_path / "pairs.csv")
    given = [TABLE, TABLE.to_pandas(), TABLE.to_arrow(), tmp_path / "pairs.parquet", str(tmp_path / "*.csv")]
    tables = [PairTable(source, user="user", weight="w", time="t") for source in given]
    assert {table.num_rows for table in tables} == {3}
    assert len({table.content_key for table in tables}) == 1


def test_the_key_of_a_table_follows_its_content():
    cells = {"item_a": [1, 1, 4], "item_b": [2, 3, 4], "user": ["x", "y", "z"], "w": [1.0, 2.0, 0.6], "t": [1.0, 2, 4]}
    tables = [TABLE, *(TABLE.with_columns(pl.Series(name, values)) for name, values in cells.items())]
    keys = {PairTable(table, user="user", weight="w", time="t").content_key for table in tables}
    keys.add(PairTable(TABLE, user="user", weight="w").content_key)
    keys.add(PairTable(TABLE, weight="w", time="t", holds_no_evaluation_events=True).content_key)
    assert len(keys) == len(tables) + 2


BAD_TABLES = {
    "no file": ({"table": "absent.parquet"}, LogError, "pair table 'absent.parquet' does not exist"),
    "no table": ({"table": [1, 2]}, LogError, "Expected the pair table as a path.* got list"),
    "no rows": ({"table": TABLE[:0]}, LogError, "pair table has no rows"),
    "column": ({"item": "item_c"}, LogError, r"pair table has no column 'item_c'.*Did you mean 'item_"),
    "user column": ({"user": "usr"}, LogError, "no column 'usr'.*Did you mean 'user'"),
    "one column": ({"other": "item_a"}, ConfigError, "two columns of items in a pair table, got 'item_a' for both"),
    "no user": ({"user": None}, ConfigError, "without `user` cannot be cross-fitted.*3 to 10 times.*holds_no_evalu"),
    "null item": ({"item_a": [1, None, 2]}, LogError, "'item_a' has 1 missing ids, the first in row 1"),
    "float item": ({"item_b": [0.5, 1.5, 2.0]}, LogError, "'item_b' must hold integer or string ids, got Float64"),
    "null user": ({"user": ["x", None, "y"]}, LogError, "'user' has 1 missing ids"),
    "negative": ({"w": [1.0, -2.0, 1.0]}, LogError, r"'w' must hold finite non-negative.*1 values.*row 1 \(-2.0\)"),
    "no weight": ({"w": [0.0, 0.0, 0.0]}, LogError, "All 3 weights in column 'w' of the pair table are 0"),
    "text weight": ({"w": ["a", "b", "c"]}, LogError, "'w' must hold numbers, got String"),
    "null time": ({"t": [None, 1.0, 2.0]}, LogError, "'t' has 1 missing or non-finite timestamps"),
    "text time": ({"t": ["a", "b", "c"]}, LogError, "'t' is text in a format that is not known"),
}


@pytest.mark.parametrize("case", BAD_TABLES, ids=str)
def test_bad_tables_are_refused_in_words(case):
    changes, error, message = BAD_TABLES[case]
    columns = {name: pl.Series(values) for name, values in changes.items() if name in TABLE.columns and name != "user"}
    options = {"table": TABLE, "user": "user", "weight": "w", "time": "t"} | {
        name: value for name, value in changes.items() if name in {"table", "item", "other"}
    }
    if "user" in changes:
        if isinstance(changes["user"], list):
            columns["user"] = pl.Series(changes["user"])
        else:
            options["user"] = changes["user"]
    if columns:
        options["table"] = TABLE.with_columns(**columns)
    with pytest.raises(error, match=message):
        PairTable(**options)


FOLDS = dict.fromkeys(range(5), MATRIX)
BAD_EMBEDDINGS = {
    "no claim": (lambda: ids(claim=False), ConfigError, r"One matrix .* cannot be cross-fitted.*split\.user_folds\(\)"),
    "folds": (lambda: ids({0: MATRIX, 1: MATRIX, 7: MATRIX}), ConfigError, r"\[0, 1, 2, 3, 4\].*got \[0, 1, 7\]"),
    "widths": (lambda: ids(FOLDS | {3: MATRIX[:, :2]}), ShapeError, r"one width in all folds, got \{0: 3, .*3: 2"),
    "rows": (lambda: ids(MATRIX[:3]), ShapeError, r"ID embeddings of shape \[4, dim\].*got \[3, 3\]"),
    "fold rows": (lambda: ids(FOLDS | {2: MATRIX[:1]}), ShapeError, r"embeddings of fold 2 of shape .*got \[1, 3\]"),
    "flat": (lambda: ids(MATRIX[:, 0]), ShapeError, r"got \[4\]"),
    "nan": (
        lambda: ids(np.where(MATRIX == 5, np.nan, MATRIX)),
        NonFiniteError,
        r"NaN or infinity in 1 of 4 rows, first for the items \[2\]",
    ),
    "text": (lambda: ids(MATRIX.astype(str)), ShapeError, "ID embeddings as numbers, got <U"),
    "twice": (lambda: ids(item_ids=[1, 2, 2, 3]), ShapeError, r"4 ids, 3 of them distinct, repeated are \[2\]"),
    "float ids": (lambda: ids(item_ids=[1.0, 2, 3, 4]), ShapeError, r"integer or text item ids .* got float64"),
}


@pytest.mark.parametrize("case", BAD_EMBEDDINGS, ids=str)
def test_bad_embeddings_are_refused_in_words(case):
    make, error, message = BAD_EMBEDDINGS[case]
    with pytest.raises(error, match=message):
        make()


def test_embeddings_come_as_tensors_of_any_float_type():
    given = [MATRIX, MATRIX.astype(np.float16), torch.tensor(MATRIX, requires_grad=True)]
    for vectors in [*given, torch.tensor(MATRIX, dtype=torch.bfloat16), MATRIX.astype(int), MATRIX.tolist()]:
        (matrix,) = ids(vectors).matrices
        np.testing.assert_array_equal(matrix, MATRIX)
        assert matrix.dtype.kind == "f"
    assert ids(item_ids=["a", "b", "c", "d"]).ids.tolist() == ["a", "b", "c", "d"]
    assert (
        len(
            {
                ids().content_key,
                ids(MATRIX + 1).content_key,
                ids(item_ids=[1, 2, 3, 5]).content_key,
                ids(FOLDS).content_key,
            }
        )
        == 4
    )


def test_ceilings_have_names_that_can_be_logged():
    table = PairTable(TABLE, user="user")
    assert by_name(("pairs", "ids")) == BUILT_IN
    assert by_name({"mine_2": table, "pairs": "pairs"}) == {"mine_2": table, "pairs": BUILT_IN["pairs"]}
    assert by_name({}) == by_name([]) == {}
    with pytest.raises(ConfigError, match=r"got text; write \('pairs',\)"):
        by_name("pairs")
    with pytest.raises(ConfigError, match=r"can be given without a name, got PairTable\(.*ceilings=\{\"mine\""):
        by_name([table])
    for name in ("Mine", "a b", "a/b", "", "pairs_low", 3):
        with pytest.raises(ConfigError, match=rf"lower-case letters, digits and _, .*got {name!r}"):
            by_name({name: table})
    with pytest.raises(ConfigError, match=r"Unknown preference data 'clicks'; expected one of \['ids', 'pairs'\]"):
        by_name({"mine": "clicks"})
    with pytest.raises(
        ConfigError, match=r"a PairTable, IdEmbeddings, Completed or a callable, got DataFrame; read a table with"
    ):
        by_name({"mine": TABLE})


class Builder:
    """A callable with settings, which has no hash."""

    def __init__(self, width=3):
        self.width = width

    def __eq__(self, other):
        return self.width == other.width

    __hash__ = None

    def __call__(self, events):
        return {}

    def build(self, events):
        return {}


def test_callables_are_told_apart_by_identity_and_on_disk_by_their_own_key():
    one, two = Builder(), Builder()
    assert as_preference(one).handle == as_preference(one).handle
    assert as_preference(one).handle != as_preference(two).handle
    assert hash(as_preference(one).handle) == hash(as_preference(one).handle)

    class Plain:
        def build(self, events):
            return {}

    plain = Plain()
    assert as_preference(plain.build).handle == as_preference(plain.build).handle
    assert as_preference(one).content_key is None
    one.cache_key, two.cache_key = "als-1", "als-2"
    assert as_preference(one).content_key != as_preference(two).content_key
    one.cache_key = 3
    with pytest.raises(ConfigError, match="`cache_key` of `Builder` to be text, got 3"):
        _ = as_preference(one).content_key


def test_equal_content_is_one_preference():
    assert as_preference(PairTable(TABLE, user="user")).handle == PairTable(TABLE.clone(), user="user").handle
    assert as_preference("pairs").content_key != as_preference("ids").content_key


class Editorial(PreferenceData):
    """A new kind in one file: an editor's shelves, the same whoever clicks."""

    def __init__(self, shelf_of):
        self.shelf_of = shelf_of

    @property
    def content_key(self):
        return repr(sorted(self.shelf_of.items()))

    def match(self, split):
        shelves = np.array([self.shelf_of.get(item, 0) for item in split.log_item_ids.tolist()])
        vectors = ItemVectors(np.eye(int(shelves.max()) + 1)[shelves], np.ones(shelves.size, bool))
        return MatchedPreference(False, lambda: CrossFittedVectors(vectors, [vectors]), None)


def test_a_new_kind_is_one_class(split, latents):
    shelves = dict(zip(split.item_ids.tolist(), (latents[:, 0] > 0).astype(int).tolist(), strict=True))
    options = {"ceilings": {"shelves": Editorial(shelves)}, "aligned_to": "shelves", "placebo": False}
    result = split.score(latents, **options, cache_dir="off")
    assert result.ceilings["shelves"].value > 0.0
    assert not result.ceilings["shelves"].cross_fitted
    assert math.isfinite(result.headroom)
    metric = LeakageImpactScore(split, cache_dir="off", **options)
    metric.update(split.item_ids, torch.from_numpy(latents))
    assert metric.result().ceilings["shelves"].value == result.ceilings["shelves"].value
