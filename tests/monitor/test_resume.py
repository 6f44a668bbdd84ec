"""A run resumed from a checkpoint, in the middle of an epoch, against the same run undisturbed."""

from __future__ import annotations

import dataclasses
import json
import logging
import signal

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback

from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.monitor import run_history as history
from lis_lightning.monitor.early_stopping import LISEarlyStopping
from lis_lightning.results.record import Record
from lis_lightning.results.record_contents import unpack
from lis_lightning.results.stopping import StopRule
from lis_lightning.results.verdict import gain_over_best, judge
from tests._helpers import small_run

NEVER = {"min_gain": 0.0, "min_gain_share": 0.0, "min_progress": 0.5}


@pytest.fixture(scope="module")
def split():
    return small_run.make_split()


@pytest.fixture(scope="module")
def whole(split, tmp_path_factory):
    """An undisturbed run of 16 steps; its folder holds a checkpoint each 3 steps."""
    folder = tmp_path_factory.mktemp("whole")
    stop = LISEarlyStopping()
    monitor = small_run.monitor_of(split, rule=StopRule(**NEVER))
    trainer, module = small_run.fit(folder, monitor, stop, small_run.saver(folder / "ckpt"), steps=16)
    return {"folder": folder, "monitor": monitor, "stop": stop, "module": module, "step": trainer.global_step}


def weights_equal(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("step", [3, 9, 12])
@pytest.mark.parametrize("record", ["kept", "gone"])
def test_a_resumed_run_is_the_undisturbed_one(split, whole, tmp_path, step, record):
    """Curve, verdicts, gains and stop decision; 3 and 9 lie in the middle of an epoch of 7, and between snapshots."""
    dirpath = whole["folder"] if record == "kept" else tmp_path
    assert step < whole["step"]
    ckpt = torch.load(whole["folder"] / "ckpt" / f"step={step}.ckpt", weights_only=True)
    (key,) = [key for key in ckpt["callbacks"] if key.startswith("LISMonitor")]
    if record == "gone":
        ckpt["callbacks"][key]["record"] = str(tmp_path / "gone.jsonl")
    else:  # a copy of its own, which the other tests do not rewind
        dirpath = tmp_path
        (tmp_path / "record.jsonl").write_bytes((whole["folder"] / "record.jsonl").read_bytes())
    torch.save(ckpt, tmp_path / "from.ckpt")
    stop, monitor = LISEarlyStopping(), small_run.monitor_of(split, rule=StopRule(**NEVER), dirpath=dirpath)
    trainer, module = small_run.fit(tmp_path, monitor, stop, steps=16, ckpt_path=tmp_path / "from.ckpt")
    assert small_run.curve(monitor.results) == small_run.curve(whole["monitor"].results)
    assert monitor.best_step == whole["monitor"].best_step
    assert (trainer.global_step, stop.stopped_step, stop.reason) == (
        whole["step"], whole["stop"].stopped_step, whole["stop"].reason,
    )  # fmt: skip
    assert weights_equal(module, whole["module"])
    assert small_run.curve(Record.read(monitor.record_path)[1]) == small_run.curve(whole["monitor"].results)
    if record == "kept":
        pairs = zip(monitor.results, whole["monitor"].results, strict=True)
        assert all(np.array_equal(one.influence, other.influence) for one, other in pairs)


def test_state_grows_by_kilobytes_however_many_users(split, whole):
    """Whatever the number of users: their numbers are kept of the few results that a rule looks at."""
    rng = np.random.default_rng(0)
    sizes = {}
    for users in (1_000, 100_000):
        results = [
            dataclasses.replace(result, influence=rng.normal(size=users), step=2 * index)
            for index, result in enumerate(whole["monitor"].results * 16)
        ]
        sizes[users] = [len(json.dumps(history.packed(results[:number], window=1 / 3))) for number in (60, 90)]
    growth = {users: (later - earlier) / 30 for users, (earlier, later) in sizes.items()}
    assert growth[100_000] == pytest.approx(growth[1_000], rel=0.01)
    assert growth[100_000] < 4_000


def test_a_thin_past_is_judged_like_the_whole_one(whole):
    """What a checkpoint alone brings back, without its record, leads to the same judgements of what follows."""
    results = whole["monitor"].results
    for number in range(2, len(results)):
        thin = unpack(history.packed(results[:number], window=1 / 3))
        for rule in (StopRule(**NEVER), StopRule(min_progress=0)):
            one, other = judge([*results[:number], results[number]], rule), judge([*thin, results[number]], rule)
            assert repr(one) == repr(other)
        for last in range(2, number + 2):
            whole_gain, thin_gain = (
                gain_over_best([*past, results[number]][:last]) for past in (results[:number], thin)
            )
            assert thin_gain.se == pytest.approx(whole_gain.se, rel=1e-9)
    assert [bool(result.influence.size) for result in thin].count(False) >= 2


def test_a_lost_rank_is_a_collapse_after_a_thin_past_too(whole):
    """The newest snapshot is compared with the raw one, however long ago that was."""
    one = whole["monitor"].results[0]
    past = [
        dataclasses.replace(one, ais=ais, step=step, companions={"rankme": 30.0})
        for step, ais in enumerate([0.001, 0.002, 0.001, 0.001, 0.001, 0.001])
    ]
    last = dataclasses.replace(one, ais=0.0, step=6, companions={"rankme": 5.0})
    assert judge([*unpack(history.packed(past, window=1 / 3)), last]).verdict == "collapsed"


def test_what_is_kept_is_what_the_rule_reads(whole):
    results = [dataclasses.replace(whole["monitor"].results[0], ais=ais, step=step)
               for step, ais in enumerate([0.1, 0.5, 0.2, 0.3, 0.4, 0.1])]  # fmt: skip
    kept = [bool(result.influence.size) for result in unpack(history.packed(results, window=1 / 3))]
    assert kept == [True, True, False, True, True, True]
    assert unpack(history.packed([], window=1 / 3)) == []


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        pytest.param({"ceilings": ["ids"], "aligned_to": "ids"}, "ceilings .* became", id="ceilings"),
        pytest.param({"every_n_steps": 4}, "schedule .*n=2.* became .*n=4", id="schedule"),
        pytest.param({"k": 2}, "k 64 became 2", id="k"),
        pytest.param({"split": 1}, "split '[0-9a-f]+' became '[0-9a-f]+'", id="split"),
    ],
)  # fmt: skip
def test_a_changed_evaluator_starts_a_new_record(split, whole, tmp_path, options, changes):
    other = small_run.make_split(options.pop("split")) if "split" in options else split
    before = (whole["folder"] / "record.jsonl").read_bytes()
    monitor = small_run.monitor_of(other, dirpath=whole["folder"], **options)
    with pytest.warns(LisWarning, match=f"measured with other settings: {changes}.*a new curve and a new record start"):
        small_run.fit(tmp_path, monitor, steps=12, ckpt_path=whole["folder"] / "ckpt" / "step=9.ckpt")
    assert monitor.results[0].step == 9
    assert monitor.record_path.name != "record.jsonl"
    assert (whole["folder"] / "record.jsonl").read_bytes() == before
    assert [r.step for r in Record.read(monitor.record_path)[1]] == [result.step for result in monitor.results]
    assert {result.split_hash for result in monitor.results} == {other.hash}


def test_another_rule_goes_on_with_the_curve(split, whole, tmp_path):
    monitor = small_run.monitor_of(split, rule=StopRule(window=0.5), dirpath=tmp_path)
    small_run.fit(tmp_path, monitor, steps=10, ckpt_path=whole["folder"] / "ckpt" / "step=9.ckpt")
    assert [result.step for result in monitor.results] == [0, 2, 4, 6, 8, 10]


def test_a_checkpoint_with_our_state_needs_no_monitor(whole, tmp_path):
    _, module = small_run.fit(tmp_path, steps=whole["step"], ckpt_path=whole["folder"] / "ckpt" / "step=9.ckpt")
    assert weights_equal(module, whole["module"])
    assert list(tmp_path.iterdir()) == []


def test_abandoned_points_are_never_mixed_with_those_of_the_checkpoint(split, whole, tmp_path):
    """The record was rewound and went another way since: the checkpoint's own numbers count."""
    path = tmp_path / "record.jsonl"
    path.write_bytes((whole["folder"] / "record.jsonl").read_bytes())
    record = Record.open(path)
    record.rewind(2)
    for result in whole["monitor"].results[2:4]:
        record.append(dataclasses.replace(result, ais=0.25))
    monitor = small_run.monitor_of(split, dirpath=tmp_path)
    small_run.fit(tmp_path, monitor, steps=10, ckpt_path=whole["folder"] / "ckpt" / "step=9.ckpt")
    steps = [result.step for result in monitor.results]
    assert steps == [0, 2, 4, 6, 8, 10]
    assert [r.ais for r in monitor.results[:5]] == [r.ais for r in whole["monitor"].results[:5]]
    assert [(r.step, r.ais) for r in Record.read(path)[1]] == [(r.step, r.ais) for r in monitor.results]


def test_two_monitors_on_one_split_keep_two_curves(split, tmp_path):
    def negated(module, batch):
        return -module.net(batch["x"])[:, :2]

    def run(folder, **options):
        both = [small_run.monitor_of(split), small_run.monitor_of(split, name="half", encode=negated)]
        trainer, _ = small_run.fit(folder, *both, small_run.saver(tmp_path / "ckpt"), **options)
        return trainer, both

    trainer, (first, second) = run(tmp_path, steps=3)
    assert first.state_key != second.state_key
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {"record.jsonl", "record-half.jsonl"}
    assert (first.record_path.name, second.record_path.name) == ("record.jsonl", "record-half.jsonl")
    assert float(trainer.callback_metrics["lis/ais"]) == pytest.approx(first.results[-1].ais)
    assert float(trainer.callback_metrics["lis/half/ais"]) == pytest.approx(second.results[-1].ais)
    _, (again, other) = run(tmp_path, steps=6, ckpt_path=tmp_path / "ckpt" / "step=3.ckpt")
    for resumed, before in ((again, first), (other, second)):
        assert [result.step for result in resumed.results] == [0, 2, 4, 6]
        assert resumed.record_path == before.record_path
        assert small_run.curve(resumed.results[:2]) == small_run.curve(before.results[:2])
    assert again.results[1].ais != other.results[1].ais


class Interrupt(Callback):
    """Press Ctrl-C, or fail, at a step."""

    def __init__(self, error, at=5):
        self.error = error
        self.at = at

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.at:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("of the training")], ids=["ctrl-c", "exception"])
def test_a_run_cut_short_still_ends_its_record_and_shows_its_table(split, tmp_path, error, caplog, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # Lightning ignores every later Ctrl-C of this process
    monitor = small_run.monitor_of(split, progress=True)
    with caplog.at_level(logging.INFO, "pytorch_lightning.utilities.rank_zero"):
        with pytest.raises((SystemExit, ValueError)):
            small_run.fit(tmp_path, monitor, Interrupt(error))
        logged = caplog.text
    end = Record.statuses(monitor.record_path)[-1]
    assert (end["kind"], end["best_step"], end["cut_short_by"]) == ("end", monitor.best_step, type(error).__name__)
    assert [result.step for result in Record.read(monitor.record_path)[1]] == [0, 2, 4]
    assert logged.count("Best snapshot: step") == 1
    assert str(monitor.record_path) in logged


def test_a_name_is_part_of_keys_and_files(split):
    with pytest.raises(ConfigError, match=r"`name` is part of keys and file names.*got 'a/b'"):
        small_run.monitor_of(split, name="a/b")
