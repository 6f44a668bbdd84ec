"""The training is not disturbed: the same bits with a monitor and without."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
from _training import NaiveCallback, Tower, fails_after_drawing, fingerprint, fit, make_log, monitor_of, same
from pytorch_lightning.callbacks import EarlyStopping

from lis_lightning.early_stopping import LISEarlyStopping
from lis_lightning.errors import LisWarning
from lis_lightning.split import PreferenceSplit

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode:UserWarning"),  # the frozen BatchNorm, on purpose
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
]


@pytest.fixture(scope="module")
def split():
    return PreferenceSplit.from_log(make_log())


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"gradient_clip_val": 0.1}], ids=str)
def test_training_is_the_same_to_the_bit(split, tmp_path, options):
    alone = fingerprint(*fit(tmp_path / "alone", **options))
    trainer, module = fit(tmp_path / "with", monitor := monitor_of(split), **options)
    assert module.encoded > 0
    assert len(monitor.results) == 4
    watched = fingerprint(trainer, module)
    different = [name for name in alone if not same(alone[name], watched[name])]
    assert different == []


def test_a_naive_callback_changes_the_training(tmp_path):
    alone = fingerprint(*fit(tmp_path))
    disturbed = fingerprint(*fit(tmp_path, NaiveCallback()))
    different = [name for name in alone if not same(alone[name], disturbed[name])]
    assert different == ["weights", "optimizer", "modes", "torch", "numpy", "python"]


def test_training_is_the_same_to_the_bit_when_snapshots_fail(split, tmp_path):
    alone = fingerprint(*fit(tmp_path / "alone"))
    with pytest.warns(LisWarning, match="the snapshot of step 0 failed"):
        trained = fit(tmp_path / "with", monitor_of(split, encode=fails_after_drawing))
    assert same(alone, fingerprint(*trained))


def test_works_in_a_trainer_of_lightning_pytorch(split, tmp_path):
    import lightning.pytorch

    class OtherTower(lightning.pytorch.LightningModule):
        __init__, encode_items, on_fit_start = Tower.__init__, Tower.encode_items, Tower.on_fit_start
        training_step, configure_optimizers = Tower.training_step, Tower.configure_optimizers

    OtherTower.__init__ = lambda self: (lightning.pytorch.LightningModule.__init__(self), _fill(self))[0]
    stop = EarlyStopping("lis/ais", mode="max", patience=9)
    monitor = monitor_of(split)
    trainer = lightning.pytorch.Trainer
    alone = fingerprint(*fit(tmp_path / "alone", module=_seeded(OtherTower), trainer_cls=trainer))
    other = fit(tmp_path / "with", monitor, stop, LISEarlyStopping(), module=_seeded(OtherTower), trainer_cls=trainer)
    assert [result.step for result in monitor.results] == [0, 2, 4, 6]
    assert same(alone, fingerprint(*other))


def _fill(module):
    tower = Tower()
    module.net, module.frozen, module.encoded = tower.net, tower.frozen, 0


def _seeded(cls):
    pl.seed_everything(7, verbose=False)
    return cls()
