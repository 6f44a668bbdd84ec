"""Which learning rate is found, and that finding it leaves no trace; how fast a training is said to go."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lis_lightning.align.data import ExampleDataModule, Examples, ItemTable
from lis_lightning.align.models import FeatureEncoder
from lis_lightning.align.objectives import PairContrastive
from lis_lightning.align.training import AlignmentModule, learning_rate
from lis_lightning.align.training.learning_rate import RangeTest, find_learning_rate, halfway
from lis_lightning.errors import ConfigError

RATES = np.geomspace(1e-6, 1.0, 100)
WORDS = (".*does not have many workers", "The number of training batches", ".*log_every_n_steps.*", ".*LeafSpec.*")
pytestmark = [pytest.mark.filterwarnings(f"ignore:{words}") for words in WORDS]


def falling(at):
    return 1 / (1 + RATES / at)


@pytest.mark.parametrize("at", [1e-4, 1e-3, 1e-2])
def test_the_rate_is_found_among_noisy_losses(at):
    for seed in range(20):
        noisy = falling(at) + 0.1 * np.random.default_rng(seed).standard_normal(100)
        assert at / 5 < halfway(RATES, noisy) < at * 5


def test_what_comes_after_the_loss_has_burst_does_not_count():
    burst = falling(1e-3)
    burst[70:] = np.nan
    assert halfway(RATES, burst) == pytest.approx(1e-3, rel=0.6)


@pytest.mark.parametrize(
    "losses",
    [np.ones(100), 1 + RATES, np.full(100, np.nan), falling(1e-3)[:10]],
    ids=["flat", "rising", "nan", "short"],
)
def test_no_rate_is_found_where_the_loss_does_not_fall(losses):
    assert halfway(RATES, losses) is None


@pytest.fixture
def parts():
    """A module over features and its batches: pairs of items of one of four kinds."""
    draw = np.random.default_rng(0)
    kinds = np.arange(80) % 4
    features = (np.eye(4)[kinds] @ draw.standard_normal((4, 12)) + draw.standard_normal((80, 12))).astype(np.float32)
    items = ItemTable(np.arange(80), ("",) * 80, (None,) * 80, features)
    torch.manual_seed(0)
    encoder = FeatureEncoder.from_items(items, output_dim=8)
    anchors = draw.integers(0, 80, 400)
    partners = (anchors + 4 * draw.integers(1, 20, 400)) % 80
    known = np.zeros(400, dtype=bool)
    known[:20] = True
    given = Examples(
        {"anchor": anchors[:, None], "positive": partners[:, None]},
        known,
        extras=lambda rows, held_out: {
            "known": torch.zeros(len(rows["anchor"]), len(rows["anchor"]), dtype=torch.bool)
        },
    )
    batches = ExampleDataModule({"pairs": given}, encoder.prepare(items, ""), encoder.collate, batch_size=32)
    return AlignmentModule(encoder, {"pairs": PairContrastive()}, learning_rate=1e-3), batches


def make_trainer(**options):
    known = {"accelerator": "cpu", "max_epochs": -1, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return pl.Trainer(**known | options)


def test_a_rate_is_found_and_said_and_the_module_is_as_it_was(parts, tmp_path, capsys):
    module, batches = parts
    before = {name: value.clone() for name, value in module.state_dict().items()}
    pl.seed_everything(3, verbose=False)
    found = find_learning_rate(make_trainer, module, batches, tmp_path)
    assert 1e-5 < found < 1
    assert f"half-way down at {found:.2g}, which replaces 0.001" in capsys.readouterr().out
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.learning_rate == 1e-3
    assert module.training
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob("record*.jsonl"))
    pl.seed_everything(3, verbose=False)
    assert find_learning_rate(make_trainer, module, batches, tmp_path) == found, "one seed, one rate"


def test_where_no_rate_is_found_that_is_said(parts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(learning_rate, "halfway", lambda rates, losses: None)
    assert find_learning_rate(make_trainer, *parts, tmp_path) is None
    assert "the loss falls at no rate from 1e-6 to 1; 0.001 is used" in capsys.readouterr().out


def test_the_rates_are_those_that_are_trained_at(parts, tmp_path):
    module, batches = parts
    seen = []

    class Seen(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append(optimizer.param_groups[0]["lr"])

    test = RangeTest(RATES[:6])
    make_trainer(
        callbacks=[test, Seen()], logger=False, max_steps=6, enable_checkpointing=False, enable_progress_bar=False,
        limit_val_batches=0, default_root_dir=tmp_path,
    ).fit(module, datamodule=batches)  # fmt: skip
    assert seen == RATES[:6].tolist()
    assert len(test.losses) == 6


def test_a_loss_that_bursts_ends_the_test():
    test, trainer = RangeTest(RATES), SimpleNamespace(should_stop=False)
    for loss in (1.0, 3.9):
        test.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, 0)
        assert not trainer.should_stop
    test.on_train_batch_end(trainer, None, {"loss": torch.tensor(float("nan"))}, None, 0)
    assert trainer.should_stop


def test_error_with_several_processes(parts, tmp_path):
    several = partial(make_trainer, devices=2, strategy="ddp")
    with pytest.raises(ConfigError, match=r"in one process, but there are 2: look with trainer.devices=1"):
        find_learning_rate(several, *parts, tmp_path)
