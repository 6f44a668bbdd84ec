"""Objectives: what they train on, that they learn, and that controls do not."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import pytorch_lightning
import torch

from lis_lightning import PairTable, PreferenceSplit
from lis_lightning.align.data import AlignmentEvents, CoEngagement, ExampleDataModule, ItemTable
from lis_lightning.align.data.hard_negatives import skipped_items
from lis_lightning.align.data.pair_tables import table_pairs
from lis_lightning.align.models import FeatureEncoder
from lis_lightning.align.objectives import (
    ClickPreference,
    ClickRanking,
    Distillation,
    NextItemContrastive,
    PairAttraction,
    PairContrastive,
    TaxonomyContrastive,
    Uniformity,
    VarianceCovariance,
)
from lis_lightning.align.objectives.histories import past_clicks
from lis_lightning.align.training import AlignmentModule
from lis_lightning.errors import ConfigError, ItemError, LogError
from lis_lightning.scoring.scorer import Scorer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")

OBJECTIVES = {
    "pairs": lambda: PairContrastive(),
    "hard": lambda: PairContrastive(hard_negatives=2),
    "attraction": lambda: PairAttraction(),
    "next_item": lambda: NextItemContrastive(history=5),
    "bpr": lambda: ClickRanking(history=5),
    "dpo": lambda: ClickPreference(history=5, beta=0.3),
    "gram": lambda: Distillation(),
    "cosine": lambda: Distillation(form="cosine"),
    "contrastive": lambda: Distillation(form="contrastive"),
    "taxonomy": lambda: TaxonomyContrastive(category="kind"),
}


def made(num_items=60, num_users=80, length=24, seed=0):
    """Users who click one of three groups of items, which features only hint at; every item is shown."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, num_items)
    features = rng.standard_normal((num_items, 12)).astype(np.float32)
    features[:, :3] += 1.5 * np.eye(3, dtype=np.float32)[group]
    kinds = tuple(None if i % 7 == 0 else "abc"[g] for i, g in enumerate(group))
    items = ItemTable(
        np.arange(num_items) + 100, ("",) * num_items, (None,) * num_items, features, categories={"kind": kinds}
    )
    taste, user = rng.integers(0, 3, num_users), np.repeat(np.arange(num_users), length)
    item = rng.integers(0, num_items, user.size)
    label = (rng.random(user.size) < np.where(group[item] == taste[user], 0.9, 0.1)).astype(np.int8)
    events = AlignmentEvents(
        user=user, item=item, label=label, time=np.arange(user.size), items=items,
        withheld=np.array([3]), units_per_day=None, seed=0,
    )  # fmt: skip
    return events, group


def fitted(objectives, *, steps=40, regularisers=None, **options):
    events, group = made()
    torch.manual_seed(0)
    encoder = FeatureEncoder.from_items(events.items, output_dim=6, hidden_dim=16)
    batches = ExampleDataModule(
        {name: one.examples(events, 6) for name, one in objectives.items()},
        encoder.prepare(events.items, ""), encoder.collate, batch_size=16,
    )  # fmt: skip
    module = AlignmentModule(encoder, objectives, regularisers=regularisers, learning_rate=1e-2, **options)
    raw = gap(module, events.items, group)
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_steps=steps,
        enable_model_summary=False, max_epochs=-1, num_sanity_val_steps=0, val_check_interval=10,
        check_val_every_n_epoch=None,
    )  # fmt: skip
    trainer.fit(module, datamodule=batches)
    return module, trainer, raw, gap(module, events.items, group)


def gap(module, items, group):
    """How much nearer items of one group are than others, as a difference of mean cosines."""
    with torch.no_grad():
        rows = torch.nn.functional.normalize(module.encode_items({"features": torch.from_numpy(items.features)}), dim=1)
    same = torch.from_numpy(group[:, None] == group)
    cosines = rows @ rows.T
    return float(cosines[same].mean() - cosines[~same].mean())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_objective_learns_what_users_prefer(name):
    _, trainer, raw, after = fitted({name: OBJECTIVES[name]()})
    logged = trainer.callback_metrics
    assert {"train/loss", f"train/{name}", "val/loss", f"val/{name}"} <= logged.keys()
    assert torch.isfinite(logged["val/loss"])
    # Drawing pairs together alone moves every item to one place.
    assert after > (0.0 if name == "attraction" else 1.1) * raw


def test_shuffled_clicks_teach_nothing():
    control = PairContrastive(pairs=CoEngagement(shuffled=True))
    *_, raw, after = fitted({"pairs": control})
    assert after < 1.1 * raw


def test_objectives_add_up_with_their_weights_and_regularisers_too():
    parts = {"pairs": PairContrastive(weight=0.5), "gram": Distillation(weight=2.0)}
    spread = {"variance": VarianceCovariance(weight=0.1), "uniformity": Uniformity(weight=0.2)}
    _, trainer, *_ = fitted(parts, regularisers=spread, steps=10)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    weights = {"pairs": 0.5, "gram": 2.0, "variance": 0.1, "uniformity": 0.2}
    total = sum(weight * logged[f"train/{name}"] for name, weight in weights.items())
    assert logged["train/loss"] == pytest.approx(total, rel=1e-5)


def test_nested_dimensions_are_good_by_themselves():
    events, group = made()

    def first_two(module):
        class Cut:
            def encode_items(self, batch):
                return module.encode_items(batch)[:, :2]

        return gap(Cut(), events.items, group)

    whole = fitted({"pairs": PairContrastive()}, steps=150)[0]
    nested = fitted({"pairs": PairContrastive()}, nested_dims=[2, 6], steps=150)[0]
    assert first_two(nested) > first_two(whole)


def test_the_reference_is_the_encoder_before_the_first_step_and_stays_with_the_checkpoint():
    events, _ = made()
    objective = ClickPreference(history=5)
    torch.manual_seed(0)
    raw = FeatureEncoder.from_items(events.items, output_dim=6, hidden_dim=16)
    module, *_ = fitted({"dpo": objective})
    with torch.no_grad():
        expected = raw({"features": torch.from_numpy(events.items.features)})
        now = module.encode_items({"features": torch.from_numpy(events.items.features)})
    torch.testing.assert_close(objective.reference, expected)
    assert not torch.allclose(now, expected)
    again = ClickPreference(history=5)
    again.load_state_dict(objective.state_dict())
    torch.testing.assert_close(again.reference, expected)
    with pytest.raises(ConfigError, match="The reference is not known yet"):
        ClickPreference().loss(torch.ones(2, 3), {})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_withheld_items_and_held_out_examples_do_not_train(name):
    events, _ = made()
    kept = events.item != 3
    shown = AlignmentEvents(
        **{
            key: value[kept] if isinstance(value, np.ndarray) and key != "withheld" else value
            for key, value in vars(events).items()
        }
    )
    found = OBJECTIVES[name]().examples(shown, 6)
    assert not any((rows == 3).any() for rows in found.items.values())
    assert 2 <= found.held_out.sum() <= 0.2 * len(found)


def test_hard_negatives_were_shown_to_a_user_of_the_item_and_left():
    events, _ = made()
    anchors = np.arange(60)
    drawn = skipped_items(events, anchors, 3)
    clicked = {item: set(events.user[(events.item == item) & (events.label == 1)]) for item in range(60)}
    left = {user: set(events.item[(events.user == user) & (events.label == 0)]) for user in range(80)}
    for anchor, negatives in zip(anchors, drawn, strict=True):
        for negative in negatives[negatives >= 0]:
            assert any(negative in left[user] for user in clicked[anchor])
    assert (drawn >= 0).mean() > 0.9
    found = PairContrastive(hard_negatives=3).examples(events, 6)
    pairs = {frozenset(pair) for pair in np.concatenate([found.items["anchor"], found.items["positive"]], 1).tolist()}
    anchors, negatives = found.items["anchor"][~found.held_out], found.items["negative"][~found.held_out]
    trained = {frozenset(pair) for pair in np.c_[anchors, found.items["positive"][~found.held_out]].tolist()}
    assert trained <= pairs
    for anchor, drawn in zip(anchors[:, 0], negatives, strict=True):
        assert not any(frozenset((anchor, negative)) in trained for negative in drawn[drawn >= 0])


def test_clicks_before_a_click_against_a_loop():
    rng = np.random.default_rng(0)
    users, items = np.sort(rng.integers(0, 5, 30)), rng.integers(0, 9, 30)
    found = past_clicks(users, items, 4)
    for at in range(30):
        before = [items[j] for j in range(at - 1, -1, -1) if users[j] == users[at]][:4]
        assert found[at].tolist() == before + [-1] * (4 - len(before))


def test_a_skip_is_of_the_same_user_and_near():
    events, _ = made(num_users=10, length=8)
    found = ClickRanking(history=3).examples(events, 6)
    left = {user: set(events.item[(events.user == user) & (events.label == 0)]) for user in range(10)}
    clicked = {user: set(events.item[(events.user == user) & (events.label == 1)]) for user in range(10)}
    for positive, negative in zip(found.items["positive"][:, 0], found.items["negative"][:, 0], strict=True):
        assert any(positive in clicked[user] and negative in left[user] for user in range(10))


def test_the_ceiling_of_an_objective_is_that_of_what_it_trains_on(log):
    split = PreferenceSplit.from_log(log)
    true, shuffled = (Scorer(split).ceiling(CoEngagement(shuffled=traded)) for traded in (False, True))
    assert true.value > 0.002
    assert shuffled.value < 0.5 * true.value
    assert Distillation().preference == ClickRanking().preference == "ids"
    assert Distillation(teacher="vectors.npy").preference is None
    assert CoEngagement().cache_key != CoEngagement(window=3).cache_key


def test_a_table_of_ones_own_trains_and_later_rows_are_left_out():
    events, _ = made()
    rows = pl.DataFrame({
        "item_a": [100, 101, 100, 104, 103, 999], "item_b": [101, 100, 102, 105, 106, 100],
        "user": [1, 2, 3, 4, 5, 6], "w": [1.0, 2.0, 4.0, 8.0, 1.0, 1.0], "t": [0, 1, 2, 10**6, 3, 4],
    })  # fmt: skip
    pairs, counts = table_pairs(PairTable(rows, user="user", weight="w", time="t"), events)
    assert pairs.tolist() == [[0, 1], [0, 2]]
    assert counts.tolist() == [3.0, 4.0]
    assert table_pairs(PairTable(rows, user="user"), events)[0].tolist() == [[0, 1], [0, 2], [4, 5]]
    with pytest.raises(ConfigError, match="None of the 1 rows of the pair table"):
        table_pairs(PairTable(rows[5:], user="user"), events)


def test_teachers_from_a_file(tmp_path):
    events, group = made()
    frame = pl.DataFrame({"item_id": events.items.ids, "v": np.eye(3)[group].tolist()})
    frame.write_parquet(tmp_path / "teacher.parquet")
    *_, raw, after = fitted({"gram": Distillation(teacher=tmp_path / "teacher.parquet")})
    assert after > 1.5 * raw
    frame[5:].write_parquet(tmp_path / "short.parquet")
    with pytest.raises(ItemError, match="5 of 60 item ids have no row"):
        Distillation(teacher=tmp_path / "short.parquet").examples(events, 6)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: PairContrastive(weight=0), "`weight` of PairContrastive must be above 0, but got 0"),
        (lambda: Uniformity(weight=-1), "`weight` of Uniformity must be above 0, but got -1"),
        (lambda: PairContrastive(temperature=0.001), "`temperature` must be 0.01 or more, but got 0.001"),
        (lambda: PairContrastive(hard_negatives=-1), "`hard_negatives` must be 0 or more, but got -1"),
        (lambda: NextItemContrastive(history=0), "`history` must be 1 click or more, but got 0"),
        (lambda: ClickPreference(beta=0.0), "`beta` must be a finite number above 0, but got 0.0"),
        (lambda: Distillation(form="dot"), "`form` must be one of .*, but got 'dot'"),
    ],
)
def test_error_on_options(make, match):
    with pytest.raises(ConfigError, match=match):
        make()


def test_error_where_the_window_cannot_say_what_is_asked():
    events, _ = made()
    clicks = events.positives
    with pytest.raises(
        LogError, match=r"no click with an earlier click and a skip .*: it holds \d+ clicks and 0 skips"
    ):
        ClickRanking().examples(clicks, 6)
    with pytest.raises(ConfigError, match="no category 'brand'; they have kind"):
        TaxonomyContrastive(category="brand").examples(events, 6)
    with pytest.raises(ConfigError, match=r"none has 1000 events"):
        Distillation(min_events=1000).examples(events, 6)
    with pytest.raises(ConfigError, match=r"`min_information` is 50, and no pair has more than \d"):
        PairContrastive(pairs=CoEngagement(min_information=50)).examples(events, 6)
