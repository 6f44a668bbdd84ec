"""LISMonitor and LISEarlyStopping in real Trainers, on a small module with all that can be disturbed."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path

import numpy as np
import polars
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, ItemError, LisWarning, RecordError, SnapshotError
from lis_lightning.monitor.callback import LISMonitor
from lis_lightning.monitor.early_stopping import LISEarlyStopping
from lis_lightning.results.record import Record
from lis_lightning.results.selection import simultaneous_band
from lis_lightning.results.verdict import VERDICTS
from lis_lightning.scoring.scorer import Scorer
from tests._helpers.small_results import FROZEN_KEYS
from tests._helpers.training import (
    DIM,
    NUM_ITEMS,
    Items,
    Tower,
    contents,
    fails_after_drawing,
    fit,
    make_log,
    monitor_of,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # Lightning 2.6 with torch 2.13
    pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode:UserWarning"),  # the frozen BatchNorm, on purpose
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),  # resumed without the saver
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning"),
]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def split():
    return PreferenceSplit.from_log(make_log())


def scalars(results):
    """Every number of the results, so that NaN equals NaN."""
    return [{name: repr(value) for name, value in result.scalars().items()} for result in results]


# --- when a snapshot is taken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "steps", "accumulate", "expected"),
    [
        pytest.param(2, 6, 1, [0, 2, 4, 6], id="end-is-due"),
        pytest.param(4, 6, 1, [0, 4, 6], id="end-is-not-due"),
        pytest.param(100, 3, 1, [0, 3], id="never-due"),
        pytest.param(2, 4, 3, [0, 2, 4], id="accumulation"),
    ],
)
def test_steps(split, tmp_path, every, steps, accumulate, expected):
    monitor = monitor_of(split, every_n_steps=every)
    fit(tmp_path, monitor, steps=steps, accumulate_grad_batches=accumulate)
    assert [result.step for result in monitor.results] == expected


def test_manual_optimisation_with_two_steps_a_batch_skips_no_snapshot(split, tmp_path):
    class Manual(Tower):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for _ in range(2):
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(Tower.training_step(self, batch, batch_idx))
                optimizer.step()

    monitor = monitor_of(split, every_n_steps=3)
    fit(tmp_path, monitor, module=Manual(), steps=8)
    assert [result.step for result in monitor.results] == [0, 4, 6, 8]


def test_raw_snapshot_is_of_the_raw_weights(split, tmp_path):
    seen = []
    module = Tower()
    raw = module.net[0].weight.detach().clone()

    def encode(module, batch):
        seen.append(module.net[0].weight.detach().clone())
        return module.encode_items(batch)

    fit(tmp_path, monitor_of(split, encode=encode), module=module, steps=2)
    assert torch.equal(seen[0], raw)
    assert not torch.equal(seen[-1], raw)


def test_placebo_is_scored_once(split, tmp_path):
    fit(tmp_path, monitor := monitor_of(split))
    assert [result.placebo is not None for result in monitor.results] == [True, False, False, False]


def test_fast_dev_run_takes_one_snapshot_and_writes_nothing(split, tmp_path):
    _, module = fit(tmp_path, monitor := monitor_of(split), LISEarlyStopping(), steps=-1, fast_dev_run=True)
    assert [result.step for result in monitor.results] == [0]
    assert module.encoded == 5
    assert list(tmp_path.rglob("*")) == []


def test_fast_dev_run_shows_failures(split, tmp_path):
    with pytest.raises(ValueError, match="no picture"):
        fit(tmp_path, monitor_of(split, encode=fails_after_drawing), steps=-1, fast_dev_run=True)


def test_a_reused_monitor_starts_a_new_curve(split, tmp_path):
    monitor = monitor_of(split)
    fit(tmp_path, monitor, steps=4)
    first = monitor.record_path
    fit(tmp_path, monitor, steps=2)
    assert [result.step for result in monitor.results] == [0, 2]
    assert (first.name, monitor.record_path.name) == ("record.jsonl", "record-v1.jsonl")
    assert [result.step for result in Record.read(first)[1]] == [0, 2, 4]


# --- who is told ----------------------------------------------------------------------------------------------------


def test_record_holds_what_the_monitor_holds(split, tmp_path):
    fit(tmp_path, monitor := monitor_of(split))
    assert monitor.record_path == tmp_path / "record.jsonl"
    header, results = Record.read(monitor.record_path)
    assert header["split_hash"] == split.hash
    assert header["config"]["schedule"] == ["EverySteps(n=2)"]
    assert scalars(results) == scalars(monitor.results)
    assert results[-1].compare(results[0]) == monitor.results[-1].compare(monitor.results[0])
    end = Record.statuses(monitor.record_path)[-1]
    assert (end["kind"], end["best_step"], end["verdict"]) == ("end", monitor.best_step, monitor.results[-1].verdict)
    band = simultaneous_band(monitor.results)
    assert end["band"]["steps"] == [result.step for result in monitor.results]
    assert end["band"]["low"] == [estimate.low for estimate in band]
    assert all(low <= result.ais_low for low, result in zip(end["band"]["low"], monitor.results, strict=True))


def test_logger_gets_the_same_keys_at_each_snapshot(split, tmp_path):
    logger = CSVLogger(tmp_path, name="runs", version="a")
    fit(tmp_path, monitor := monitor_of(split), logger=logger)
    assert monitor.record_path == tmp_path / "runs" / "a" / "record.jsonl"
    with (tmp_path / "runs" / "a" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lis/ais"]]
    assert [int(row["step"]) for row in rows] == [0, 2, 4, 6]
    best = -math.inf
    for row, result in zip(rows, monitor.results, strict=True):
        assert {key for key, value in row.items() if value and key.startswith("lis/")} == FROZEN_KEYS
        best = max(best, result.ais)
        assert (float(row["lis/ais"]), float(row["lis/best_ais"])) == (result.ais, best)


def test_what_an_encode_logs_does_not_reach_the_curves(split, tmp_path):
    class Logging(Tower):
        def encode_items(self, batch):
            self.log("encoded", 1.0, on_step=True)
            return super().encode_items(batch)

        def training_step(self, batch, batch_idx):
            self.log("trained", 1.0, on_step=True)
            return super().training_step(batch, batch_idx)

    logger = CSVLogger(tmp_path, name="runs", version="a")
    trainer, _ = fit(tmp_path, monitor_of(split), module=Logging(), logger=logger)
    header = (tmp_path / "runs" / "a" / "metrics.csv").read_text().splitlines()[0]
    assert "trained" in header
    assert "encoded" not in header
    assert "encoded" not in trainer.callback_metrics


def test_stock_callbacks_find_the_score(split, tmp_path):
    checkpoint = ModelCheckpoint(
        tmp_path, monitor="lis/ais", mode="max", every_n_train_steps=2, save_top_k=1, filename="{step}"
    )
    stop = EarlyStopping("lis/ais", mode="max", patience=50)
    monitor = monitor_of(split)
    # Checkpoint first in the list: Lightning moves it behind the monitor.
    fit(tmp_path, checkpoint, stop, monitor, enable_checkpointing=True)
    best = max(monitor.results[1:], key=lambda result: result.ais)
    assert Path(checkpoint.best_model_path).name == f"step={best.step}.ckpt"
    assert float(checkpoint.best_model_score) == pytest.approx(best.ais)
    # It looks at the end of each epoch of 3 batches: after step 3, at the score of step 2, and after step 6.
    assert float(stop.best_score) == pytest.approx(max(monitor.results[1].ais, monitor.results[3].ais))


def test_progress_lines_and_table(split, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        fit(tmp_path, monitor := monitor_of(split))
    lines = [record.message for record in caplog.records if record.message.startswith("LIS step")]
    assert len(lines) == 4
    assert f"AIS {monitor.results[1].ais:+.4f}" in lines[1]
    summary = caplog.records[-1].message if "Record:" in caplog.records[-1].message else caplog.text
    assert f"{monitor.best_step}*" in summary
    assert str(monitor.record_path) in summary


def test_a_line_before_and_after_the_first_snapshot(split, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        fit(tmp_path, monitor_of(split, ceilings=("pairs",)))
    lines = [record.message for record in caplog.records if record.message.startswith("LISMonitor:")]
    before, after = lines
    assert before == (
        f"LISMonitor: scoring {split.num_items} items before training, and computing the ceilings of pairs once for "
        "this split ..."
    )
    assert "the first snapshot took" in after


def test_progress_can_be_switched_off(split, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        fit(tmp_path, monitor_of(split, progress=False))
    assert "LIS" not in caplog.text


def test_scores_are_those_of_the_split(split, tmp_path):
    """The callback against the split's own score of the same vectors, encoded by hand."""

    class Plain(Tower):
        def encode_items(self, batch):
            return batch["x"]

    items = [{"item_id": item, "x": contents()[item]} for item in reversed(range(NUM_ITEMS))]
    fit(tmp_path, monitor := monitor_of(split, items=items), module=Plain(), steps=2)
    expected = split.score(contents()[split.item_ids].numpy(), placebo=False)
    assert [result.ais for result in monitor.results] == pytest.approx([expected.ais] * 2, abs=1e-9)


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_failing_snapshot_is_recorded_and_training_goes_on(split, tmp_path):
    def encode(module, batch):
        if module.trainer.global_step == 2:
            raise OSError("item image vanished")
        return module.encode_items(batch)

    with pytest.warns(LisWarning, match="the snapshot of step 2 failed. OSError: item image vanished") as caught:
        trainer, _ = fit(tmp_path, monitor := monitor_of(split, encode=encode))
    assert len([w for w in caught if w.category is LisWarning]) == 1
    assert trainer.global_step == 6
    assert [result.step for result in monitor.results] == [0, 4, 6]
    assert monitor.last_error == "OSError: item image vanished"
    failure = Record.statuses(monitor.record_path)[0]
    assert (failure["kind"], failure["step"], failure["error"]) == ("failure", 2, monitor.last_error)


def test_warns_once_for_each_kind(split, tmp_path):
    def encode(module, batch):
        if module.trainer.global_step:
            raise OSError("gone")
        return module.encode_items(batch)

    with pytest.warns(LisWarning) as caught:
        fit(tmp_path, monitor := monitor_of(split, encode=encode))
    assert len([w for w in caught if w.category is LisWarning]) == 1
    assert [status["step"] for status in Record.statuses(monitor.record_path)[:-1]] == [2, 4, 6]


def test_strict_raises(split, tmp_path):
    with pytest.raises(ValueError, match="no picture"):
        fit(tmp_path, monitor_of(split, encode=fails_after_drawing, strict=True))


def test_a_failing_score_is_survived(split, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ArithmeticError("singular")

    monkeypatch.setattr(Scorer, "score", broken)
    with pytest.warns(LisWarning, match="ArithmeticError: singular"):
        trainer, _ = fit(tmp_path, monitor := monitor_of(split))
    assert (trainer.global_step, monitor.results, monitor.best) == (6, [], None)


class BrokenLogger(CSVLogger):
    def log_metrics(self, metrics, step=None):
        if "lis/ais" in metrics:
            raise ConnectionError("tracker is down")
        super().log_metrics(metrics, step)


def test_a_failing_logger_is_survived_and_the_others_are_written(split, tmp_path):
    loggers = [BrokenLogger(tmp_path, name="broken"), CSVLogger(tmp_path, name="whole", version=0)]
    with pytest.warns(LisWarning, match="BrokenLogger raised ConnectionError: tracker is down"):
        fit(tmp_path, monitor := monitor_of(split), logger=loggers)
    assert "lis/ais" in (tmp_path / "whole" / "version_0" / "metrics.csv").read_text()
    assert len(monitor.results) == 4
    assert len([s for s in Record.statuses(monitor.record_path) if s["kind"] == "failure"]) == 4


def test_a_failing_logger_raises_if_strict(split, tmp_path):
    with pytest.raises(RecordError, match="BrokenLogger raised ConnectionError"):
        fit(tmp_path, monitor_of(split, strict=True), logger=BrokenLogger(tmp_path))


def test_an_unwritable_record_is_survived(split, tmp_path):
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.warns(LisWarning, match="the record of step 0 failed.*taken"):
        trainer, _ = fit(tmp_path, monitor := monitor_of(split, dirpath=tmp_path / "taken"))
    assert (trainer.global_step, len(monitor.results), monitor.record_path) == (6, 4, None)


def test_module_without_encoder_is_refused_at_setup(split, tmp_path):
    class Mute(Tower):
        encode_items = None

    with pytest.raises(ConfigError, match="Mute has no method `encode_items"):
        fit(tmp_path, monitor_of(split), module=Mute())


def test_missing_items_are_refused_at_setup(split, tmp_path):
    with pytest.raises(SnapshotError, match=r"2 of the split's 30 items .* \[0, 1\]"):
        fit(tmp_path, monitor_of(split, items=Items(range(2, NUM_ITEMS))))


def test_items_never_encoded_are_named(split, tmp_path):
    items = [Items()[row] for row in range(3, NUM_ITEMS)]  # a list cannot say its ids beforehand
    with pytest.raises(ItemError, match=r"3 of 30 items .*\[0, 1, 2\]"):
        fit(tmp_path, monitor_of(split, items=items), steps=2)


def test_diverged_weights_are_told_by_the_items_they_spoil(split, tmp_path):
    def encode(module, batch):
        return module.encode_items(batch) * torch.where(batch["item_id"] == 11, torch.nan, 1.0)[:, None]

    with pytest.warns(LisWarning, match=r"NonFiniteError: .*NaN or infinity.*\[11\]"):
        trainer, _ = fit(tmp_path, monitor := monitor_of(split, encode=encode), steps=2)
    assert (trainer.global_step, monitor.results) == (2, [])


def test_items_outside_the_split_are_left_out_and_counted(split, tmp_path, caplog):
    extra = [{"item_id": 1000 + row, "x": torch.zeros(DIM)} for row in range(5)]
    with caplog.at_level(logging.INFO):
        fit(tmp_path, monitor := monitor_of(split, items=[*(Items()[row] for row in range(NUM_ITEMS)), *extra]))
    assert caplog.text.count("5 of the encoded items are not in the split") == 1
    assert len(monitor.results) == 4


def test_preference_data_is_checked_at_once(split):
    with pytest.raises(ConfigError, match=r"'pears'; expected one of \['ids', 'pairs'\]"):
        LISMonitor(split, [], ceilings=["pears"], aligned_to="pears")
    with pytest.raises(ConfigError, match=r"`aligned_to` among the ceilings \['ids'\], got 'pairs'"):
        LISMonitor(split, [], ceilings=["ids"])


def test_several_labels_are_judged_each_and_come_back_from_the_record(tmp_path):
    log = make_log()
    liked = polars.Series(log["label"].to_numpy() * (np.arange(len(log)) % 3 > 0))
    both = PreferenceSplit.from_log(log.with_columns(like=liked), label=["label", "like"])
    monitor = monitor_of(both, ceilings=["ids"], aligned_to="ids")
    fit(tmp_path, monitor)
    _, results = Record.read(monitor.record_path)
    for result in (*monitor.results, *results):
        assert result.tasks["like"].verdict in VERDICTS
        assert result.tasks["like"].step == result.step
    assert len(results) == len(monitor.results) > 1


def test_every_n_steps_is_checked(split):
    with pytest.raises(ConfigError, match="at least 1 optimizer step, got 0"):
        monitor_of(split, every_n_steps=0)


def test_two_monitors_of_one_name_are_told_to_take_another(split):
    for names in ((None, None), ("text", "text")):
        monitors = [monitor_of(split, name=name) for name in names]
        with pytest.raises(ConfigError, match=r'different names.*LISMonitor\(\.\.\., name="text"\)'):
            pl.Trainer(callbacks=monitors, logger=False, enable_checkpointing=False, accelerator="cpu")


def test_a_checkpoint_holds_plain_keys(split, tmp_path):
    monitor = monitor_of(split)
    trainer, _ = fit(tmp_path, monitor, steps=2)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    keys = torch.load(tmp_path / "plain.ckpt", weights_only=True)["callbacks"]
    assert {type(key) for key in keys} == {str}
    assert monitor.state_key in keys


# --- resume ---------------------------------------------------------------------------------------------------------


def test_resume_continues_curve_and_record(split, tmp_path):
    save = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=3, save_top_k=-1, filename="{step}")
    first = monitor_of(split)
    fit(tmp_path, first, save, steps=8, enable_checkpointing=True)  # goes on to 8, which the resume abandons
    second = monitor_of(split)
    ckpt = tmp_path / "ckpt" / "step=6.ckpt"
    fit(tmp_path, second, steps=12, ckpt_path=ckpt)
    assert [result.step for result in second.results] == [0, 2, 4, 6, 8, 10, 12]
    assert second.record_path == first.record_path
    results = Record.read(second.record_path)[1]
    assert [result.step for result in results] == [0, 2, 4, 6, 8, 10, 12]
    assert [result.ais for result in results] == [result.ais for result in second.results]
    assert [status["step"] for status in Record.statuses(second.record_path) if status["kind"] == "rewind"] == [6]
    assert [result.ais for result in results[:4]] == [result.ais for result in first.results[:4]]


def test_resume_elsewhere_brings_its_past_along(split, tmp_path):
    save = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=3, save_top_k=-1, filename="{step}")
    fit(tmp_path, monitor_of(split), save, steps=3, enable_checkpointing=True)
    second = monitor_of(split, dirpath=tmp_path / "elsewhere")
    stop = EarlyStopping("lis/ais", mode="max", patience=9)  # would raise if the score were not there at once
    fit(tmp_path, second, stop, steps=5, ckpt_path=tmp_path / "ckpt" / "step=3.ckpt")
    assert [r.step for r in Record.read(tmp_path / "elsewhere" / "record.jsonl")[1]] == [0, 2, 4, 5]


def test_a_monitor_added_on_resume_starts_where_it_is(split, tmp_path):
    save = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=3, save_top_k=-1, filename="{step}")
    fit(tmp_path, save, steps=3, enable_checkpointing=True)
    monitor = monitor_of(split)
    fit(tmp_path, monitor, steps=6, ckpt_path=tmp_path / "ckpt" / "step=3.ckpt")
    assert [result.step for result in monitor.results] == [3, 4, 6]


def test_a_second_fit_of_one_trainer_goes_on(split, tmp_path):
    monitor = monitor_of(split)
    trainer, module = fit(tmp_path, monitor, steps=3)
    trainer.fit_loop.epoch_loop.max_steps = 6
    trainer.fit(module, DataLoader(Items(), batch_size=10))
    assert [result.step for result in monitor.results] == [0, 2, 3, 4, 6]
    assert [result.step for result in Record.read(tmp_path / "record.jsonl")[1]] == [0, 2, 3, 4, 6]


def test_a_reused_monitor_brings_nothing_to_a_resume_that_knows_nothing_of_it(split, tmp_path):
    save = ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=3, save_top_k=-1, filename="{step}")
    fit(tmp_path, save, steps=3, enable_checkpointing=True)
    fit(tmp_path, monitor := monitor_of(split), steps=2)
    fit(tmp_path, monitor, steps=6, ckpt_path=tmp_path / "ckpt" / "step=3.ckpt")
    assert [result.step for result in monitor.results] == [3, 4, 6]


def test_state_is_small_and_plain(split, tmp_path):
    fit(tmp_path, monitor := monitor_of(split))
    text = json.dumps(monitor.state_dict())
    assert len(text) < 20_000
    other = monitor_of(split)
    other.load_state_dict(json.loads(text))
    assert scalars(other.results) == scalars(monitor.results)
    assert other.best_step == monitor.best_step
