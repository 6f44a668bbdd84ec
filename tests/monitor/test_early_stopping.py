"""Stopping on snapshots: ours, which counts them, and Lightning's own, which counts looks."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.monitor import run_history as history
from lis_lightning.monitor.early_stopping import LISEarlyStopping
from lis_lightning.monitor.schedule import Budget, EveryEpochs, EveryValidation, LogSpaced
from lis_lightning.results.record import Record
from lis_lightning.results.stopping import StopRule
from lis_lightning.results.verdict import VERDICTS, Judgement
from lis_lightning.scoring.scorer import Scorer
from tests._helpers import small_run
from tests._helpers.training import Items, Tower, fit, make_log, monitor_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode:UserWarning"),  # the frozen BatchNorm, on purpose
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty:UserWarning"),
]

FAST = {"ceilings": (), "placebo": False, "progress": False}


@pytest.fixture(scope="module")
def split():
    return PreferenceSplit.from_log(make_log())


# --- ours ------------------------------------------------------------------------------------------------------------


def _judge_stops_after(number):
    def judge(results, rule=None, **options):
        stop = len(results) > number
        return Judgement(
            verdict="plateau" if stop else "improving", message="as it was.", stop=stop,
            reason="it is flat" if stop else "", best=0, gain_z=float("nan"),
        )  # fmt: skip

    return judge


@pytest.mark.parametrize("order", [1, -1], ids=["after-the-monitor", "before-it"])
def test_stops_at_the_snapshot_that_says_so(split, tmp_path, monkeypatch, caplog, order):
    monkeypatch.setattr(history, "judge", _judge_stops_after(3))
    stop, monitor = LISEarlyStopping(), monitor_of(split)
    with caplog.at_level(logging.INFO):
        trainer, _ = fit(tmp_path, *[monitor, stop][::order], steps=20)
    assert trainer.global_step == 6
    assert (stop.num_judged, stop.stopped_step, stop.reason) == (3, 6, "it is flat")
    said = [record.message for record in caplog.records if record.message.startswith("LISEarlyStopping")]
    assert said == [
        "LISEarlyStopping: step 2, training goes on: improving, as it was.",
        "LISEarlyStopping: stopping at step 6, on snapshot 3 after the raw one: it is flat. "
        "Verdict: plateau, as it was.",
    ]
    assert monitor.listeners == []


@pytest.mark.parametrize(("min_progress", "stopped"), [(0, 6), (0.3, 6), (0.5, 10), (0.8, 16)])
def test_no_run_stops_before_its_share_of_the_planned_steps(split, tmp_path, min_progress, stopped):
    """The real rule, for which no gain of less than 1 counts: three snapshots after the raw one are enough."""
    rule = StopRule(min_gain=1.0, min_progress=min_progress)
    trainer, _ = fit(tmp_path, monitor_of(split, rule=rule, **FAST), stop := LISEarlyStopping(), steps=20)
    assert (trainer.global_step, stop.stopped_step, stop.num_judged) == (stopped, stopped, stopped // 2)


def test_looks_between_snapshots_do_not_count(split, tmp_path):
    """Validations and epoch ends, at each of which a stock EarlyStopping would look."""
    rule = StopRule(min_gain=1.0, min_progress=0)
    stop, monitor = LISEarlyStopping(), monitor_of(split, rule=rule, every_n_steps=7, **FAST)
    fit(tmp_path, monitor, stop, module=Validated(), steps=40, val_check_interval=1)
    assert (stop.stopped_step, stop.num_judged) == (21, 3)


def test_failed_snapshots_do_not_count(split, tmp_path, monkeypatch):
    monkeypatch.setattr(history, "judge", _judge_stops_after(2))

    def encode(module, batch):
        if module.trainer.global_step == 4:
            raise OSError("gone")
        return module.encode_items(batch)

    with pytest.warns(LisWarning):
        trainer, _ = fit(tmp_path, monitor_of(split, encode=encode), stop := LISEarlyStopping(), steps=20)
    assert (trainer.global_step, stop.stopped_step, stop.num_judged) == (6, 6, 2)


def test_it_is_in_the_checkpoint_and_goes_on_from_there(tmp_path):
    split = small_run.make_split()
    rule = StopRule(min_gain=1.0, min_progress=0.3)
    whole = LISEarlyStopping()
    small_run.fit(tmp_path, small_run.monitor_of(split, rule=rule), whole, small_run.saver(tmp_path / "ckpt"), steps=30)
    assert (whole.stopped_step, whole.num_judged) == (10, 5)
    ckpt = torch.load(tmp_path / "ckpt" / "step=6.ckpt", weights_only=True)
    (state,) = [state for key, state in ckpt["callbacks"].items() if key.startswith("LISEarlyStopping")]
    assert (state["num_judged"], state["stopped_step"]) == (3, None)
    assert state["verdict"] in VERDICTS
    resumed = LISEarlyStopping()
    monitor = small_run.monitor_of(split, rule=rule, dirpath=tmp_path)
    small_run.fit(tmp_path / "on", monitor, resumed, steps=30, ckpt_path=tmp_path / "ckpt" / "step=6.ckpt")
    assert resumed.state_dict() == whole.state_dict()
    assert [result.step for result in Record.read(monitor.record_path)[1]] == [0, 2, 4, 6, 8, 10]


def test_its_state_is_plain():
    stop = LISEarlyStopping()
    state = {"num_judged": 4, "verdict": "plateau", "message": "m", "stopped_step": 8, "reason": "flat"}
    stop.load_state_dict(json.loads(json.dumps(state)))
    assert stop.state_dict() == state
    assert (stop.stopped_step, stop.reason) == (8, "flat")


def test_one_of_several_monitors_decides(split, tmp_path):
    flat = StopRule(min_gain=1.0, min_progress=0)
    one, two = (monitor_of(split, name=name, rule=rule, **FAST) for name, rule in (("one", None), ("two", flat)))
    fit(tmp_path, one, two, stop := LISEarlyStopping(name="two"), steps=6)
    assert stop.stopped_step == 6
    assert LISEarlyStopping(name="two").state_key != LISEarlyStopping(name="one").state_key
    with pytest.raises(ConfigError, match=r"\(name=None\) .*the Trainer has 2 with the names \['one', 'two'\]"):
        fit(tmp_path, one, two, LISEarlyStopping())
    with pytest.raises(ConfigError, match=r"\(name='three'\) .*the Trainer has 2 with the names"):
        fit(tmp_path, one, two, LISEarlyStopping(name="three"))


def test_without_a_monitor_it_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"the Trainer has 0 with the names \[\]: use Trainer\(callbacks=\[LISMonitor"
    ):
        fit(tmp_path, LISEarlyStopping())


# --- Lightning's own -------------------------------------------------------------------------------------------------


class Validated(Tower):
    def validation_step(self, batch, batch_idx):
        self.log("loss", self.loss(batch))

    def val_dataloader(self):
        return DataLoader(Items(), batch_size=10, generator=torch.Generator())


@pytest.fixture
def rising(monkeypatch):
    """Every snapshot scores higher than the one before."""
    real, calls = Scorer.score, []

    def score(*args, **options):
        calls.append(1)
        return dataclasses.replace(real(*args, **options), ais=0.001 * len(calls))

    monkeypatch.setattr(Scorer, "score", score)


def stock(**options):
    return EarlyStopping("lis/ais", mode="max", patience=3, **options)


def test_a_stock_early_stopping_that_looks_too_often_stops_a_rising_run_and_is_warned_of(split, tmp_path, rising):
    monitor = monitor_of(split, every_n_steps=14, **FAST)
    with pytest.warns(LisWarning, match=r"EarlyStopping\(monitor='lis/ais'\) checks every 3 optimizer steps, at "
                      r"the end of each epoch; .*EverySteps\(n=14\).*LISEarlyStopping.*EveryEpochs\(\)"):  # fmt: skip
        trainer, _ = fit(tmp_path, monitor, stop := stock(), steps=40)
    assert trainer.global_step == 12, "the raw score counted at steps 3, 6, 9 and 12"
    assert stop.wait_count == 3


@pytest.mark.parametrize(
    ("module", "schedule", "options"),
    [
        pytest.param(Tower, EveryEpochs(), {}, id="epochs"),
        pytest.param(Validated, EveryValidation(), {}, id="epochs-and-validations"),
        pytest.param(Validated, EveryValidation(), {"val_check_interval": 1}, id="validations"),
        pytest.param(
            Validated, EveryValidation(), {"val_check_interval": 4, "check_val_every_n_epoch": None}, id="batches"
        ),
        pytest.param(Validated, EveryEpochs(), {"check_val_every_n_epoch": 2}, id="every-second-epoch"),
        pytest.param(Tower, [LogSpaced(1), EveryEpochs()], {"accumulate_grad_batches": 2}, id="several"),
    ],
)
def test_a_stock_early_stopping_with_the_right_schedule_lets_a_rising_run_go_on(
    split, tmp_path, rising, module, schedule, options
):
    """A warning would be an error here."""
    monitor = monitor_of(split, every_n_steps=None, schedule=schedule, **FAST)
    trainer, _ = fit(tmp_path, monitor, stop := stock(), module=module(), steps=18, **options)
    assert (trainer.global_step, stop.wait_count) == (18, 0)


def test_its_patience_counts_snapshots_where_each_look_has_its_own(split, tmp_path, monkeypatch):
    real = Scorer.score
    monkeypatch.setattr(Scorer, "score", lambda *args, **options: dataclasses.replace(real(*args, **options), ais=0.1))
    monitor = monitor_of(split, every_n_steps=None, schedule=EveryValidation(), **FAST)
    trainer, _ = fit(tmp_path, monitor, stock(), module=Validated(), steps=40, val_check_interval=2)
    assert [result.step for result in monitor.results] == [
        0,
        2,
        5,
        8,
        11,
    ]  # the best at 2, and three that are no better
    assert trainer.global_step == 11


@pytest.mark.parametrize(
    ("schedule", "options", "warned"),
    [
        pytest.param(EveryEpochs(2), {}, True, id="every-second-epoch"),
        pytest.param(EveryValidation(), {}, True, id="no-validation"),
        pytest.param(Budget(0.5), {}, True, id="clock"),
        pytest.param(LogSpaced(), {}, True, id="growing"),
        pytest.param(None, {"every_n_steps": 3}, False, id="steps-as-an-epoch"),
        pytest.param(None, {"every_n_steps": 4}, True, id="steps-more-than-an-epoch"),
    ],
)
def test_warns_where_a_look_may_find_nothing_new(split, tmp_path, recwarn, schedule, options, warned):
    monitor = monitor_of(split, **{"every_n_steps": None, "schedule": schedule} | options, **FAST)
    fit(tmp_path, monitor, stock(), EarlyStopping("loss", strict=False), steps=1)
    warnings = [warning for warning in recwarn if warning.category is LisWarning]
    assert len(warnings) == warned


def test_a_named_monitor_is_not_held_for_another(split, tmp_path, recwarn):
    monitors = [monitor_of(split, every_n_steps=3, **FAST), monitor_of(split, every_n_steps=9, name="slow", **FAST)]
    fit(tmp_path, *monitors, stock(), EarlyStopping("lis/slow/ais", mode="max"), steps=1)
    (found,) = [str(one.message) for one in recwarn if one.category is LisWarning]
    assert found.startswith("EarlyStopping(monitor='lis/slow/ais')")


def test_a_stock_checkpoint_after_each_validation_keeps_the_weights_of_the_best_score(split, tmp_path):
    """Each score is stored with its own weights, without a warning."""
    monitor = monitor_of(split, every_n_steps=None, schedule=EveryValidation(), **FAST)
    save = ModelCheckpoint(tmp_path / "ckpt", monitor="lis/ais", mode="max", save_top_k=-1, filename="{step}")
    fit(tmp_path, monitor, save, module=Validated(), steps=9, val_check_interval=2, enable_checkpointing=True)
    scores = {result.step: result.ais for result in monitor.results}
    saved = {path.split("step=")[1].removesuffix(".ckpt"): float(score) for path, score in save.best_k_models.items()}
    assert {int(step) for step in saved} == {2, 5, 8}
    assert all(score == pytest.approx(scores[int(step)]) for step, score in saved.items())
