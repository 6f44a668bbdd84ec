"""The band and the corrected best of a curve: what the results contribute; the inference itself is tested apart."""

import math

import numpy as np
import pytest

from lis_lightning.errors import ShapeError
from lis_lightning.results.result import LISResult
from lis_lightning.results.selection import corrected_best, simultaneous_band


def made(ais, influence, **fields):
    return LISResult(
        ais=ais, ais_low=0.0, ais_high=0.0, ais_geometry=0.0, auc_base=0.7, auc=0.7, influence=influence, **fields
    )


def noise(number, users=200):
    return 1e-4 * np.random.default_rng(number).standard_normal(users)


def test_results_without_a_score_or_users_are_undefined_in_the_band():
    results = [made(0.01, noise(0)), made(math.nan, noise(1)), made(0.01, np.zeros(0)), made(0.012, noise(2))]
    band = simultaneous_band(results)
    assert [math.isnan(estimate.se) for estimate in band] == [False, True, True, False]
    assert band[0].high - band[0].value > 1.96 * band[0].se
    assert all(math.isnan(estimate.value) for estimate in simultaneous_band(results[1:3]))


def test_the_corrected_best_is_below_the_best_of_equals():
    rows = [noise(number) for number in range(30)]
    results = [made(0.01 + row.sum(), row - row.mean()) for row in rows]
    best = corrected_best(results)
    assert best.value < max(result.ais for result in results)
    assert best.low < 0.01 < best.high
    assert math.isnan(corrected_best([made(math.nan, noise(0))]).value)


def test_results_of_two_splits_are_refused():
    with pytest.raises(ShapeError, match="'a' with 200 users, the other on 'b'"):
        simultaneous_band([made(0.1, noise(0), split_hash="a"), made(0.1, noise(1), split_hash="b")])
