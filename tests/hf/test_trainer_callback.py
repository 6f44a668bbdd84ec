"""A monitor in transformers' Trainer: the weights of a training without it, a kill, and what the Trainer reads."""

import json
import os
import signal

import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.hf import LISEarlyStoppingCallback
from lis_lightning.monitor import EveryEpochs, EveryValidation
from lis_lightning.results.record import Record
from lis_lightning.results.stopping import StopRule
from tests._helpers.hf_run import At, equal, monitor_of, trainer_of, weights
from tests._helpers.small_run import curve, make_split

FLAT = StopRule(min_gain=1.0, min_progress=0)  # every snapshot is flat
BY_SCORE = {
    "metric_for_best_model": "eval_lis_ais", "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps",
    "save_steps": 2, "load_best_model_at_end": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def split():
    return make_split()


def steps_of(monitor):
    return [result.step for result in monitor.results]


def logged(trainer, key="eval_lis_ais"):
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


def test_weights_optimizer_and_random_numbers_are_the_same_bits_as_without(split, tmp_path):
    alone = trainer_of(tmp_path / "alone", eval_strategy="steps", eval_steps=3)
    alone.train()
    before = weights(alone)
    monitor = monitor_of(split)
    watched = trainer_of(tmp_path / "watched", eval_strategy="steps", eval_steps=3)
    monitor.attach(watched)
    watched.train()
    assert equal(before, weights(watched))
    assert steps_of(monitor) == [0, 2, 4, 6, 8]
    train_losses = [logged(trainer, "loss") for trainer in (alone, watched)]
    assert train_losses[0] == train_losses[1]  # a log of ours takes none away
    assert len(train_losses[0]) == 8


def test_evaluations_after_a_snapshot_are_watched_with_it(split, tmp_path):
    monitor = monitor_of(split, watch=["eval_loss"])
    trainer = trainer_of(tmp_path, eval_strategy="steps", eval_steps=4)
    monitor.attach(trainer)
    trainer.train()
    watched = {result.step: result.watched.get("eval_loss") for result in monitor.results}
    assert watched == {0: None, 2: None, 6: None} | logged(trainer, "eval_loss")
    assert sorted(watched) == [0, 2, 4, 6, 8]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # of a fork
def test_a_killed_training_resumes_to_the_same_weights_curve_and_record(split, tmp_path):
    def train(folder, *callbacks, monitor, resume=False):
        trainer = trainer_of(folder, *callbacks, save_strategy="steps", save_steps=3)
        monitor.attach(trainer).attach(trainer)
        trainer.train(resume_from_checkpoint=resume)
        return trainer, monitor

    whole, expected = train(tmp_path / "whole", monitor=monitor_of(split))
    before = weights(whole)
    killed = monitor_of(split)  # before the fork, in which polars hangs
    child = os.fork()
    if child == 0:
        try:
            train(tmp_path / "killed", At(7, lambda: os.kill(os.getpid(), signal.SIGKILL)), monitor=killed)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    resumed, monitor = train(tmp_path / "killed", monitor=monitor_of(split), resume=True)
    assert equal(before, weights(resumed))
    assert curve(monitor.results) == curve(expected.results)
    assert logged(resumed) == logged(whole)
    assert [result.step for result in Record.read(monitor.record_path)[1]] == [0, 2, 4, 6, 8]
    assert monitor.record_path == tmp_path / "killed" / "record.jsonl"


def test_checkpoints_are_ranked_by_the_score_and_the_last_snapshot_is_of_the_last_step(split, tmp_path):
    monitor = monitor_of(split, schedule=EveryEpochs(100), every_n_steps=None)
    trainer = trainer_of(tmp_path, **BY_SCORE)
    monitor.attach(trainer)
    trainer.train()
    assert steps_of(monitor) == [0, 2, 4, 6, 8]  # at each evaluation
    assert logged(trainer) == {result.step: result.ais for result in monitor.results}
    assert trainer.state.best_metric == max(result.ais for result in monitor.results[1:])


def test_stock_early_stopping_counts_snapshots_wherever_it_stands(split, tmp_path):
    monitor = monitor_of(split, encode=lambda module, batch: batch["x"], schedule=EveryValidation(), every_n_steps=None)
    trainer = trainer_of(tmp_path, EarlyStoppingCallback(2), monitor, steps=20, **BY_SCORE)
    monitor.attach(trainer).attach(trainer)
    trainer.train()
    assert trainer.state.global_step == 6  # the best at 2, then two of the same score
    assert steps_of(monitor) == [0, 2, 4, 6]


def test_the_stop_rule_stops_through_the_control(split, tmp_path):
    monitor = monitor_of(split, rule=FLAT)
    trainer = trainer_of(tmp_path, monitor, LISEarlyStoppingCallback(monitor), steps=40)
    trainer.train()
    assert trainer.state.global_step == steps_of(monitor)[-1] < 40
    assert monitor.reason


def test_a_failed_snapshot_ends_neither_the_training_nor_the_ranking(split, tmp_path):
    trainers = []

    def encode(module, batch):
        if trainers[0].state.global_step == 4:
            raise OSError("disk")
        return module.encode_items(batch)

    monitor = monitor_of(split, encode=encode)
    trainers.append(trainer_of(tmp_path, **BY_SCORE))
    monitor.attach(trainers[0])
    with pytest.warns(LisWarning, match="the snapshot of step 4 failed"):
        trainers[0].train()
    assert steps_of(monitor) == [0, 2, 6, 8]
    assert "disk" in monitor.last_error


def test_an_epoch_is_counted_at_its_last_step(split, tmp_path):
    monitor = monitor_of(split, schedule=EveryEpochs(1), every_n_steps=None)
    trainer_of(tmp_path, monitor, steps=11).train()  # of 5 steps an epoch
    assert steps_of(monitor) == [0, 5, 10, 11]


def test_items_are_encoded_without_a_forward_of_the_whole_model_and_the_training_loss_is_noted(split, tmp_path):
    monitor = monitor_of(split)
    trainer = trainer_of(tmp_path, monitor)
    trainer.train()
    assert trainer.model.forwards == 8
    losses = logged(trainer, "loss")
    assert monitor.results[2].train_loss == pytest.approx((losses[2] + losses[3]) / 2, rel=1e-6)


def test_reporters_get_the_score_at_its_own_step(split, tmp_path):
    seen = []

    class Reporter(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **context):
            if "eval_lis_ais" in logs:
                seen.append((state.global_step, logs["eval_lis_step"]))

    trainer = trainer_of(tmp_path, Reporter(), steps=4)
    monitor_of(split).attach(trainer)
    trainer.train()
    assert seen == [(0, 0), (2, 2), (4, 4)]


def test_the_state_in_a_checkpoint_is_plain(split, tmp_path):
    trainer = trainer_of(tmp_path, monitor_of(split, name="a"), steps=2, save_strategy="steps", save_steps=2)
    trainer.train()
    saved = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())["stateful_callbacks"]
    assert saved["LISTrainerCallback"]["attributes"]["name"] == "a"


def test_a_trainer_that_makes_its_callbacks_anew_is_refused(split, tmp_path):
    with pytest.raises(ConfigError, match="Expected `restore_callback_states_from_checkpoint=False`, got True"):
        trainer_of(tmp_path, monitor_of(split), restore_callback_states_from_checkpoint=True)


def test_a_checkpoint_without_the_monitor_starts_a_new_curve_with_a_warning(split, tmp_path):
    trainer_of(tmp_path, steps=2, save_strategy="steps", save_steps=2).train()
    monitor = monitor_of(split)
    trainer = trainer_of(tmp_path, monitor, steps=4)
    with pytest.warns(LisWarning, match="the checkpoint of step 2 was saved without this monitor"):
        trainer.train(resume_from_checkpoint=True)
    assert steps_of(monitor) == [2, 4]


def test_reports_that_it_cannot_reach_are_a_warning(split, tmp_path):
    trainer = trainer_of(tmp_path, monitor_of(split), steps=1)
    trainer.args.report_to = ["tensorboard"]
    with pytest.warns(LisWarning, match=r"not to \['tensorboard'\]: call `monitor\.attach\(trainer\)`"):
        trainer.train()


def test_items_are_encoded_in_the_precision_of_the_training(split, tmp_path):
    seen = []

    def encode(module, batch):
        seen.append(module.body[0](batch["x"]).dtype)
        return module.encode_items(batch)

    trainer_of(tmp_path, monitor_of(split, encode=encode), steps=1, bf16=True).train()
    assert set(seen) == {torch.bfloat16}
