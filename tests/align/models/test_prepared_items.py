from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from lis_lightning.align.models.prepared_items import pad_and_stack, prepare_items
from lis_lightning.errors import ItemError

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


def test_gives_back_what_went_in(tmp_path):
    items = prepare_items(tmp_path / "items", IDS, _rows())
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


def test_items_know_their_length(tmp_path):
    items = prepare_items(tmp_path / "items", IDS, _rows())
    assert items.lengths.tolist() == [sum(array.size for array in row.values()) for row in _rows()] == [66, 69, 72]


def test_intact_items_are_not_processed_again(tmp_path):
    def explode():
        raise AssertionError("processed again")
        yield

    first = prepare_items(tmp_path / "items", IDS, _rows())
    again = prepare_items(tmp_path / "items", IDS, explode())
    assert torch.equal(first[2]["pixel_values"], again[2]["pixel_values"])


@pytest.mark.parametrize("name", ["pixel_values.bin", "input_ids.shapes.npy", "index.json"])
def test_cut_file_is_found(tmp_path, name):
    prepare_items(tmp_path / "items", IDS, _rows())
    file = tmp_path / "items" / name
    file.write_bytes(file.read_bytes()[:-3])
    items = prepare_items(tmp_path / "items", IDS, _rows())
    assert torch.equal(items[2]["pixel_values"], torch.from_numpy(list(_rows())[2]["pixel_values"]))


def test_pickle_carries_no_pixels(tmp_path):
    items = prepare_items(tmp_path / "items", IDS, _rows())
    assert len(pickle.dumps(items)) < 1000
    assert torch.equal(pickle.loads(pickle.dumps(items))[1]["pixel_values"], items[1]["pixel_values"])


def test_items_can_be_written_to_without_touching_the_file(tmp_path):
    items = prepare_items(tmp_path / "items", IDS, _rows())
    items[0]["pixel_values"].zero_()
    assert items[0]["pixel_values"].abs().sum() > 0


def test_text_ids(tmp_path):
    items = prepare_items(tmp_path / "items", np.array(["a", "b", "c"]), _rows())
    assert [items[row]["item_id"] for row in range(3)] == ["a", "b", "c"]


def test_no_row_beyond_the_last(tmp_path):
    items = prepare_items(tmp_path / "items", IDS, _rows())
    with pytest.raises(IndexError, match="Row 3 of 3"):
        items[3]


def test_error_when_an_item_lacks_a_field(tmp_path):
    rows = [{"a": np.ones(2)}, {"b": np.ones(2)}, {"a": np.ones(2)}]
    with pytest.raises(ItemError, match=r"item 7 the fields .*'b'.*first item \(5\).*'a'"):
        prepare_items(tmp_path / "items", IDS, rows)
    assert list(tmp_path.iterdir()) == []


def test_error_when_axes_differ(tmp_path):
    with pytest.raises(ItemError, match=r"item 7 .* \{'a': 2\} axes"):
        prepare_items(tmp_path / "items", IDS, [{"a": np.ones(2)}, {"a": np.ones((1, 2))}, {"a": np.ones(2)}])


@pytest.mark.parametrize(("patience", "terminal", "shown"), [(0, "1", True), (60, "1", False), (0, "", False)])
def test_progress_shows_on_a_terminal_when_it_takes_long(tmp_path, capsys, monkeypatch, patience, terminal, shown):
    monkeypatch.setattr("lis_lightning.align.data.progress.PATIENCE", patience)
    monkeypatch.setenv("FORCE_COLOR", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    prepare_items(tmp_path / "items", IDS, _rows(), description="Cooking items")
    assert ("Cooking items" in capsys.readouterr().err) is shown


def test_pad_and_stack_pads_at_the_end():
    out = pad_and_stack([torch.ones(1, 2), torch.full((2, 3), 2.0)], fill=-1)
    assert out.tolist() == [[1, 1, -1], [2, 2, 2], [2, 2, 2]]
    same = [torch.ones(1, 3), torch.zeros(2, 3)]
    assert torch.equal(pad_and_stack(same), torch.cat(same))
