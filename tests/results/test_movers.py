import numpy as np
import polars as pl
import pytest

from lis_lightning.errors import ItemError, LogError, ShapeError
from lis_lightning.results.movers import Catalogue, concentration, movers
from lis_lightning.results.record import Record
from lis_lightning.results.snapshot import Snapshot


def result(gains, split_hash="s"):
    gains = np.asarray(gains, float)
    return Snapshot(
        ais=float(gains.sum()), ais_low=0.0, ais_high=0.0, ais_geometry=0.0, auc_base=0.7, auc=0.7,
        step=0, split_hash=split_hash, item_gains=gains, item_errors=np.full(gains.size, 0.3),
    )  # fmt: skip


CATALOGUE = Catalogue.of(np.array([10, 11, 12, 13]), pl.DataFrame({"item_id": [12, 10], "title": ["c", "a"]}))


def test_gains_of_items_add_up_to_ais_and_survive_the_record(split, latents, tmp_path):
    scored = split.score(latents, ceilings=())
    assert scored.item_gains.shape == (split.num_items,)
    assert scored.item_gains.sum() == pytest.approx(scored.ais, abs=1e-12)
    assert scored.ais > 0.01
    record = Record.create(tmp_path / "record.jsonl", run_id="r", split_hash=split.hash)
    record.append(Snapshot.of(scored, step=1))
    again = Record.read(record.path)[1][0]
    np.testing.assert_array_equal(again.item_gains, scored.item_gains.astype(np.float32))
    np.testing.assert_array_equal(again.item_errors, scored.item_errors.astype(np.float32))


def test_an_item_without_test_events_gains_nothing(split, latents):
    scored = split.score(latents, ceilings=())
    tested = np.bincount(split.events.item[~split.events.train], minlength=split.num_items) > 0
    assert not scored.item_gains[~tested].any()
    assert (scored.item_errors[tested] > 0).all()


def test_movers_rose_most_first_then_fell_most():
    changed = movers(result([1, 1, 1, 1]), result([1, 3, 0, 2]), CATALOGUE)
    assert [mover.item_id for mover in changed] == [11, 13, 12]
    assert [mover.title for mover in changed] == ["11", "13", "c"]
    assert [mover.change.value for mover in changed] == [2, 1, -1]
    assert [mover.gain.value for mover in changed] == [3, 2, 0]
    assert changed[0].change.se == pytest.approx(0.3 * np.sqrt(2))
    assert changed[0].gain.low == pytest.approx(3 - 1.96 * 0.3, abs=1e-4)


def test_no_more_movers_than_asked_for():
    assert len(movers(result([0, 0, 0, 0]), result([1, 2, -1, -2]), CATALOGUE, num=1)) == 2


def test_results_without_gains_of_items_have_no_movers():
    assert movers(result([]), result([1, 2, 3, 4]), CATALOGUE) == []


def test_results_of_another_split_are_refused():
    with pytest.raises(ShapeError, match=r"4 and 4 items on splits 's' and 't', the catalogue 4"):
        movers(result([1, 2, 3, 4]), result([1, 2, 3, 4], split_hash="t"), CATALOGUE)
    with pytest.raises(ShapeError, match=r"3 and 3 items on splits 's' and 's', the catalogue 4"):
        movers(result([1, 2, 3]), result([1, 2, 3]), CATALOGUE)


def test_a_catalogue_comes_back_from_its_file(tmp_path):
    table = pl.DataFrame({"sku": ["b", "a"], "title": ["Bee", None], "image": ["b.jpg", None]})
    made = Catalogue.of(np.array(["a", "b", "c"]), table, item="sku")
    made.write(tmp_path / "items.parquet")
    again = Catalogue.read(tmp_path / "items.parquet")
    assert again.titles == ("a", "Bee", "c")
    assert [path and path.name for path in again.images] == [None, "b.jpg", None]
    assert again.images[1].is_absolute()
    assert again.ids.tolist() == ["a", "b", "c"]


def test_a_catalogue_that_is_none_is_refused():
    ids = np.array([1, 2])
    with pytest.raises(ItemError, match=r"1 ids more than once: \[1\]"):
        Catalogue.of(ids, pl.DataFrame({"item_id": [1, 1, 2]}))
    with pytest.raises(ItemError, match="'image' of the catalogue must hold paths, got Int64"):
        Catalogue.of(ids, pl.DataFrame({"item_id": [1, 2], "image": [3, 4]}))
    with pytest.raises(LogError, match="item_id"):
        Catalogue.of(ids, pl.DataFrame({"sku": [1, 2]}))


def test_concentration_is_the_share_of_items_that_make_half_of_the_gain():
    assert concentration(np.ones(10)) == 0.5
    assert concentration([10.0, 1, 1, 1, -50]) == 0.2
    assert np.isnan(concentration([0.0, -1.0]))
