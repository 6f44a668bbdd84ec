"""Timestamps as people write them, each with the right moment."""

import datetime
import decimal

import numpy as np
import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.data.tables import read_table
from lis_lightning.data.times import timestamps
from lis_lightning.errors import LogError

DAY_US = 86_400_000_000


def moments(values, time_format=None):
    table = pl.DataFrame({"t": values})
    times, per_day = timestamps(table, "t" if time_format is None else ("t", time_format))
    assert per_day == DAY_US
    return np.array(times).astype("datetime64[us]").astype("datetime64[s]").astype(str).tolist()


CALENDARS = {
    "seconds": ([20260131235959, 20260201000000], ["2026-01-31T23:59:59", "2026-02-01T00:00:00"]),
    "minutes": ([202601312359, 202602010000], ["2026-01-31T23:59:00", "2026-02-01T00:00:00"]),
    "hours": ([2026013123, 2026020100], ["2026-01-31T23:00:00", "2026-02-01T00:00:00"]),
    "days": ([20260131, 20260201], ["2026-01-31T00:00:00", "2026-02-01T00:00:00"]),
    "text": (["20260131235959", "20260201000000"], ["2026-01-31T23:59:59", "2026-02-01T00:00:00"]),
}


@pytest.mark.parametrize("case", CALENDARS)
def test_calendar_digits_are_moments(case):
    values, expected = CALENDARS[case]
    assert moments(values) == expected


@pytest.mark.parametrize("values", [[1_600_000_000, 1_700_000_000], [1_600_000_000_000, 1_700_000_000_000]])
def test_unix_times_are_not_taken_for_calendar_digits(values):
    times, _ = timestamps(pl.DataFrame({"t": values}), "t")
    assert times.tolist() == values


TEXTS = {
    "iso": (["2026-01-31 10:00:00", "2026-02-01T11:30:00"], ["2026-01-31T10:00:00", "2026-02-01T11:30:00"]),
    "offsets": (["2026-01-31T10:00:00+02:00", "2026-01-31T10:00:00Z"], ["2026-01-31T08:00:00", "2026-01-31T10:00:00"]),
    "days": (["2026-01-31"], ["2026-01-31T00:00:00"]),
    "slashes, year first": (["2026/01/31"], ["2026-01-31T00:00:00"]),
    "slashes and hours": (["2026/01/31 10:00:00"], ["2026-01-31T10:00:00"]),
    "month first": (["01/02/2026 10:00", "01/31/2026 11:00"], ["2026-01-02T10:00:00", "2026-01-31T11:00:00"]),
    "day first": (["01/02/2026", "31/01/2026"], ["2026-02-01T00:00:00", "2026-01-31T00:00:00"]),
    "dots": (["1.2.2026 10:00:05", "31.1.2026 10:00:00"], ["2026-02-01T10:00:05", "2026-01-31T10:00:00"]),
    "afternoon": (["1/2/2026 1:05 PM", "1/31/2026 1:05 AM"], ["2026-01-02T13:05:00", "2026-01-31T01:05:00"]),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_with_one_meaning_is_read(tmp_path, case):
    values, expected = TEXTS[case]
    assert moments(values) == expected
    pl.DataFrame({"t": values, "n": 1}).write_csv(tmp_path / "log.csv")
    assert moments(read_table(tmp_path / "log.csv")["t"]) == expected


UNCERTAIN = {
    "ambiguous": (["01/02/2026", "03/04/2026"], "is ambiguous: no day is above 12.*time=.'t', '%m/%d/%Y"),
    "mixed order": (["31/01/2026", "01/31/2026"], "day before the month in some rows and behind it in others"),
    "two-digit years": (["01/31/26"], "not known for certain"),
    "words": (["Jan 31 2026"], "not known for certain"),
}


@pytest.mark.parametrize("case", UNCERTAIN)
def test_text_with_several_meanings_needs_a_format(tmp_path, case):
    values, message = UNCERTAIN[case]
    pl.DataFrame({"t": values, "n": 1}).write_csv(tmp_path / "log.csv")
    for table in (pl.DataFrame({"t": values}), read_table(tmp_path / "log.csv")):
        with pytest.raises(LogError, match=message):
            timestamps(table, "t")


def test_a_format_decides():
    assert moments(["01/02/2026", "03/04/2026"], "%m/%d/%Y") == ["2026-01-02T00:00:00", "2026-03-04T00:00:00"]
    assert moments(["01/02/26 10:00"], "%d/%m/%y %H:%M") == ["2026-02-01T10:00:00"]
    assert moments(["Jan 31 2026"], "%b %d %Y") == ["2026-01-31T00:00:00"]
    assert moments([20260131], "%Y%m%d") == ["2026-01-31T00:00:00"]
    assert moments(["31.01.2026 10:00 +0200"], "%d.%m.%Y %H:%M %z") == ["2026-01-31T08:00:00"]
    with pytest.raises(LogError, match=r"1 values that are not in the format .*, the first in row 1 \('31/1/2026'\)"):
        moments(["1/2/2026", "31/1/2026"], "%m/%d/%Y")


def test_a_split_takes_a_format(log):
    dated = log.with_columns(pl.from_epoch("timestamp").dt.strftime("%m/%d/%y %H:%M:%S").alias("timestamp"))
    split = PreferenceSplit.from_log(dated, time=("timestamp", "%m/%d/%y %H:%M:%S"))
    expected = PreferenceSplit.from_log(log.with_columns(pl.from_epoch("timestamp")))
    assert split.hash == expected.hash


@pytest.mark.parametrize("fill", [(1970, 1, 1), (1969, 12, 31, 23), (1970, 1, 1, 8), (1900, 1, 1), (9999, 12, 31)])
def test_datetimes_that_stand_for_missing_ones_are_refused(fill):
    days = [datetime.datetime(2026, 2, day) for day in (1, 2, 3)]
    times = [days[0], datetime.datetime(*fill), *days[1:]]
    with pytest.raises(LogError, match=r"1 of 4 timestamps such as .*the first in row 1, which stand for missing ones"):
        timestamps(pl.DataFrame({"t": times}), "t")


def test_a_log_of_1970_is_a_log():
    assert moments([datetime.datetime(1970, 1, day) for day in (1, 2, 3)])[0] == "1970-01-01T00:00:00"


def test_decimals_are_numbers():
    times, per_day = timestamps(
        pl.DataFrame({"t": [decimal.Decimal(1_600_000_000), decimal.Decimal(1_600_000_001)]}), "t"
    )
    assert times.tolist() == [1_600_000_000, 1_600_000_001]
    assert per_day == 86_400


@pytest.mark.parametrize("values", [[datetime.timedelta(1)], [datetime.time(1)]])
def test_times_of_no_day_are_refused(values):
    with pytest.raises(LogError, match=r"'t' must hold moments.*got (Duration|Time).*add the day"):
        timestamps(pl.DataFrame({"t": values}), "t")
