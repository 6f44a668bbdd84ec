from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
import torch

from lis_lightning.align.models import preparation
from lis_lightning.align.models.preparation import prepare_items
from lis_lightning.align.models.prepared_items import LiveItems, StoredItems, compact, pad_and_stack
from lis_lightning.errors import ConfigError, ItemError

IDS = np.array([5, 7, 9])


def _rows():
    rng = np.random.default_rng(0)
    for row in range(3):
        yield {
            "input_ids": np.arange(2 + row),
            "pixel_values": rng.standard_normal((1, 3, 4, 5)).astype(np.float32),
            "wide": np.full((1, 1 + row, 2), 2**40 + row),
            "double": np.array([[0.1]]),
            "flag": np.array([[row == 1]]),
        }


def _keys(count, start=0):
    return [[f"key number {number:5}".encode()] for number in range(start, start + count)]


def _prepare(folder, rows=None, ids=IDS, keys=None, pictured=None, **options):
    """Prepare rows that are given as they are; an exception among them is raised."""
    rows = list(_rows()) if rows is None else rows

    def process(row):
        if isinstance(rows[row], BaseException):
            raise rows[row]
        return {name: compact(array) for name, array in rows[row].items()}

    pictured = [True] * len(ids) if pictured is None else pictured
    return prepare_items(folder / "items", ids, keys or _keys(len(ids)), process, pictured=pictured, **options)


@pytest.mark.parametrize("store", ["inputs", "images"])
def test_gives_back_what_went_in(tmp_path, store):
    items = _prepare(tmp_path, store=store)
    assert type(items) is {"inputs": StoredItems, "images": LiveItems}[store]
    assert len(items) == 3
    for row, (item, expected) in enumerate(zip((items[0], items[1], items[2]), _rows(), strict=True)):
        assert item.pop("item_id") == IDS[row]
        assert item.keys() == expected.keys()
        assert torch.equal(item["input_ids"], torch.from_numpy(expected["input_ids"]))
        assert item["input_ids"].dtype == item["wide"].dtype == torch.int64
        assert torch.equal(item["pixel_values"], torch.from_numpy(expected["pixel_values"]))
        assert torch.equal(item["wide"], torch.from_numpy(expected["wide"]))
        assert item["double"].dtype == torch.float32
        assert item["flag"].item() is bool(row == 1)


@pytest.mark.parametrize("store", ["inputs", "images"])
def test_items_know_their_length(tmp_path, store):
    items = _prepare(tmp_path, store=store)
    assert items.lengths.tolist() == [sum(array.size for array in row.values()) for row in _rows()] == [66, 69, 72]


def test_prepared_items_are_not_processed_again(tmp_path):
    first = _prepare(tmp_path)
    again = _prepare(tmp_path, [AssertionError("processed again")] * 3)
    assert torch.equal(first[2]["pixel_values"], again[2]["pixel_values"])


def test_only_new_and_changed_items_are_processed(tmp_path):
    _prepare(tmp_path)
    rows, done = list(_rows()), AssertionError("processed again")
    changed = {"input_ids": np.arange(9), **{name: rows[1][name] for name in rows[1] if name != "input_ids"}}
    keys = [_keys(1)[0], *_keys(2, start=7)]
    items = _prepare(tmp_path, [done, changed, rows[2]], keys=keys)
    assert torch.equal(items[1]["input_ids"], torch.arange(9))
    assert torch.equal(items[0]["input_ids"], torch.arange(2))


def test_what_is_prepared_before_a_failed_item_stays(tmp_path):
    rows, done = list(_rows()), AssertionError("processed again")
    with pytest.raises(ItemError, match="image 9 is bad"):
        _prepare(tmp_path, [rows[0], rows[1], ItemError("image 9 is bad")])
    items = _prepare(tmp_path, [done, done, rows[2]])
    assert torch.equal(items[1]["pixel_values"], torch.from_numpy(rows[1]["pixel_values"]))


def test_what_is_prepared_before_an_interrupt_stays(tmp_path):
    rows, done = list(_rows()), AssertionError("processed again")
    many, ids = [rows[0]] * 20, np.arange(20)
    with pytest.raises(KeyboardInterrupt):
        _prepare(tmp_path, [*many[:18], KeyboardInterrupt(), rows[1]], ids)
    process = [done, *([rows[0]] * 19)]  # row 0 is of the sample, which is stored first
    assert len(_prepare(tmp_path, process, ids)) == 20


@pytest.mark.parametrize(("name", "lost"), [("records.bin", 1), ("index.bin", 1)])
def test_of_a_cut_file_only_what_it_lost_is_processed_again(tmp_path, name, lost):
    _prepare(tmp_path)
    file = tmp_path / "items-inputs" / name
    file.write_bytes(file.read_bytes()[:-3])
    rows, done = list(_rows()), AssertionError("processed again")
    items = _prepare(tmp_path, [done] * (3 - lost) + rows[3 - lost :])
    assert torch.equal(items[2]["pixel_values"], torch.from_numpy(rows[2]["pixel_values"]))
    assert torch.equal(items[0]["pixel_values"], torch.from_numpy(rows[0]["pixel_values"]))


def _counted(folder, row):
    (folder / "processed").open("a").write("x")
    return {"x": np.full(4, row, np.int32)}


def _prepare_slowly(folder, barrier):
    barrier.wait()
    process = partial(_counted, folder)
    items = prepare_items(folder / "items", np.arange(40), _keys(40), process, pictured=[False] * 40)
    assert items[39]["x"].tolist() == [39] * 4


def test_of_two_processes_one_prepares_and_the_other_waits(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_prepare_slowly, args=(tmp_path, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len((tmp_path / "processed").read_text()) == 40


def test_large_inputs_are_made_again_and_their_sizes_alone_are_stored(tmp_path, monkeypatch):
    assert type(_prepare(tmp_path)) is StoredItems
    monkeypatch.setattr(preparation, "LARGEST_INPUTS", 100)
    items = _prepare(tmp_path / "large")
    assert type(items) is LiveItems
    assert items.num_workers > 0
    assert sum(path.stat().st_size for path in (tmp_path / "large").rglob("*.bin")) < 200
    assert type(_prepare(tmp_path / "texts", pictured=[False] * 3)) is StoredItems


def test_inputs_that_the_disk_cannot_hold_are_refused_before_they_are_written(tmp_path, monkeypatch):
    usage = partial(preparation.shutil.disk_usage, tmp_path)()._replace(free=500)
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match=r"need 0\.0 GB in .*, where 0\.0 GB are free\. Set model\.store=images"):
        _prepare(tmp_path, store="inputs")
    assert list(tmp_path.rglob("*.bin")) == []
    assert len(_prepare(tmp_path, store="images")) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_an_estimate_is_printed_after_the_first_items(tmp_path, monkeypatch, capsys, workers):
    monkeypatch.setattr(preparation, "SLOW", -1.0 if workers else 0.0)
    monkeypatch.setattr(preparation, "num_processes", lambda: workers)
    rows = [
        {"input_ids": np.arange(10 + row % 3), "pixel_values": np.ones((1, 1000), np.float32)} for row in range(300)
    ]
    items = _prepare(tmp_path, rows, np.arange(300))
    assert [len(items[row]["input_ids"]) for row in (0, 1, 299)] == [10, 11, 12]
    line = " ".join(capsys.readouterr().out.split())
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.bin"))
    assert f"{size / 1e6:.2g}" in line
    assert "preparing 300 items: about " in line
    assert "11 tokens and 0.00409 MB of inputs an item, 0 MB in 64 items" in line


def test_pickle_carries_no_pixels(tmp_path):
    items = _prepare(tmp_path)
    assert len(pickle.dumps(items)) < 1000
    assert torch.equal(pickle.loads(pickle.dumps(items))[1]["pixel_values"], items[1]["pixel_values"])


def test_items_can_be_written_to_without_touching_the_file(tmp_path):
    items = _prepare(tmp_path)
    items[0]["pixel_values"].zero_()
    assert items[0]["pixel_values"].abs().sum() > 0


def test_text_ids(tmp_path):
    items = _prepare(tmp_path, ids=np.array(["a", "b", "c"]))
    assert [items[row]["item_id"] for row in range(3)] == ["a", "b", "c"]


def test_no_row_beyond_the_last(tmp_path):
    with pytest.raises(IndexError, match="Row 3 of 3"):
        _prepare(tmp_path)[3]


def test_error_when_an_item_lacks_a_field(tmp_path):
    rows = [{"a": np.ones(2)}, {"b": np.ones(2)}, {"a": np.ones(2)}]
    with pytest.raises(ItemError, match=r"item 7 the fields .*'b'.*item 5 the fields .*'a'"):
        _prepare(tmp_path, rows)


def test_error_when_axes_differ(tmp_path):
    with pytest.raises(ItemError, match=r"item 7 the fields \{'a': \('<f4', 2\)\}"):
        _prepare(tmp_path, [{"a": np.ones(2)}, {"a": np.ones((1, 2))}, {"a": np.ones(2)}])


@pytest.mark.parametrize(("patience", "terminal", "shown"), [(0, "1", True), (60, "1", False), (0, "", False)])
def test_progress_shows_on_a_terminal_when_it_takes_long(tmp_path, capsys, monkeypatch, patience, terminal, shown):
    monkeypatch.setattr("lis_lightning.align.data.progress.PATIENCE", patience)
    monkeypatch.setenv("FORCE_COLOR", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    _prepare(tmp_path)
    assert ("Preparing items" in capsys.readouterr().err) is shown


def test_pad_and_stack_pads_at_the_end():
    out = pad_and_stack([torch.ones(1, 2), torch.full((2, 3), 2.0)], fill=-1)
    assert out.tolist() == [[1, 1, -1], [2, 2, 2], [2, 2, 2]]
    same = [torch.ones(1, 3), torch.zeros(2, 3)]
    assert torch.equal(pad_and_stack(same), torch.cat(same))
