"""What 1 % more of a metric was worth in AIS: rates and breaks that are known, and every reason to give none."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from lis_lightning.results.exchange_rate import ONE_PERCENT, exchange_rates, rates_over_runs
from lis_lightning.results.snapshot import Snapshot

NUM_USERS, RATE = 100, 0.0002


def snapshots(metric, key="recall", *, broke=None, noise=1e-5, **fields):
    """Snapshots whose AIS rises by RATE for each 1 % more of a metric, up to the snapshot at which that breaks."""
    rng = np.random.default_rng(0)
    influence = noise * rng.standard_normal((len(metric), NUM_USERS)) / NUM_USERS**0.5
    found = []
    for index, value in enumerate(metric):
        counted = value if broke is None else metric[min(index, broke)]
        ais = RATE * math.log(abs(counted)) / ONE_PERCENT if math.isfinite(counted) and counted else 0.0
        found.append(
            Snapshot(
                ais=ais + influence[index].sum(), ais_low=0, ais_high=0, ais_geometry=0, auc_base=0.7, auc=0.7,
                step=50 * index, influence=influence[index], watched={key: value}, **fields,
            )
        )  # fmt: skip
    return found


GROWING = (0.1 * 1.1 ** np.arange(10)).tolist()


def test_a_rate_is_told_per_percent_with_its_interval():
    (found,) = exchange_rates(snapshots(GROWING))
    assert (found.key, found.num, found.reason, found.broke_at) == ("recall", 10, "", None)
    assert found.rate.value == pytest.approx(RATE, rel=0.02)
    assert found.rate.low < RATE < found.rate.high < 1.1 * RATE


def test_the_step_at_which_a_rate_broke_is_named_with_the_rates_on_both_sides():
    (found,) = exchange_rates(snapshots(GROWING, broke=5))
    assert found.broke_at == 250
    assert found.before.value == pytest.approx(RATE, rel=0.03)
    assert found.since.low < 0 < found.since.high < RATE / 10


def test_a_metric_below_zero_has_a_rate_of_its_size():
    """1 % more of -2 is -2.02."""
    (found,) = exchange_rates(snapshots([-value for value in GROWING]))
    assert found.rate.value == pytest.approx(RATE, rel=0.02)


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ([0.1, 0.2, 0.3], "3 snapshots have a value, a rate needs 4"),
        ([0.1, 0.2, 0.3, math.nan, math.inf], "3 snapshots have a value, a rate needs 4"),
        ([0.5, 0.5, 0.5, 0.5], r"it did not move \(0.5 to 0.5\)"),
        ([0.5, 0.5001, 0.5, 0.5002], r"it did not move \(0.5 to 0.5002\)"),
        ([-0.1, 0.1, 0.2, 0.3], r"it changes its sign \(-0.1 to 0.3\), so a change by 1 % means nothing"),
        ([0.0, 0.1, 0.2, 0.3], r"it reaches 0 \(0 to 0.3\)"),
        ([1e-6, 0.1, 0.2, 0.3], r"it comes near 0 \(1e-06 to 0.3\)"),
    ],
)
def test_a_metric_without_a_rate_says_why(metric, reason):
    (found,) = exchange_rates(snapshots(metric))
    assert math.isnan(found.rate.value)
    assert found.broke_at is None
    assert re.match(reason, found.reason)


def test_snapshots_without_per_user_values_give_no_interval_and_so_no_rate():
    (found,) = exchange_rates(snapshots(GROWING, noise=0.0))
    assert found.reason == "0 of 10 snapshots have the per-user values that an interval needs"


def test_companions_and_the_training_loss_need_not_be_watched():
    run = snapshots(GROWING, companions={"pair_auc": 0.6}, train_loss=1.5)
    assert [found.key for found in exchange_rates(run)] == ["recall", "pair_auc", "train_loss"]


def test_runs_have_a_rate_without_a_break_and_no_common_loss():
    runs = snapshots(GROWING, broke=5, companions={"pair_auc": 0.6}, train_loss=1.5)
    recall, pair_auc = rates_over_runs(runs)
    assert (recall.broke_at, recall.num) == (None, 10)
    assert pair_auc.reason == "it did not move (0.6 to 0.6)"
    assert rates_over_runs(runs[:3])[0].reason == "3 runs have a value, a rate needs 4"


def test_a_watched_metric_is_not_filled_up_with_one_of_ours_of_its_name():
    run = snapshots(GROWING, key="train_loss", train_loss=1.5)
    run[::2] = [replace(one, watched={}) for one in run[::2]]
    (found,) = exchange_rates(run)
    assert (found.key, found.num) == ("train_loss", 5)
