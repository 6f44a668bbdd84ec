"""Lines about an encode that takes long: the speed, the estimate, and what to do about it."""

import itertools

import pytest

from lis_lightning.monitor.encoding_progress import with_estimate


def lines(num_items, seconds_of_batch, batch=10):
    """Encode items in batches of equal duration, and return what is reported."""
    clock, reported = itertools.count(0, seconds_of_batch), []
    encoded = ((list(range(batch)), None) for _ in range(num_items // batch))
    assert (
        sum(len(ids) for ids, _ in with_estimate(encoded, num_items, reported.append, lambda: next(clock))) == num_items
    )
    return reported


def test_a_short_encode_reports_nothing():
    assert lines(100, 0.9) == []


def test_a_long_encode_reports_after_ten_seconds_and_then_every_minute():
    reported = lines(1000, 4)
    assert reported[0].startswith("LISMonitor: 30 of 1,000 items encoded in 12 s (2.5 a second): about 7 min in all")
    assert [line.split()[1] for line in reported] == ["30", "180", "330", "480", "630", "780", "930"]


@pytest.mark.parametrize(("seconds_of_batch", "is_long"), [(3, False), (15, True)])
def test_fewer_items_are_suggested_where_a_snapshot_takes_minutes(seconds_of_batch, is_long):
    assert ("`max_items`" in lines(200, seconds_of_batch)[0]) == is_long
