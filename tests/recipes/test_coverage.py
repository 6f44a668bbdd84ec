import importlib.util

import numpy as np
import polars as pl
import pytest

from lis_lightning.cli import resource_dir


@pytest.fixture
def coverage(monkeypatch):
    path = resource_dir("recipes") / "coverage" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "NUM_USERS", 60)
    monkeypatch.setattr(module, "POPULATION", 3)
    return module


def test_a_draw_measures_everything_and_two_draws_differ(coverage, monkeypatch):
    monkeypatch.setitem(coverage.WORLDS, "dense", {"num_items": 60, "num_events": 3000})
    rows = pl.DataFrame(
        coverage.one_draw("dense", 0) + coverage.one_draw("dense", 1), coverage.COLUMNS, orient="row", strict=False
    )
    assert rows.height == 2 * 16
    content = rows.filter(what="AIS content")
    assert content["value"].n_unique() == 2
    assert (content["low"] < content["value"]).all()
    assert (content["low_test"] < content["value"]).all()


def test_the_table_counts_hits_of_the_mean_and_misses_of_nulls(coverage):
    rng = np.random.default_rng(0)
    value = rng.standard_normal(2000)
    made = [("w", draw, "AIS", v, v - 1.96, v + 1.96, v - 1, v + 1) for draw, v in enumerate(value)]
    made += [("w", draw, "null: verdict improving", float(draw < 40), *[np.nan] * 4) for draw in range(2000)]
    table = coverage.table(pl.DataFrame(made, coverage.COLUMNS, orient="row", strict=False))
    assert table["coverage"].to_list() == pytest.approx([0.95, 0.98], abs=0.015)
    assert table["test_users_only"][0] == pytest.approx(0.683, abs=0.03)
    assert table["width"][0] == pytest.approx(1.0, abs=0.05)
    assert table["95 % of it"][1] == "0.973 to 0.986"


def test_the_best_of_equals_is_held_against_one_that_was_not_picked(coverage):
    made = [("w", draw, "AIS equal", 0.0, -1.0, 1.0, -1.0, 1.0) for draw in range(10)]
    made += [("w", draw, "AIS equal, best", 2.0, 1.0, 3.0, 1.0, 3.0) for draw in range(10)]
    table = coverage.table(pl.DataFrame(made, coverage.COLUMNS, orient="row", strict=False))
    assert table["coverage"].to_list() == [1.0, 0.0]
