"""Several representations of one encode: joined, scored, and read back from a run."""

import numpy as np
import polars
import pytest
import torch
from safetensors.numpy import load_file

from lis_lightning.errors import ConfigError, ItemError, ShapeError
from lis_lightning.monitor.representations import SideBySide
from lis_lightning.results.record import Record
from lis_lightning.scoring.reads import CodeTable, Prefixes
from tests._helpers.small_run import Tower, fit, make_split, monitor_of


class TwoLayers(Tower):
    def encode_items(self, batch):
        return {"last": self.net(batch["x"]), "first": self.net[0](batch["x"])}


def test_a_run_scores_its_codes_and_another_layer_in_one_encode(tmp_path):
    split = make_split()
    monitor = monitor_of(split, reads=["codes", "cosine"], ceilings=(), placebo=False, save="all", dirpath=tmp_path)
    fit(tmp_path, monitor, steps=4, module=TwoLayers())
    plain = monitor_of(split, ceilings=(), placebo=False, dirpath=tmp_path / "plain")
    fit(tmp_path, plain, steps=4)
    assert [result.ais for result in monitor.results] == [result.ais for result in plain.results]
    first, *later = monitor.results
    assert list(first.reads) == ["codes", "cosine", "first"]
    assert first.reads["first"].ais != first.ais
    assert "churn" not in first.reads["codes"].facts
    assert all(0 <= result.reads["codes"].facts["churn"] <= 1 for result in later)
    recorded = Record.read(monitor.record_path)[1]
    assert [result.scalars().keys() for result in recorded] == [result.scalars().keys() for result in monitor.results]
    kept = next(iter(tmp_path.rglob("*.safetensors")))
    assert load_file(kept)["embeddings"].shape == (split.num_items, 4)  # what AIS is of


def test_trained_weights_do_not_depend_on_what_is_read(tmp_path):
    _, with_reads = fit(tmp_path, monitor_of(make_split(), reads=["codes"], ceilings=(), background_steps=1), steps=4)
    _, alone = fit(tmp_path, steps=4)
    for left, right in zip(with_reads.parameters(), alone.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_reading_that_does_not_fit_the_representation_ends_the_run_before_its_first_step(tmp_path):
    reads = {"prefix": Prefixes([64])}
    with pytest.raises(ConfigError, match=r"has 4 dimensions, none of \[64\] is fewer; .*Prefixes\(\[2\]\)"):
        fit(tmp_path, monitor_of(make_split(), reads=reads, ceilings=(), placebo=False), steps=2)
    table = CodeTable(polars.DataFrame({"item_id": [0], "code": [1]}))
    with pytest.raises(ItemError, match="have no row in the table of codes"):  # before the model is there
        monitor_of(make_split(), reads={"mine": table})


def test_a_layer_and_a_reading_of_one_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Two readings are named 'first'"):
        fit(tmp_path, monitor_of(make_split(), reads={"first": "cosine"}, ceilings=()), steps=2, module=TwoLayers())


def test_the_order_of_the_names_is_that_of_the_first_batch():
    blocks = SideBySide()
    encode = blocks.joining(lambda module, batch: batch)
    one, two = torch.ones(2, 1), torch.zeros(2, 1)
    assert torch.equal(encode(None, {"a": one, "b": two}), encode(None, {"b": two, "a": one}))
    assert list(blocks.separated(torch.ones(5, 2))) == ["a", "b"]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([{"a": torch.ones(2, 3), "b": np.ones((2, 3))}], r"got ndarray for 'b'"),
        ([{"a": torch.ones(2)}], r"got torch.float32 \[2\] for 'a'"),
        ([{"a": torch.ones(2, 3, dtype=torch.int64)}], r"got torch.int64 \[2, 3\] for 'a'"),
        ([{"a": torch.ones(2, 3), "b": torch.ones(1, 3)}], r"one row an item .* got \{'a': 2, 'b': 1\} rows"),
        ([{"a": torch.ones(2, 3)}, torch.ones(2, 3)], "returned a dict before, and now a tensor"),
        ([{}], r"same names and widths"),
        ([{"a": torch.ones(2, 3)}, {"a": torch.ones(2, 4)}], r"got \{'a': 4\} after \{'a': 3\}"),
    ],
)
def test_what_cannot_be_joined_is_refused(outputs, message):
    encode = SideBySide().joining(lambda module, batch: batch)
    *accepted, last = outputs
    for output in accepted:
        encode(None, output)
    with pytest.raises(ShapeError, match=message):
        encode(None, last)
