from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lis_lightning.align.data import AlignmentEvents, ExampleDataModule, ItemTable
from lis_lightning.align.models import DualEncoder, FeatureEncoder, TextEncoder, Tuning, VisionLanguageEncoder
from lis_lightning.align.objectives import PairContrastive
from lis_lightning.align.training import AlignmentModule
from lis_lightning.align.training.learning_rate import RangeTest
from lis_lightning.align.training.module import warmup_cosine
from lis_lightning.errors import ConfigError
from lis_lightning.functional.contrastive import info_nce

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),  # items come from memory-mapped files
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start"),  # what is frozen, on purpose
]


def _table(num_items=60, seed=0) -> tuple[ItemTable, np.ndarray]:
    """Items of three groups that features only hint at."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, num_items)
    features = rng.standard_normal((num_items, 12)).astype(np.float32)
    features[:, :3] += 1.5 * np.eye(3, dtype=np.float32)[group]
    words = tuple(f"a {('red', 'green', 'blue')[g]} thing number {i}" for i, g in enumerate(group))
    return ItemTable(np.arange(num_items), words, (None,) * num_items, features), group


def _events(items, group, seed=0):
    rng = np.random.default_rng(seed)
    taste = rng.integers(0, 3, 40)
    user = np.repeat(np.arange(40), 8)
    item = np.array([rng.choice(np.flatnonzero(group == taste[u])) for u in user])
    return AlignmentEvents(
        user=user, item=item, label=np.ones(user.size, np.int8), time=np.arange(user.size), items=items,
        withheld=np.empty(0, np.int64), units_per_day=None, seed=seed,
    )  # fmt: skip


def _batches(encoder, objectives, items, group, folder="", **options):
    events = _events(items, group, options.get("seed", 0))
    return ExampleDataModule(
        {name: objective.examples(events, encoder.output_dim) for name, objective in objectives.items()},
        encoder.prepare(items, folder), encoder.collate, **{"batch_size": 16, **options},
    )  # fmt: skip


def _fit(module, batches, **options):
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **{"max_steps": 30, "max_epochs": -1, **options},
    )  # fmt: skip
    trainer.fit(module, datamodule=batches)
    return trainer


class _Losses(pl.Callback):
    def __init__(self):
        self.train, self.rates, self.validation = [], [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.train.append(trainer.callback_metrics["train/loss"].item())
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validation.append(trainer.callback_metrics["val/loss"].item())


def _run(encoder, items, group, *, steps=30, seed=0, learning_rate=5e-3, folder="", temperature=0.07, **options):
    objectives = {"pairs": PairContrastive(temperature=temperature, held_out=0.1)}
    batches = _batches(encoder, objectives, items, group, folder, seed=seed)
    losses = _Losses()
    module = AlignmentModule(encoder, objectives, learning_rate=learning_rate, **options)
    _fit(
        module, batches, max_steps=steps, callbacks=[losses], val_check_interval=10, check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
    )  # fmt: skip
    return module, losses


def _group_gap(module, items, group) -> float:
    """How much nearer items of one group are than others, as a difference of mean cosines."""
    with torch.no_grad():
        rows = module.encode_items({"features": torch.from_numpy(items.features)})
    rows = torch.nn.functional.normalize(rows, dim=1)
    same = torch.from_numpy(group[:, None] == group[None])
    cosines = rows @ rows.T
    return float(cosines[same].mean() - cosines[~same].mean())


def test_features_learn_groups():
    items, group = _table()
    torch.manual_seed(0)
    encoder = FeatureEncoder.from_items(items, output_dim=6, hidden_dim=16)
    raw = _group_gap(AlignmentModule(encoder, {"pairs": PairContrastive()}), items, group)
    module, losses = _run(encoder, items, group, steps=60)
    assert np.mean(losses.train[-10:]) < np.mean(losses.train[:10]) - 0.1
    assert losses.validation[-1] < losses.validation[0]
    assert _group_gap(module, items, group) > 1.5 * raw > 0


def test_tiny_vision_language_model_learns(tmp_path):
    items, group = _table(30)
    pl.seed_everything(0, verbose=False)
    encoder = VisionLanguageEncoder.from_items(items, cache_dir=tmp_path, output_dim=16)
    before = {name: weight.clone() for name, weight in encoder.named_parameters()}
    module, losses = _run(encoder, items, group, steps=40, folder=tmp_path)
    assert np.mean(losses.train[-5:]) < np.mean(losses.train[:5]) - 0.2
    assert not torch.equal(before["head.0.weight"], encoder.head[0].weight)
    batch = next(iter(encoder.loader(encoder.prepare(items, tmp_path))))
    assert module.eval().encode_items(batch).shape == (30, 16)


@pytest.mark.parametrize("mode", ["lora", "last", "head"])
@pytest.mark.parametrize("kind", [TextEncoder, DualEncoder, VisionLanguageEncoder])
def test_pretrained_models_learn_and_keep_what_is_frozen(kind, mode, tmp_path):
    items, group = _table(30)
    pl.seed_everything(0, verbose=False)
    tuning = Tuning(mode, layers=1)
    encoder = kind.from_items(items, cache_dir=tmp_path, output_dim=16, tuning=tuning)
    frozen = {name for name, weight in encoder.named_parameters() if not weight.requires_grad}
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    _, losses = _run(encoder, items, group, steps=25, folder=tmp_path, learning_rate=1e-2)
    assert np.mean(losses.train[-5:]) < 0.7 * np.mean(losses.train[:5])
    after = encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["head.0.weight"], after["head.0.weight"])


def test_same_seed_gives_the_same_weights():
    items, group = _table()
    weights = []
    for noise in (0, 1):
        torch.manual_seed(0)
        encoder = FeatureEncoder.from_items(items, output_dim=6)
        torch.manual_seed(100 + noise)
        weights.append(_run(encoder, items, group, steps=12)[0].state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_rate_warms_up_and_ends_at_zero():
    items, group = _table()
    _, losses = _run(FeatureEncoder.from_items(items), items, group, steps=20, learning_rate=0.01, warmup_share=0.25)
    expected = [0.01 * min((s + 1) / 5, 0.5 * (1 + math.cos(math.pi * max(s - 5, 0) / 15))) for s in range(1, 21)]
    np.testing.assert_allclose(losses.rates, expected, atol=1e-9)
    assert losses.rates[-1] == pytest.approx(0)


def test_no_warmup_starts_at_the_highest_rate():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    assert warmup_cosine(optimizer, 10, 0.0).get_last_lr() == [0.5]


def test_loss_is_info_nce_of_the_encoded_pairs():
    items, _ = _table(6)
    module = AlignmentModule(FeatureEncoder.from_items(items), {"pairs": PairContrastive(temperature=0.3)})
    batch = {
        "items": {"features": torch.from_numpy(items.features[[4, 1, 2]])},
        "anchor": torch.tensor([0, 1]),
        "positive": torch.tensor([2, 0]),
        "known": torch.tensor([[True, False], [False, True]]),
    }
    rows = module.encode_items(batch["items"])
    expected = info_nce(rows[[0, 1]], rows[[2, 0]], 0.3, batch["known"])
    module.log = lambda *args, **kwargs: None
    module.log_dict = lambda *args, **kwargs: None
    torch.testing.assert_close(module.training_step({"pairs": batch}, 0), expected)


def test_norms_biases_and_temperature_are_not_decayed():
    items, _ = _table()
    objective = PairContrastive()
    module = AlignmentModule(FeatureEncoder.from_items(items), {"pairs": objective}, weight_decay=0.3)
    decayed, spared = module._parameter_groups()
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert {weight.ndim for weight in decayed["params"]} == {2}
    assert any(weight is objective.temperature.log for weight in spared["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(module.parameters()))


def _rates(module):
    """The learning rate of each parameter by name."""
    rates = {id(weight): group["lr"] for group in module._parameter_groups() for weight in group["params"]}
    return {name: rates[id(weight)] for name, weight in module.named_parameters() if id(weight) in rates}


@pytest.mark.parametrize(("mode", "rate"), [("full", 2e-5), ("last", 5e-5), ("lora", 2e-4)])
def test_pretrained_weights_learn_at_the_rate_of_their_mode(mode, rate, tmp_path):
    items, _ = _table()
    tiny = TextEncoder.make_tiny(tmp_path, items.texts)
    encoder = TextEncoder.from_items(items, cache_dir=tmp_path, model=tiny, tuning=Tuning(mode))
    rates = _rates(AlignmentModule(encoder, {"pairs": PairContrastive()}, learning_rate=5e-3))
    assert {name.startswith("encoder.model."): value for name, value in rates.items()} == {True: rate, False: 5e-3}
    assert rates.keys() >= {"encoder.head.0.weight", "objectives.pairs.temperature.log"}
    given = _rates(AlignmentModule(encoder, {"pairs": PairContrastive()}, backbone_learning_rate=3e-6))
    assert set(given.values()) == {3e-6, 1e-3}


def test_random_weights_and_features_learn_at_the_rate_of_the_head(tmp_path):
    items, _ = _table()
    tiny = TextEncoder.from_items(items, cache_dir=tmp_path)
    for encoder in (tiny, FeatureEncoder.from_items(items)):
        module = AlignmentModule(encoder, {"pairs": PairContrastive()}, learning_rate=5e-3)
        assert set(_rates(module).values()) == {5e-3}
        assert len(module._parameter_groups()) == 2


def test_the_ratio_is_kept_when_the_rate_is_replaced(tmp_path):
    items, _ = _table()
    encoder = TextEncoder.from_items(items, cache_dir=tmp_path)
    objectives = {"pairs": PairContrastive()}
    module = AlignmentModule(encoder, objectives, learning_rate=4e-3, backbone_learning_rate=1e-3)
    module.use_learning_rate(0.1)
    assert (module.learning_rate, module.backbone_learning_rate) == (0.1, 0.025)
    assert module.hparams["backbone_learning_rate"] == 0.025


def test_the_range_test_scales_all_rates():
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (4.0, 1.0)])
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    trainer, module = SimpleNamespace(optimizers=[optimizer]), SimpleNamespace(learning_rate=4.0)
    RangeTest(np.array([0.2])).on_train_batch_start(trainer, module)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.05]


def test_temperature_is_learned_and_bounded():
    items, group = _table()
    torch.manual_seed(0)
    module, _ = _run(FeatureEncoder.from_items(items), items, group, temperature=0.07)
    temperature = module.objectives["pairs"].temperature
    assert temperature.value.item() != pytest.approx(0.07, rel=1e-3)
    with torch.no_grad():
        temperature.log.fill_(-50)
    assert temperature.value.item() == pytest.approx(0.01)


def test_checkpoint_restores_weights_and_options(tmp_path):
    items, group = _table()
    encoder = FeatureEncoder.from_items(items, output_dim=6)
    objectives = {"pairs": PairContrastive(temperature=0.2)}
    module = AlignmentModule(encoder, objectives, weight_decay=0.05)
    batches = _batches(encoder, objectives, items, group)
    trainer = _fit(module, batches, max_steps=3, limit_val_batches=0)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = AlignmentModule.load_from_checkpoint(
        tmp_path / "a.ckpt", encoder=FeatureEncoder(12, output_dim=6), objectives=objectives
    )
    assert again.weight_decay == 0.05
    batch = {"features": torch.from_numpy(items.features)}
    assert torch.equal(again.encode_items(batch), module.encode_items(batch))


def test_error_on_a_run_without_an_end():
    items, group = _table()
    encoder = FeatureEncoder.from_items(items)
    objectives = {"pairs": PairContrastive()}
    batches = _batches(encoder, objectives, items, group)
    with pytest.raises(ConfigError, match="the run has no end: max_steps and max_epochs"):
        _fit(AlignmentModule(encoder, objectives), batches, max_steps=-1, limit_val_batches=0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"learning_rate": 0}, "`learning_rate` must be above 0, but got 0"),
        ({"backbone_learning_rate": -1e-5}, "`backbone_learning_rate` must be above 0, but got -1e-05"),
        ({"weight_decay": -0.1}, "`weight_decay` must be 0 or more, but got -0.1"),
        ({"warmup_share": 1.0}, "`warmup_share` must be from 0 to below 1, but got 1.0"),
        ({"nested_dims": [1, 3]}, r"`nested_dims` must lie in 1 to 2, but got \[1, 3\]"),
        ({"nested_dims": 16}, r"`nested_dims` must be a list of numbers, as in \[16, 32\], but got 16"),
        ({"objectives": {}}, "There is no objective to train for"),
        ({"learning_rate": math.nan}, "`learning_rate` must be above 0, but got nan"),
        ({"weight_decay": math.inf}, "`weight_decay` must be 0 or more, but got inf"),
    ],
)
def test_error_on_options(options, match):
    with pytest.raises(ConfigError, match=match):
        AlignmentModule(FeatureEncoder(4, output_dim=2), **{"objectives": {"pairs": PairContrastive()}, **options})
