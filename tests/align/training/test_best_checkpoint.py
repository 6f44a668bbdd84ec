"""Which weights are kept: those that the best snapshot was of, whenever it was taken."""

from __future__ import annotations

import warnings

import pytest
import torch

from lis_lightning.align.training import BestSnapshot
from lis_lightning.errors import LisWarning
from lis_lightning.monitor.schedule import AtSteps
from tests._helpers import small_run


@pytest.fixture(scope="module")
def split():
    return small_run.make_split()


def fit(split, folder, *, steps=12, **options):
    monitor = small_run.monitor_of(split, dirpath=folder, **{"ceilings": (), "placebo": False} | options)
    best = BestSnapshot(folder / "checkpoints", monitor)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LisWarning)
        _, module = small_run.fit(folder, monitor, best, steps=steps)
    return monitor, best, module


def score(split, module):
    with torch.no_grad():
        rows = module.eval().encode_items({"x": small_run.contents()[split.item_ids]})
    return split.score(rows, ceilings=(), placebo=False).ais


@pytest.mark.parametrize(
    "options", [{"every_n_steps": 3}, {"every_n_steps": None, "schedule": AtSteps([1, 5, 8])}, {"every_n_steps": 5}]
)
def test_the_file_holds_the_weights_that_had_the_best_score(options, split, tmp_path):
    monitor, best, _ = fit(split, tmp_path, **options)
    path = best.path_of(monitor.best)
    assert path.name == f"best-step={monitor.best_step}.ckpt"
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    module = small_run.Tower()
    module.load_state_dict(torch.load(path, weights_only=False)["state_dict"])
    assert score(split, module) == pytest.approx(monitor.best.ais, abs=1e-9)


def test_the_last_snapshot_is_kept_where_no_schedule_asked_for_it(split, tmp_path):
    monitor, best, module = fit(split, tmp_path, every_n_steps=None, schedule=AtSteps([1]), steps=20)
    assert [one.step for one in monitor.results] == [0, 1, 20]
    assert monitor.best_step == 20, "this small model gets better with every step"
    kept = torch.load(best.path_of(monitor.best), weights_only=False)["state_dict"]
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())


def test_a_score_from_the_background_is_stored_with_no_later_weights(split, tmp_path):
    monitor, best, _ = fit(split, tmp_path, every_n_steps=4, background_steps=2, steps=11)
    kept = [int(path.stem.removeprefix("best-step=")) for path in (tmp_path / "checkpoints").glob("*.ckpt")]
    assert kept in ([], [11]), "only the last is scored at once"
    assert best.path_of(monitor.results[1]) is None
