from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from lis_lightning.align.world import VOCABULARY, World, WorldParams, generate_world, simulate_world, world as module
from lis_lightning.errors import ConfigError, LogError

SMALL = {"num_users": 60, "num_items": 12, "num_events": 600, "image_size": 16}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return generate_world(tmp_path_factory.mktemp("worlds"), num_users=600, num_items=300, num_events=30_000)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_generations_are_identical_to_the_byte(tmp_path):
    one, two = (generate_world(tmp_path / name, **SMALL) for name in ("one", "two"))
    assert one.folder.name == two.folder.name
    assert len(_files(one.folder)) == 5 + 12
    assert _files(one.folder) == _files(two.folder)


def test_a_simulation_is_the_world_without_its_files(tmp_path):
    world = generate_world(tmp_path, seed=3, **SMALL)
    log, truth = simulate_world(seed=3, **SMALL)
    assert log.equals(world.log)
    for name in ("click_probability", "item_latents", "content_latents", "user_latents", "attributes"):
        np.testing.assert_array_equal(truth[name], getattr(world, name))
    with pytest.raises(ConfigError, match="no parameter 'users'"):
        simulate_world(users=3)


def test_another_seed_changes_the_log_the_images_and_the_texts(tmp_path):
    one, two = (generate_world(tmp_path, seed=seed, **SMALL) for seed in (0, 1))
    assert one.folder != two.folder
    assert not one.log.equals(two.log)
    assert one.items.texts != two.items.texts
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(one.items.images, two.items.images, strict=True))


def test_what_is_seen_does_not_depend_on_what_is_liked(tmp_path):
    one, two = (generate_world(tmp_path, content_share=share, **SMALL) for share in (0.7, 0.2))
    assert one.items.texts == two.items.texts
    assert [path.read_bytes() for path in one.items.images] == [path.read_bytes() for path in two.items.images]
    assert not np.allclose(one.content_latents, two.content_latents)


def test_files_on_disk_are_what_a_stranger_would_read(world):
    log = pl.read_parquet(world.folder / "interactions.parquet")
    items = pl.read_parquet(world.folder / "items.parquet")
    assert log.columns == ["user_id", "item_id", "timestamp", "clicked"]
    assert items.columns == ["item_id", "title", "text", "image"]
    assert set(log["item_id"]) <= set(items["item_id"])
    assert log.height == 30_000
    for name in items["image"]:
        with Image.open(world.folder / "images" / name) as image:
            image.load()
            assert (image.size, image.mode, image.format) == ((48, 48), "RGB", "PNG")
    assert json.loads((world.folder / "params.json").read_text())["num_items"] == 300


def test_the_true_probability_is_the_documented_formula(world):
    truth = load_file(world.folder / "truth.safetensors")
    user, item = world.log["user_id"].to_numpy() - 1, world.log["item_id"].to_numpy() - 1
    period = np.searchsorted(world.period_starts, world.log["timestamp"].to_numpy(), side="right") - 1
    personal = (world.user_latents[period, user] * world.item_latents[item]).sum(axis=1)
    known = truth["quality"][item] + truth["generosity"][user] + world.params.taste * personal
    logit = np.log(world.click_probability / (1 - world.click_probability))
    bias = logit - known
    assert np.ptp(bias) < 1e-4
    assert world.click_probability.mean() == pytest.approx(0.4, abs=1e-6)


def test_labels_follow_the_true_probability(world):
    clicked = world.log["clicked"].to_numpy()
    tenth = np.digitize(world.click_probability, np.quantile(world.click_probability, np.arange(0.1, 1, 0.1)))
    for group in range(10):
        chosen = tenth == group
        expected = world.click_probability[chosen]
        error = np.sqrt((expected * (1 - expected)).sum()) / chosen.sum()
        assert abs(clicked[chosen].mean() - expected.mean()) < 4 * error


def test_bayes_auc_agrees_with_scikit_learn(world):
    clicked, time = world.log["clicked"].to_numpy(), world.log["timestamp"].to_numpy()
    assert world.bayes_auc() == pytest.approx(roc_auc_score(clicked, world.click_probability), abs=1e-12)
    low, high = np.quantile(time, [0.5, 0.75])
    late = time >= high
    expected = roc_auc_score(clicked[late], world.click_probability[late])
    assert world.bayes_auc(late) == pytest.approx(expected, abs=1e-12)
    assert world.bayes_auc(start=high) == pytest.approx(expected, abs=1e-12)
    middle = (time >= low) & (time < high)
    assert world.bayes_auc(start=low, end=high) == pytest.approx(
        roc_auc_score(clicked[middle], world.click_probability[middle]), abs=1e-12
    )
    assert world.bayes_auc(late, end=high + 86_400) != world.bayes_auc(late)


def test_bayes_auc_of_no_events_is_an_error(world):
    with pytest.raises(LogError):
        world.bayes_auc(start=4e9)


def test_no_item_is_shown_before_it_arrives(world):
    shown, item = world.log["timestamp"].to_numpy(), world.log["item_id"].to_numpy() - 1
    assert (shown >= world.arrivals[item]).all()
    assert (world.arrivals > world.period_starts[0]).mean() == pytest.approx(0.2, abs=0.1)
    test_window = shown >= np.quantile(shown, 0.75)
    new = ~np.isin(item[test_window], item[shown < np.quantile(shown, 0.5)])
    assert 0.03 < new.mean() < 0.5


def test_without_late_items_everything_is_there_from_the_start(tmp_path):
    world = generate_world(tmp_path, late_items=0, **SMALL)
    assert (world.arrivals < world.log["timestamp"].min()).all()


def test_new_items_are_shown_more_where_recency_counts(tmp_path):
    size = SMALL | {"num_items": 60, "num_events": 20_000}
    young = []
    for recency in (1, 20):
        world = generate_world(tmp_path, recency=recency, **size)
        age = world.log["timestamp"].to_numpy() - world.arrivals[world.log["item_id"].to_numpy() - 1]
        young.append((age < 10 * 86_400).mean())
    assert young[1] > 2 * young[0]


def test_a_users_events_are_seconds_apart_and_the_log_is_in_order(world):
    assert world.log["timestamp"].is_sorted()
    apart = world.log.sort("user_id", "timestamp").select(pl.col("timestamp").diff().over("user_id").min())
    assert apart.item() >= 1
    days = world.log.select((pl.col("timestamp") // 86_400).n_unique().over("user_id").alias("days"), "user_id")
    assert days.unique("user_id")["days"].median() > 2


def test_users_are_seldom_shown_the_same_item_again(world):
    first = world.log.select(first=pl.struct("user_id", "item_id").is_first_distinct())
    assert first["first"].mean() > 0.85


@pytest.mark.parametrize("drift", [0.0, 0.4, 1.0])
def test_drift_is_one_minus_the_correlation_of_last_and_first_taste(tmp_path, drift):
    world = generate_world(tmp_path, drift=drift, **(SMALL | {"num_users": 1500}))
    first, last = world.user_latents[0].ravel(), world.user_latents[-1].ravel()
    assert np.corrcoef(first, last)[0, 1] == pytest.approx(1 - drift, abs=0.04)
    assert last.std() == pytest.approx(1, abs=0.04)
    assert (drift == 0) == np.array_equal(first, last)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.7, 1.0])
def test_content_has_the_share_of_variance_that_was_asked_for(tmp_path, share):
    world = generate_world(tmp_path, content_share=share, **(SMALL | {"num_items": 40}))
    shown = (world.content_latents.astype(float) ** 2).sum()
    assert shown / (world.item_latents.astype(float) ** 2).sum() == pytest.approx(share, abs=1e-5)
    assert (world.item_latents.astype(float) ** 2).sum(axis=1).mean() == pytest.approx(1, abs=1e-5)


def test_content_is_a_sum_over_attributes_and_the_rest_is_not(world):
    one_hot = np.concatenate(
        [np.eye(len(values))[codes] for values, codes in zip(VOCABULARY.values(), world.attributes.T, strict=True)],
        axis=1,
    )

    def unexplained(latents: np.ndarray) -> float:
        fitted = one_hot @ np.linalg.lstsq(one_hot, latents, rcond=None)[0]
        return float(((latents - fitted) ** 2).sum() / (latents**2).sum())

    assert unexplained(world.content_latents) < 1e-6
    assert unexplained(world.item_latents - world.content_latents) > 0.75


def test_categories_are_the_attributes_in_the_text(world):
    for value, text in zip(world.items.categories["material"], world.items.texts, strict=True):
        assert any(word in text for word in VOCABULARY["material"][value])


def test_the_content_tells_who_will_click_and_shuffled_content_does_not(world):
    user, item = world.log["user_id"].to_numpy(), world.log["item_id"].to_numpy() - 1
    clicked = world.log["clicked"].to_numpy().astype(float)
    early = np.arange(user.size) < user.size // 2

    def auc(latents: np.ndarray) -> float:
        profile = np.zeros((user.max() + 1, latents.shape[1]))
        np.add.at(profile, user[early], (clicked[early] - 0.4)[:, None] * latents[item[early]])
        scores = (profile[user[~early]] * latents[item[~early]]).sum(axis=1)
        return roc_auc_score(clicked[~early], scores)

    assert auc(world.content_latents) > 0.6
    assert auc(world.item_latents) > auc(world.content_latents) + 0.02
    assert abs(auc(np.random.default_rng(0).permutation(world.content_latents)) - 0.5) < 0.03


def test_a_finished_world_is_used_again(tmp_path, monkeypatch):
    first = generate_world(tmp_path, **SMALL)
    monkeypatch.setattr(module, "_write", lambda *_: pytest.fail("the world was generated twice"))
    again = generate_world(tmp_path, drift=0.3, **SMALL)
    assert again.folder == first.folder
    np.testing.assert_array_equal(again.click_probability, first.click_probability)


def test_another_format_version_is_another_world(tmp_path, monkeypatch):
    first = generate_world(tmp_path, **SMALL)
    monkeypatch.setattr(module, "FORMAT_VERSION", module.FORMAT_VERSION + 1)
    assert generate_world(tmp_path, **SMALL).folder != first.folder


def test_an_interrupted_generation_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_world(tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "lost", ["manifest.json", "params.json", "interactions.parquet", "truth.safetensors", "images/3.png", "images"]
)
def test_a_world_that_lost_a_file_is_made_again(tmp_path, lost):
    whole = _files(generate_world(tmp_path, **SMALL).folder)
    victim = next(tmp_path.iterdir()) / lost
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    assert _files(generate_world(tmp_path, **SMALL).folder) == whole
    assert len(list(tmp_path.iterdir())) == 1


def test_a_killed_generation_is_not_taken_for_a_world(tmp_path):
    world = generate_world(tmp_path, **SMALL)
    left = tmp_path / f".{world.folder.name}-abc"
    shutil.move(world.folder, left)
    (left / "manifest.json").unlink()
    again = generate_world(tmp_path, **SMALL)
    assert again.folder == world.folder
    assert left.is_dir()


def test_two_processes_may_generate_the_same_world(tmp_path, monkeypatch):
    write, first = module._write, []

    def overtaken(draft: Path, params: WorldParams) -> None:
        write(draft, params)
        monkeypatch.setattr(module, "_write", write)
        first.append(generate_world(tmp_path, **SMALL).folder.stat().st_ino)

    monkeypatch.setattr(module, "_write", overtaken)
    world = generate_world(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [world.folder.name]
    assert first == [world.folder.stat().st_ino]
    assert len(world.items) == 12


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_item": 5}, r"no parameter 'num_item'.*Did you mean 'num_items'\?"),
        ({"num_items": 1}, r"num_items .* integer from 2 to 1000000, got 1\b"),
        ({"num_users": 10.5}, r"num_users .* integer .*got 10\.5"),
        ({"content_share": 1.2}, r"content_share .* number from 0\.0 to 1\.0, got 1\.2"),
        ({"drift": float("nan")}, "drift .*got nan"),
        ({"days": True}, "days .*got True"),
        ({"click_rate": "half"}, "click_rate .*got 'half'"),
        ({"seed": -1}, "seed .*from 0 .*got -1"),
    ],
)
def test_bad_parameters_are_named_with_their_range(tmp_path, parameters, message):
    with pytest.raises(ConfigError, match=message):
        generate_world(tmp_path, **parameters)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"num_items": 2, "late_items": 1.0},
        {"days": 2},
        {"dim": 1, "taste": 0},
        {"click_rate": 0.01},
        {"num_events": 10, "num_users": 2},
    ],
)
def test_extreme_but_legal_parameters_give_a_world(tmp_path, parameters):
    world = generate_world(tmp_path, **(SMALL | parameters))
    assert world.log.height == world.params.num_events
    assert (world.log["timestamp"].to_numpy() >= world.arrivals[world.log["item_id"].to_numpy() - 1]).all()
    assert np.isfinite(world.click_probability).all()
