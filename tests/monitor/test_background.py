"""Scores beside the training: read at known steps, whatever they take, and never lost."""

from __future__ import annotations

import copy
import csv
import json
import pickle
import random
import threading
import time

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import CSVLogger

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.monitor.background import Background
from lis_lightning.monitor.early_stopping import LISEarlyStopping
from lis_lightning.results.record import Record
from lis_lightning.results.stopping import StopRule
from lis_lightning.scoring.scorer import Scorer
from tests._helpers import small_run
from tests._helpers.training import Items, fingerprint, fit, make_log, monitor_of, same

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode:UserWarning"),  # the frozen BatchNorm, on purpose
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty:UserWarning"),
]


@pytest.fixture(scope="module")
def split():
    return PreferenceSplit.from_log(make_log())


def background_of(split, **options):
    fast = {"ceilings": (), "placebo": False, "progress": False, "every_n_steps": 4, "background_steps": 2}
    return monitor_of(split, **fast | options)


class Heard(Callback):
    """Which snapshot ``callback_metrics`` holds after each step."""

    def __init__(self, monitor):
        self.monitor = monitor
        self.last = {}

    def on_train_batch_end(self, trainer, *_):
        self.last[trainer.global_step] = self.monitor.results[-1].step


def curve(results):
    return [
        {name: repr(value) for name, value in one.scalars().items() if not name.endswith("_seconds")}
        | {"step": one.step, "verdict": one.verdict}
        for one in results
    ]


def assert_same_scores(results, expected):
    """One pair of test events may change places: memory of another thread may round the last digit otherwise."""
    assert [one.step for one in results] == [one.step for one in expected]
    for one, other in zip(results, expected, strict=True):
        assert one.verdict == other.verdict
        for name in ("ais", "ais_geometry", "auc", "auc_base"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=2e-4), name


@pytest.fixture
def slow_scores(monkeypatch):
    """Scores that take longer than the steps until they are read, each another time."""
    real, threads = Scorer.score, []

    def score(*args, **options):
        threads.append(threading.current_thread().name.split("_")[0])
        time.sleep(0.02 * (len(threads) % 4))
        return real(*args, **options)

    monkeypatch.setattr(Scorer, "score", score)
    return threads


# --- by itself -------------------------------------------------------------------------------------------------------


def test_a_value_is_due_after_its_delay_and_taken_once():
    background = Background(delay=3)
    assert not background.due(100)
    background.submit(10, lambda: threading.current_thread().name)
    assert [background.due(step) for step in (12, 13, 20)] == [False, True, True]
    assert background.peek().startswith("lis-score")
    assert background.take().startswith("lis-score")
    assert background.step is None
    assert not any(thread.name.startswith("lis-score") for thread in threading.enumerate())


def test_an_error_is_raised_when_it_is_taken():
    background = Background(delay=1)
    background.submit(4, lambda: 1 // 0)
    assert isinstance(background.peek(), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        background.take()
    assert background.step is None
    with pytest.raises(RuntimeError, match="Nothing was submitted"):
        background.take()


def test_an_interrupted_wait_loses_nothing(monkeypatch):
    release = threading.Event()
    background = Background(delay=1)
    background.submit(4, lambda: release.wait(10))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "join", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            background.take()
    release.set()
    assert background.take() is True


def test_what_was_computed_before_is_restored():
    background = Background(delay=2)
    background.restore(6, "known")
    assert (background.due(8), background.take()) == (True, "known")
    background.restore(6, OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        background.take()


def test_the_delay_is_checked(split):
    with pytest.raises(ConfigError, match="`background_steps` must be at least 1 optimizer step or None, got 0"):
        background_of(split, background_steps=0)


def test_a_monitor_that_waits_for_nothing_can_be_copied(split):
    assert copy.deepcopy(background_of(split)).background_steps == 2
    assert pickle.loads(pickle.dumps(background_of(split))).background_steps == 2


def test_a_score_touches_no_global_generator(split, monkeypatch):
    """Not even for a moment: the training draws from them in another thread."""
    real = [(torch, "manual_seed"), (torch.random, "fork_rng"), (torch, "set_rng_state"), (torch, "rand")]
    real += [(torch, "randperm"), (np.random, "seed"), (np.random, "set_state"), (random, "seed"), (random, "setstate")]
    for module, name in real:
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a global generator"))
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    vectors = np.random.default_rng(0).standard_normal((split.num_items, 8))
    fresh = PreferenceSplit.from_log(make_log())  # nothing kept: base and ceilings are computed too
    fresh.score(vectors, cache_dir="off")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # Python's is drawn from by beartype here


# --- in a Trainer ----------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_foreground_and_read_at_known_steps(split, tmp_path, slow_scores):
    expected = background_of(split, background_steps=None)
    fit(tmp_path / "at-once", expected, steps=14)
    assert set(slow_scores) == {"MainThread"}
    slow_scores.clear()
    monitor = background_of(split)
    fit(tmp_path / "later", monitor, heard := Heard(monitor), steps=14)
    assert slow_scores == ["MainThread", "lis-score", "lis-score", "lis-score", "MainThread"]
    assert_same_scores(monitor.results, expected.results)
    assert heard.last == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 4, 7: 4, 8: 4, 9: 4, 10: 8, 11: 8, 12: 8, 13: 8, 14: 12}
    assert_same_scores(Record.read(monitor.record_path)[1], expected.results)


def test_a_score_is_read_before_the_next_snapshot(split, tmp_path, slow_scores):
    monitor = background_of(split, background_steps=100)
    fit(tmp_path, monitor, heard := Heard(monitor), steps=9)
    assert heard.last == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0, 8: 4, 9: 4}
    assert [result.step for result in monitor.results] == [0, 4, 8, 9]


def test_training_is_the_same_to_the_bit(split, tmp_path, slow_scores):
    alone = fingerprint(*fit(tmp_path / "alone", steps=12))
    watched = fingerprint(*fit(tmp_path / "with", background_of(split), steps=12))
    assert same(alone, watched)


def test_loggers_get_the_step_of_the_snapshot(split, tmp_path):
    fit(tmp_path, background_of(split), steps=10, logger=CSVLogger(tmp_path, name="runs", version="a"))
    with (tmp_path / "runs" / "a" / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["lis/ais"]] == [0, 4, 8, 10]


def test_a_stop_does_not_depend_on_timing(split, tmp_path, slow_scores):
    rule = StopRule(min_gain=1.0, min_progress=0)  # every snapshot is flat
    for run in range(3):
        slow_scores.extend(["shift"] * run)  # other delays
        stop, monitor = LISEarlyStopping(), background_of(split, rule=rule)
        trainer, _ = fit(tmp_path / str(run), stop, monitor, steps=40)
        assert (stop.stopped_step, trainer.global_step) == (14, 14), "the third snapshot, of step 12, is read at 14"
        assert [result.step for result in monitor.results] == [0, 4, 8, 12, 14]


def test_a_stock_early_stopping_finds_its_metric_from_the_start(split, tmp_path):
    monitor = background_of(split, every_n_steps=3, background_steps=50)
    fit(tmp_path, monitor, EarlyStopping("lis/ais", mode="max", patience=99), steps=5)


def broken_score(monkeypatch, number):
    real, calls = Scorer.score, []

    def score(*args, **options):
        calls.append(1)
        if len(calls) == number:
            raise ArithmeticError("singular")
        return real(*args, **options)

    monkeypatch.setattr(Scorer, "score", score)


def test_a_failing_score_is_recorded_with_its_step_and_training_goes_on(split, tmp_path, monkeypatch):
    broken_score(monkeypatch, 2)
    with pytest.warns(LisWarning, match="the snapshot of step 4 failed. ArithmeticError: singular"):
        trainer, _ = fit(tmp_path, monitor := background_of(split), steps=10)
    assert trainer.global_step == 10
    assert [result.step for result in monitor.results] == [0, 8, 10]
    failure = Record.statuses(monitor.record_path)[0]
    assert (failure["step"], failure["error"]) == (4, "ArithmeticError: singular")


def test_strict_raises_where_the_score_is_read(split, tmp_path, monkeypatch):
    broken_score(monkeypatch, 2)
    steps = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, *_):
            steps.append(trainer.global_step)

    with pytest.raises(ArithmeticError, match="singular"):
        fit(tmp_path, background_of(split, strict=True), Watch(), steps=10)
    assert steps[-1] == 5


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_training_that_ends_early_keeps_the_snapshot_and_no_thread(split, tmp_path, slow_scores, error):
    class Fails(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 5:
                raise error

    monitor = background_of(split)
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        fit(tmp_path, monitor, Fails(), steps=20)
    assert [result.step for result in Record.read(monitor.record_path)[1]] == [0, 4]
    assert not any(thread.name.startswith("lis-score") for thread in threading.enumerate())


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [4, 8, 12], ids=["waiting", "just-read", "just-taken"])
def test_a_resumed_run_is_the_undisturbed_one(tmp_path, step):
    """A snapshot of every third step is read 2 steps later; checkpoints of every fourth."""
    split = small_run.make_split()
    rule = StopRule(min_progress=0)
    whole = small_run.monitor_of(split, every_n_steps=3, background_steps=2, rule=rule)
    small_run.fit(tmp_path / "whole", whole, small_run.saver(tmp_path / "ckpt", every=4), steps=14)
    resumed = small_run.monitor_of(split, every_n_steps=3, background_steps=2, rule=rule, dirpath=tmp_path / "whole")
    heard = Heard(resumed)
    small_run.fit(tmp_path, resumed, heard, steps=14, ckpt_path=tmp_path / "ckpt" / f"step={step}.ckpt")
    assert small_run.curve(resumed.results) == small_run.curve(whole.results)
    assert [heard.last[one] for one in range(step + 1, 14)] == [(one - 2) // 3 * 3 for one in range(step + 1, 14)]


def test_a_failure_that_waits_survives_a_resume(split, tmp_path, monkeypatch):
    broken_score(monkeypatch, 2)
    monitor = background_of(split)
    saved = []

    class Save(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 5:
                saved.append(json.loads(json.dumps(monitor.state_dict())))

    with pytest.warns(LisWarning, match="ArithmeticError: singular"):
        fit(tmp_path, monitor, Save(), steps=6)
    assert saved[0]["background"] == {"step": 4, "results": [], "error": "ArithmeticError: singular"}
    other = background_of(split)
    other.load_state_dict(saved[0])
    with pytest.raises(Exception, match="ArithmeticError: singular"):
        other._background.take()


def test_items_are_encoded_in_the_training_thread(split, tmp_path):
    threads = set()

    def encode(module, batch):
        threads.add(threading.current_thread() is threading.main_thread())
        return module.encode_items(batch)

    fit(tmp_path, background_of(split, encode=encode, items=Items()), steps=9)
    assert threads == {True}
