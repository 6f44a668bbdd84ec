"""What goes into W&B's tables and panels, before any server sees it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from lis_lightning.functional.intervals import Estimate
from lis_lightning.results.movers import Mover
from lis_lightning.tracking import wandb_tables as tables
from tests._helpers.small_results import RESULTS, make_result

MOVER_IMAGE = tables.MOVER_COLUMNS.index("image")


def estimate(value):
    return Estimate(value=value, se=0.001, low=value - 0.002, high=value + 0.002)


def mover(path=None, title="a title"):
    return Mover(item_id=17, title=title, image=path, gain=estimate(0.01), change=estimate(-0.004))


def test_a_mover_is_a_row_of_its_words_and_numbers():
    table = tables.movers_table([mover()])
    row = dict(zip(table.columns, table.data[0], strict=True))
    assert (row["item"], row["title"], row["image"]) == ("17", "a title", None)
    assert (row["change"], row["change_low"], row["change_high"]) == pytest.approx((-0.004, -0.006, -0.002))
    assert (row["gain"], row["gain_low"], row["gain_high"]) == pytest.approx((0.01, 0.008, 0.012))


def test_a_thumbnail_is_small_on_disk(image):
    table = tables.movers_table([mover(image("noise.png", (2000, 2000)))])
    (picture,) = (row[MOVER_IMAGE] for row in table.data)
    assert picture._path.endswith(".jpg")
    assert 100 < Path(picture._path).stat().st_size < 10_000


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "cut short", "empty"])
def test_an_image_that_cannot_be_read_is_left_out(image, tmp_path, kind):
    path = tmp_path / "broken.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("no image")
    elif kind == "empty":
        path.touch()
    elif kind == "cut short":
        whole = image("whole.png", (200, 200)).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    table = tables.movers_table([mover(path), mover(image("good.png", (10, 10)))])
    first, second = (dict(zip(table.columns, row, strict=True)) for row in table.data)
    assert first["image"] is None
    assert second["image"].image.size == (10, 10)


def test_what_is_no_number_is_an_empty_cell():
    table = tables.snapshots_table([make_result(0, math.nan, "warming-up", headroom=math.inf)])
    row = dict(zip(table.columns, table.data[0], strict=True))
    assert (row["ais"], row["headroom"], row["step"]) == (None, None, 0)


def test_a_long_run_is_thinned_and_keeps_first_best_and_last():
    results = [make_result(step, 0.1 if step == 777 else 0.001, "improving") for step in range(2000)]
    shown = [result.step for result in tables.thinned(results)]
    assert len(shown) <= tables.MAX_POINTS
    assert {0, 777, 1999} <= set(shown)
    assert shown == sorted(shown)
    assert max(np.diff(shown)) <= 7
    assert list(tables.thinned(RESULTS)) == RESULTS


def test_the_panel_of_a_long_run_is_bounded_in_size():
    rng = np.random.default_rng(0)
    results = [make_result(step, float(value), "improving") for step, value in enumerate(rng.normal(size=3000))]
    assert 10_000 < Path(tables.curve_panel(results)._path).stat().st_size < 80_000


def test_the_first_panels_are_all_drawn_and_later_ones_ever_more_rarely():
    drawn = [number for number in range(1, 5001) if tables.redrawn(number)]
    assert drawn[:20] == list(range(1, 21))
    later = np.array([number for number in drawn if number > 20])
    assert np.all(later[1:] / later[:-1] < 1.14)
    assert len(drawn) < 80
