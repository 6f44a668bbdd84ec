"""Ids and in-memory tables as people have them."""

import datetime
import decimal
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pytest

from lis_lightning.data.tables import id_codes, read_table
from lis_lightning.errors import LogError


def ids_of(path):
    table = read_table(path, ids=["item_id"])
    distinct, codes = id_codes(table, "item_id")
    return distinct[codes].tolist()


TEXT_IDS = {
    "leading zeros": ["1040", "01040", "7"],
    "zeros after a hundred rows": [*map(str, range(1, 200)), "007"],
    "mixed after a hundred rows": [*map(str, range(1, 200)), "sku-1"],
    "exponents": ["1e5", "100000", "2e3"],
    "versions": ["1.10", "1.1"],
    "signs": ["+1", "1"],
    "beyond 64 bits": ["18446744073709551617", "18446744073709551618"],
    "beyond 63 bits": ["9223372036854775808", "1"],
    "booleans": ["true", "false"],
    "dates": ["2020-01-01", "2020-01-02"],
}


@pytest.mark.parametrize("case", TEXT_IDS)
def test_ids_in_text_files_stay_as_they_are_written(tmp_path, case):
    pl.DataFrame({"item_id": TEXT_IDS[case], "n": 1}).write_csv(tmp_path / "log.csv")
    assert ids_of(tmp_path / "log.csv") == TEXT_IDS[case]


def test_integer_ids_in_text_files_are_integers(tmp_path):
    (tmp_path / "log.csv").write_text("item_id,n\n10,1\n-2,1\n9007199254740993,1\n")
    assert ids_of(tmp_path / "log.csv") == [10, -2, 9007199254740993]
    (tmp_path / "log.csv").write_text("item_id,n\n10.0,1\n2.0,1\n")
    assert ids_of(tmp_path / "log.csv") == [10, 2]


def test_files_with_and_without_zeros_agree_on_one_type(tmp_path):
    (tmp_path / "a.csv").write_text("item_id,n\n10,1\n")
    (tmp_path / "b.csv").write_text("item_id,n\n010,1\n")
    assert ids_of(tmp_path) == ["10", "010"]


WIDE = 2**70
IDS = {
    "integral floats": (pl.Series([3.0, 1.0]), [3, 1]),
    "narrow floats": (pl.Series([3.0, 1.0], dtype=pl.Float32), [3, 1]),
    "128-bit within 64": (pl.Series([3, -1], dtype=pl.Int128), [3, -1]),
    "128-bit": (pl.Series([WIDE, 1], dtype=pl.Int128), [str(WIDE), "1"]),
    "unsigned": (pl.Series([2**64 - 1, 1], dtype=pl.UInt64), [2**64 - 1, 1]),
    "decimals": (pl.Series([decimal.Decimal("3.00"), decimal.Decimal("1.00")]), [3, 1]),
    "wide decimals": (pl.Series([decimal.Decimal(WIDE), decimal.Decimal(1)]), [str(WIDE), "1"]),
    "bytes": (pl.Series([b"\x01\xff", b"\x02\x00"]), ["01ff", "0200"]),
    "UUIDs": (
        pl.Series([uuid.UUID(int=1), uuid.UUID(int=2)], dtype=pl.Object),
        [str(uuid.UUID(int=n)) for n in (1, 2)],
    ),
}


@pytest.mark.parametrize("case", IDS)
def test_ids_of_every_type_keep_their_value(case):
    series, expected = IDS[case]
    distinct, codes = id_codes(read_table(pl.DataFrame({"id": series})), "id")
    assert distinct[codes].tolist() == expected


BAD_IDS = {
    "fractions": pl.Series([1.5, 2.0]),
    "floats that lost digits": pl.Series([2.0**60, 1.0]),
    "decimal fractions": pl.Series([decimal.Decimal("1.5")]),
    "durations": pl.Series([datetime.timedelta(1)]),
    "booleans": pl.Series([True]),
}


@pytest.mark.parametrize("case", BAD_IDS)
def test_ids_without_a_certain_value_are_refused(case):
    with pytest.raises(LogError, match="'id' must hold integer or string ids, got"):
        id_codes(pl.DataFrame({"id": BAD_IDS[case]}), "id")


DAY = datetime.date(2026, 1, 31)
PANDAS = {
    "time zone": (pd.Series(pd.to_datetime(["2026-01-31 01:00"]).tz_localize("Europe/Paris")), "2026-01-31 00:00:00"),
    "date": (pd.Series([DAY]), "2026-01-31"),
    "period": (pd.Series(pd.period_range("2026-01", periods=1, freq="M")), "2026-01-01 00:00:00"),
    "decimal": (pd.Series([decimal.Decimal("1.50")]), "1.50"),
    "uuid": (pd.Series([uuid.UUID(int=5)]), str(uuid.UUID(int=5))),
    "nullable integer": (pd.Series([3], dtype="Int64"), "3"),
    "category": (pd.Series(["a"], dtype="category"), "a"),
    "string": (pd.Series(["a"], dtype="string"), "a"),
    "boolean": (pd.Series([True], dtype="boolean"), "true"),
}


@pytest.mark.parametrize("case", PANDAS)
def test_pandas_columns_keep_their_value(case):
    series, expected = PANDAS[case]
    with_missing = pd.concat([series, pd.Series([None], dtype=series.dtype)], ignore_index=True)
    for given in (series, with_missing):
        column = read_table(pd.DataFrame({"x": given}))["x"]
        shown = column.cast(pl.String).str.replace(r"\.0+$", "")
        assert shown[0] == expected
        assert column.null_count() == len(given) - 1


def test_integers_among_text_are_text():
    column = read_table(pd.DataFrame({"id": [1040, "01040", 7]}))["id"]
    assert column.to_list() == ["1040", "01040", "7"]


def test_columns_without_a_common_type_are_refused():
    with pytest.raises(LogError, match="Column 'id' holds values of float, str, which share no type"):
        read_table(pd.DataFrame({"id": [1.5, "a"]}))


def test_repeated_columns_are_refused():
    with pytest.raises(LogError, match="has column 'a' more than once"):
        read_table(pd.DataFrame(np.ones((1, 2)), columns=["a", "a"]))


def test_anything_with_the_arrow_interface_is_a_table():
    class Relation:
        def __arrow_c_stream__(self, requested_schema=None):
            return pl.DataFrame({"a": [1]}).__arrow_c_stream__(requested_schema)

    assert read_table(Relation())["a"].to_list() == [1]
