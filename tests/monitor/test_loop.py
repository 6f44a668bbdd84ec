"""A monitor in a plain loop: the same curve as in a Trainer, the same weights as without, and a run that goes on."""

import copy

import polars
import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from lis_lightning.errors import ConfigError
from lis_lightning.monitor import LISLoopMonitor, LISMonitor
from lis_lightning.results.record import Record
from lis_lightning.results.stopping import StopRule
from tests._helpers.small_run import ITEMS, Tower, contents, curve, fit, make_split

STEPS, QUICK = 7, {"every_n_steps": 2, "placebo": False, "ceilings": (), "progress": False}


@pytest.fixture(scope="module")
def split():
    return make_split()


def monitor_of(split, folder, **options):
    return LISLoopMonitor(split, ITEMS, **{"dirpath": folder, "encode": "net", **QUICK} | options)


def batch_of(step):
    generator = torch.Generator().manual_seed(step)
    return contents()[torch.randperm(len(ITEMS), generator=generator)[:10]]


def train(monitor=None, start=0, steps=STEPS, state=None, after=lambda *_: None, **options):
    """Train a tower with dropout and BatchNorm; return it, its optimizer and the step it ended at."""
    torch.manual_seed(0)
    model = Tower().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    if state:
        model.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])
        torch.set_rng_state(state[3])
    watching = monitor.watching(model, step=start, max_steps=steps, **options) if monitor else torch.enable_grad()
    with watching:
        for step in range(start + 1, steps + 1):
            loss = nn.functional.mse_loss(model.net(batch_of(step)), batch_of(step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if monitor and monitor.step(model, step, loss=loss):
                break
            after(model, optimizer, step)
    return model, optimizer, step


def encode(module, batch):
    return module.net(batch["x"])


def test_the_weights_and_the_random_state_are_those_of_a_loop_without_it(split, tmp_path):
    alone, _, _ = train()
    after = torch.rand(3)
    watched, _, _ = train(monitor_of(split, tmp_path, encode=encode))
    assert all(map(torch.equal, alone.parameters(), watched.parameters()))
    assert torch.equal(after, torch.rand(3))


def test_it_scores_the_weights_that_a_callback_scores(split, tmp_path):
    monitor = monitor_of(split, tmp_path / "loop", encode=encode)
    train(monitor)
    in_trainer = LISMonitor(split, ITEMS, encode=encode, dirpath=tmp_path / "trainer", **QUICK)
    fit(tmp_path, in_trainer, steps=1)
    assert monitor.results[0].ais == in_trainer.results[0].ais
    assert [result.step for result in monitor.results] == [0, 2, 4, 6, 7]
    assert monitor.results[1].train_loss > 0
    assert [result.step for result in Record.read(monitor.record_path)[1]] == [0, 2, 4, 6, 7]


def test_a_loop_is_stopped_by_the_rule(split, tmp_path):
    monitor = monitor_of(split, tmp_path, encode=encode, rule=StopRule(min_gain=1.0, min_progress=0))
    _, _, step = train(monitor, steps=40)
    assert step == monitor.results[-1].step < 40
    assert monitor.reason


def test_a_restored_loop_continues_its_curve_and_record(split, tmp_path):
    whole = monitor_of(split, tmp_path / "whole", encode=encode)
    train(whole, steps=8)
    first, saved = monitor_of(split, tmp_path / "cut", encode=encode), []

    def save_and_die(model, optimizer, step):
        if step == 4:
            state = (model.state_dict(), optimizer.state_dict(), first.state_dict(), torch.get_rng_state())
            saved.extend(copy.deepcopy(state))
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(first, steps=8, after=save_and_die)
    second = monitor_of(split, tmp_path / "cut", encode=encode)
    second.load_state_dict(saved[2])
    train(second, start=4, steps=8, state=saved)
    assert curve(second.results) == curve(whole.results)
    assert second.record_path == first.record_path
    assert [result.step for result in Record.read(second.record_path)[1]] == [0, 2, 4, 6, 8]


def test_lightning_loggers_need_no_trainer(split, tmp_path):
    logger = CSVLogger(tmp_path)
    train(monitor_of(split, tmp_path, encode=encode), steps=2, loggers=[logger])
    rows = polars.read_csv(logger.experiment.metrics_file_path)
    assert rows["step"].to_list() == [0, 2]
    assert "lis/ais" in rows.columns


def test_a_wrapped_model_is_unwrapped(split, tmp_path):
    monitor = monitor_of(split, tmp_path, encode=encode)
    model = nn.DataParallel(Tower())
    with monitor.watching(model):
        monitor.step(model, 2)
    assert [result.step for result in monitor.results] == [0, 2]
    assert monitor.last_error is None


def test_metrics_that_are_passed_are_watched(split, tmp_path):
    monitor = monitor_of(split, tmp_path, encode=encode, watch=["recall"])
    model = Tower()
    with monitor.watching(model):
        for step in range(1, 5):
            monitor.step(model, step, metrics={"recall": step / 10} if step != 3 else None)
    assert [result.watched for result in monitor.results] == [{}, {"recall": 0.2}, {"recall": 0.4}]


def test_a_step_outside_of_the_context_is_an_error(split, tmp_path):
    with pytest.raises(ConfigError, match=r"put the loop into `with monitor\.watching\(model\):`"):
        monitor_of(split, tmp_path).step(Tower(), 2)
