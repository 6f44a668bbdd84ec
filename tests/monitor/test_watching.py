"""Watched metrics reach the snapshot that they belong to, the record, and a resumed run; a mistyped key is reported."""

import math

import pytest
import torch
from torch.utils.data import DataLoader

from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.monitor.watching import Watch
from lis_lightning.results.record import Record
from tests._helpers import small_run

QUICK = {"placebo": False, "ceilings": ()}


@pytest.fixture(scope="module")
def split():
    return small_run.make_split()


def test_a_value_belongs_to_the_snapshot_of_its_step_or_to_the_next_one():
    watch = Watch(["recall", "loss"])
    assert watch.note(10, {"recall": torch.tensor([0.1]), "loss": math.nan, "other": "text"}) == {}
    watch.begin(20)
    assert watch.of(20) == {"recall": pytest.approx(0.1)}
    assert watch.of(10) == {}
    assert watch.note(20, {"recall": 0.2}) == {"recall": 0.2}
    watch.begin(30)
    assert watch.of(30) == {}  # nothing fresh


@pytest.mark.parametrize("value", [10**400, 1j, torch.ones(2), object(), None, torch.empty(1, device="meta")])
def test_a_value_that_is_no_number_ends_no_training(value):
    watch = Watch(["m"])
    watch.note(1, {"m": value})
    watch.begin(2)
    assert watch.of(2) == {}


def test_the_state_survives_a_resume():
    watch = Watch(["recall"])
    watch.note(10, {"recall": 0.1, "loss": 1.0})
    resumed = Watch(["recall"])
    resumed.load_state_dict(watch.state_dict())
    resumed.begin(20)
    assert resumed.of(20) == {"recall": 0.1}


def test_a_key_that_is_never_logged_is_reported_once_with_the_keys_that_exist():
    watch = Watch(["val/recalled", "val/loss"])
    watch.note(5, {"val/recall": 0.1, "val/loss": 0.2, "lis/ais": 0.0})
    for step in range(3):
        watch.begin(step)
    with pytest.warns(LisWarning, match="names 'val/recalled', which nothing has logged.* Logged keys: val/recall\\.$"):
        watch.begin(3)
    watch.begin(4)
    watch.report_missing()


@pytest.mark.parametrize("watch", ["val/recall", [""], [3]])
def test_other_keys_than_names_are_refused(split, watch):
    with pytest.raises(ConfigError, match=r"Expected `watch` to be a list of logged keys.*got "):
        small_run.monitor_of(split, watch=watch)


class Validated(small_run.Tower):
    """Logs the optimizer step in validations; in training ten times the step, and a constant."""

    def training_step(self, batch, batch_idx):
        self.log("train/step", 10.0 * (self.global_step + 1), batch_size=1)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.log("val/step", float(self.global_step), batch_size=1)
        self.log("val/constant", 0.5, batch_size=1)

    def val_dataloader(self):
        return DataLoader(range(1))


WATCH = ["val/step", "val/constant", "train/step"]
EVERY_3 = {"val_check_interval": 3, "check_val_every_n_epoch": None}


def watched(results, key):
    return {result.step: result.watched[key] for result in results if key in result.watched}


def test_a_trainer_tells_the_value_of_the_same_weights_and_a_resumed_run_has_it(split, tmp_path):
    """Snapshots every 2 steps, before the validations of every 3 steps that they may coincide with."""
    monitor = small_run.monitor_of(split, watch=WATCH, **QUICK)
    saver = small_run.saver(tmp_path / "ckpt", every=6)
    small_run.fit(tmp_path, monitor, saver, steps=8, module=Validated(), **EVERY_3)
    expected = {4: 3, 6: 6}
    assert watched(monitor.results, "val/step") == expected
    assert watched(monitor.results, "val/constant") == dict.fromkeys(expected, 0.5)  # fresh, though equal
    assert watched(monitor.results, "train/step") == {2: 20, 4: 40, 6: 60, 8: 80}
    assert watched(Record.read(monitor.record_path)[1], "val/step") == expected

    resumed = small_run.monitor_of(split, watch=WATCH, **QUICK)
    checkpoint = tmp_path / "ckpt" / "step=6.ckpt"
    small_run.fit(tmp_path, resumed, steps=12, module=Validated(), ckpt_path=checkpoint, **EVERY_3)
    assert watched(resumed.results, "val/step") == {4: 3, 6: 6, 10: 9, 12: 12}
    assert resumed.record_path == monitor.record_path
    assert watched(Record.read(resumed.record_path)[1], "val/step") == {4: 3, 6: 6, 10: 9, 12: 12}


def test_a_score_in_the_background_gets_the_value_of_its_own_step(split, tmp_path):
    monitor = small_run.monitor_of(split, watch=WATCH, every_n_steps=3, background_steps=2, **QUICK)
    small_run.fit(tmp_path, monitor, steps=9, module=Validated(), **EVERY_3)
    assert watched(monitor.results, "val/step") == {3: 3, 6: 6, 9: 9}
