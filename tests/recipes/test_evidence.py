"""The study of evidence: its arithmetic against scipy, Lightning and by hand, and a whole small study twice."""

import importlib
import json
import sys

import numpy as np
import polars as pl
import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from scipy import stats

from lis_lightning.cli import resource_dir
from lis_lightning.results import Ceiling, Record, Snapshot, judge

SCRIPTS = (
    "evidence",
    "sensitivity",
    "tables",
    "agreement",
    "stops",
    "curves",
    "training",
    "alignments",
    "readers",
    "constructed",
    "trees",
    "worlds",
    "arithmetic",
    "gold_noise",
)
TINY = {"num_users": 200, "num_items": 60, "num_events": 5000}


@pytest.fixture(scope="module")
def scripts():
    folder = str(resource_dir("recipes") / "evidence")
    sys.path.insert(0, folder)
    yield {name: importlib.import_module(name) for name in SCRIPTS}
    sys.path.remove(folder)
    for name in SCRIPTS:
        sys.modules.pop(name)


@pytest.fixture
def arithmetic(scripts):
    return scripts["arithmetic"]


@pytest.fixture
def gold_noise(scripts):
    return scripts["gold_noise"]


@pytest.fixture
def stops(scripts):
    return scripts["stops"]


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_killed_and_repeats_itself(scripts, tmp_path):
    job = scripts["evidence"].Job("default", 0, ("infonce", "perfect"))
    options = {"gold_seeds": (0, 1, 2), "size": TINY, "steps": (0, 5, 10, 15, 20)}
    scripts["evidence"].run(job, tmp_path / "runs", **options)
    kept, lost = (tmp_path / "runs" / f"default--{name}--0" for name in ("infonce", "perfect"))
    files = {name: (lost / name).read_bytes() for name in ("gold.json", "snapshots.npz")}
    scores = [one.ais for one in Record.read(lost / "record.jsonl")[1]]
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    for path in lost.iterdir():
        path.unlink()
    scripts["evidence"].run(job, tmp_path / "runs", **options)
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before
    assert json.loads((lost / "gold.json").read_text()) == json.loads(files["gold.json"])
    assert [one.ais for one in Record.read(lost / "record.jsonl")[1]] == scores
    text = scripts["tables"].write_tables(tmp_path)
    assert text == (tmp_path / "tables.md").read_text()
    ran = pl.read_csv(tmp_path / "what_ran.csv")
    assert ran.select("world", "runs").rows() == [("default", 2)]
    runs = {run["recipe"]: run for run in scripts["tables"].read(tmp_path / "runs")}
    assert len(set(runs["infonce"]["curves"]["pair AUC"])) == 5
    assert len(set(runs["perfect"]["curves"]["pair AUC"])) == 1


def test_gold_pays_for_content_and_not_for_the_same_rows_traded(scripts):
    world = scripts["worlds"].study("strong content", 0, {"num_users": 400, "num_items": 60, "num_events": 16_000})
    assert not set(world.scored.user_ids) & set(world.gold.user_ids)
    gold, content_latents = scripts["curves"].Gold(world), world.truth.content_latents
    content, placebo = (np.array(gold([content_latents], placebo=traded))[0, :, 0] for traded in (False, True))
    assert (content > placebo + 0.01).all()
    known = dict(gold.known)
    assert gold([content_latents.copy()]) == gold([content_latents])
    assert gold.known.keys() == known.keys()


def test_a_choice_of_worlds_and_recipes_measures_each_run_once(scripts):
    evidence = scripts["evidence"]
    small = evidence.plan("small")
    runs = [(job.kind, job.seed, recipe) for job in small for recipe in job.recipes]
    assert len(set(runs)) == len(runs) == 33
    assert evidence.chosen(small, ["default"], ["infonce", "bpr"]) == [evidence.Job("default", 0, ("infonce", "bpr"))]
    assert {job.kind for job in evidence.chosen(small, ["drift", "default"], None)} == {"drift", "default"}


def test_a_recipe_of_few_pairs_sees_few_users(scripts, monkeypatch):
    seen, training = [], scripts["training"]

    def look(examples, *_, **__):
        seen.append(len(examples["pairs"]))
        raise StopIteration  # nothing needs to be trained

    monkeypatch.setattr(training, "ExampleDataModule", look)
    world = scripts["worlds"].study("default", 0, TINY)
    for name in ("infonce", "few pairs"):
        with pytest.raises(StopIteration):
            training.train(world, scripts["alignments"].RECIPES[name], 0)
    assert seen[1] < 0.1 * seen[0]


def test_recall_counts_partners_among_the_nearest(scripts, monkeypatch):
    monkeypatch.setattr(scripts["curves"], "successive_pairs", lambda split: np.array([[0, 1], [0, 2], [2, 3]]))
    vectors = np.array([[1, 0.1], [1, 0], [0.5, 0.6], [-1, 0], [-1.5, -0.7]], dtype=np.float32)
    vectors -= vectors.mean(0)
    world = type("World", (), {"scored": None})()
    assert scripts["curves"].recall(world, vectors, 1) == pytest.approx(1 / 3)
    assert scripts["curves"].recall(world, vectors, 4) == 1


def test_rank_agreement_is_that_of_scipy_over_the_points_that_a_curve_has(arithmetic):
    rng = np.random.default_rng(0)
    curve, gold = rng.standard_normal(9), rng.standard_normal(9)
    curve[2] = np.nan
    known = np.isfinite(curve)
    assert arithmetic.spearman(curve, gold) == pytest.approx(stats.spearmanr(curve[known], gold[known])[0])
    places = np.argsort(np.argsort(curve[known])) - np.argsort(np.argsort(gold[known]))
    assert arithmetic.spearman(curve, gold) == pytest.approx(1 - 6 * (places**2).sum() / (8 * 63))
    assert arithmetic.spearman(np.ones(9), gold) == 0
    assert np.isnan(arithmetic.spearman([np.nan] * 6 + [1, 2, 3], gold))


def test_regret_is_a_share_of_the_range(arithmetic):
    gold = np.array([0.0, 0.03, 0.05, 0.01])
    assert arithmetic.chosen([np.nan, 2.0, 1.0, 2.0]) == 1
    assert arithmetic.regret(gold, 1) == pytest.approx(0.4)
    assert arithmetic.regret(gold, 2) == 0
    assert arithmetic.regret(gold, 0) == 1
    assert np.isnan(arithmetic.regret(gold, arithmetic.chosen([np.nan] * 4)))


def test_fair_regret_forgives_luck_and_no_more(arithmetic):
    rng = np.random.default_rng(0)
    worlds = 0.1 * np.array([0.0, 1, 1, 1, 1, 1, 1, 1]) + 0.01 * rng.standard_normal((20, 6, 8))
    plain = np.mean([arithmetic.regret(fits.mean(0), at) for fits in worlds for at in range(1, 8)])
    fair = np.mean([arithmetic.fair_regret(fits, at) for fits in worlds for at in range(1, 8)])
    assert abs(fair) < plain / 2
    assert arithmetic.fair_regret(worlds[0], 0) == pytest.approx(1, abs=0.1)
    assert np.isnan(arithmetic.fair_regret(worlds[0], None))


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_the_stock_rule_stops_where_lightning_does(stops, patience):
    rng = np.random.default_rng(patience)
    for _ in range(30):
        losses = np.cumsum(rng.standard_normal(10)) + 5
        stock = EarlyStopping("val/loss", patience=patience, mode="min", min_delta=0.0)
        halts = [stock._evaluate_stopping_criteria(torch.tensor(loss))[0] for loss in losses]
        end = halts.index(True) if any(halts) else 9
        assert stops.stock_stop(losses, patience) == (end, int(losses[: end + 1].argmin()))


def result(ais, step):
    return Snapshot(
        ais=ais, ais_low=ais - 0.001, ais_high=ais + 0.001, ais_geometry=ais, auc_base=0.7, auc=0.7 + ais, step=step,
        influence=np.array([0.0004, -0.0004, 0.0]), num_events=100_000,
        ceilings={
            name: Ceiling(
                value=value, low=value - 0.001, high=value + 0.001, past=np.nan, missing_positive=0.0,
                missing_negative=0.0, cross_fitted=True, influence=np.array([0.0002, -0.0002, 0.0]),
                past_influence=np.zeros(0),
            )
            for name, value in (("trained", 0.03), ("pairs", 0.05))
        },
        aligned_to="trained", headroom=0.04, companions={"pair_auc": ais, "cka": ais, "rankme": 20.0},
    )  # fmt: skip


def test_our_rule_ends_at_its_first_stop_with_the_best_by_then(stops):
    results = [result(ais, step) for step, ais in enumerate([0.0, 0.01, 0.02, 0.02, 0.02, 0.02, 0.05])]
    last, best = stops.judged_stop(results)
    assert judge(results[: last + 1], max_steps=6).stop
    assert not any(judge(results[:end], max_steps=6).stop for end in range(1, last + 1))
    assert (best, last) == (2, 4)
    assert stops.judged_stop(results[:4]) == (3, 2)


def made(gold, noise, rng, fits=4):
    """Runs of 8 snapshots, of which each fit sees a part of the users."""
    parts = np.asarray(gold)[:, None] + noise * rng.standard_normal((8, fits)) + rng.standard_normal(fits)
    return parts.mean(1), parts


def test_gold_without_an_effect_is_said_to_move_once_in_twenty(gold_noise):
    rng = np.random.default_rng(0)
    hits = [gold_noise.moves(*made(np.zeros(8), 0.01, rng)) for _ in range(1000)]
    assert np.mean(hits) == pytest.approx(0.05, abs=0.02)
    assert all(gold_noise.moves(*made(np.linspace(0, 0.1, 8), 0.01, rng)) for _ in range(50))


def test_gains_are_over_the_mean_placebo(arithmetic):
    auc = np.array([[[0.7, 0.6], [0.8, 0.9]], [[0.7, 0.7]] * 2, [[0.9, 0.9]] * 2])
    placebo = np.array([[[0.5, 0.5], [0.6, 0.6]], [[0.7, 0.7], [0.6, 0.6]]])
    mean, parts = arithmetic.gains(auc, placebo)
    np.testing.assert_allclose(mean, [0.15, 0.1, 0.3])
    np.testing.assert_allclose(parts, [[0.0, 0.3], [0.1, 0.1], [0.3, 0.3]])


def test_intervals_draw_whole_worlds(arithmetic):
    values = np.random.default_rng(0).standard_normal(25)
    mean, low, high = arithmetic.bootstrap([*values, np.nan], range(26))
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=1).confidence_interval
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    again = arithmetic.bootstrap(np.repeat(values, 4), np.repeat(range(25), 4))
    assert again == pytest.approx((mean, low, high))
    assert arithmetic.shown([0.5, np.nan, 0.7], ["a", "b", "b"]) == "0.60"
    assert arithmetic.shown([np.nan], ["a"]) == "-"


@pytest.mark.parametrize(
    ("truth", "verdict", "fits"),
    [
        ("data-bound", "data-bound", True),
        ("data-bound", "model-bound", False),
        ("done", "ceiling-not-binding", True),
        ("done", "model-bound", False),
        ("", "plateau", True),
        ("", "collapsed", False),
    ],
)
def test_a_verdict_is_right_if_it_is_what_was_built_in(stops, truth, verdict, fits):
    assert stops.right(truth, verdict) is fits
    assert stops.truth_of("no taste", truth) == "data-bound"
    assert stops.truth_of("no taste", "collapsed") == "collapsed"


GOLD, LOSS = [0.0, 0.02, 0.04, 0.06, 0.1, 0.08], [3.0, 2.0, 2.5, 1.0, 1.5, 1.8]
AIS = [0.0, 0.01, 0.02, 0.05, 0.04, 0.03]


def write_run(folder, recipe, gold, ais=AIS, seed=0):
    """Write a run of six snapshots, of which six fits say the same."""
    place = folder / "runs" / f"default--{recipe}--{seed}"
    place.mkdir(parents=True)
    steps = 10 * np.arange(6)
    np.savez(place / "snapshots.npz", step=steps, val_loss=LOSS, train_loss=LOSS, embeddings=np.zeros((6, 2, 2)))
    auc = {"gold": [[[0.6 + value] * 2] * 6 for value in gold], "placebo": [[[0.6, 0.6]] * 6], "base": 0.59}
    (place / "gold.json").write_text(json.dumps(auc))
    extra = {"recall": [{"recall@10": value} for value in ais], "score": 0.5, "scored events": 1000}
    (place / "curves.json").write_text(json.dumps(extra))
    record = Record.create(place / "record.jsonl", run_id="a", split_hash="b")
    for step, value in zip(steps.tolist(), ais, strict=True):
        record.append(result(value, step))


def test_tables_hold_what_runs_say(scripts, tmp_path):
    write_run(tmp_path, "infonce", GOLD)
    write_run(tmp_path, "distill", [value / 2 for value in GOLD])
    write_run(tmp_path, "shuffled", [0.0] * 6, [0.0] * 6)
    write_run(tmp_path, "perfect", [0.07] * 6, [0.03] * 6)
    write_run(tmp_path, "infonce", GOLD, seed=1)
    scripts["tables"].write_tables(tmp_path)
    table = {path.stem: pl.read_csv(path, infer_schema=False) for path in tmp_path.glob("*.csv")}
    assert table["what_ran"].row(0) == ("default", "5", "3", "0.0833")
    # Ranks of gold 0 1 2 3 5 4, of AIS 0 1 2 5 4 3: differences 2, 1, 1, of which the squares are 6.
    expected = 1 - 6 * 6 / (6 * 35)
    assert table["within"]["gold moves"][0] == f"{expected:.2f}"
    assert table["within"]["gold moves"].to_list()[-2:] == ["1.00", "1.00"]
    assert table["by_world"]["AIS"][0] == f"{expected:.2f}"
    last = stats.spearmanr([0.03, 0.03, 0, 0.03], [0.08, 0.04, 0, 0.07])[0]
    assert table["across"].row(0) == ("AIS", "1", f"{last:.2f}")
    assert table["selection"].rows()[0] == ("AIS", "0.40", "0.40", "0 of 3")
    chosen = dict(zip(table["selection"]["snapshot by"], table["selection"]["regret"], strict=True))
    assert (chosen["the first"], chosen["the last"]) == ("1.00", "0.20")
    rules = {row["rule"]: row for row in table["stopping"].to_dicts()}
    assert rules["val loss, patience 1"]["first: lost"] == "0.80"
    assert rules["val loss, patience 1"]["second: saved"] == "0.60"
    assert rules["last step"]["first: .4 saved at .05"] == "0 of 2"
    assert [rules["(hindsight)"][f"first: {key}"] for key in ("lost", "saved")] == ["0.00", "0.20"]
    assert any(name.startswith("ours, chosen on the first half") for name in rules)
    said = {(row["built in"], row["half"]): row for row in table["verdicts"].to_dicts()}
    assert [said["(none of these)", half]["runs"] for half in ("first", "second")] == ["2", "1"]
    limits = table["ceilings"].filter(pl.col("ceiling") == "trained")
    assert limits["value"][0] == "0.0300"
    assert limits["first headroom holds"][0] == "0 of 3"


def test_sensitivity_sets_one_thing_at_a_time(scripts):
    halves = scripts["worlds"].Halves.read("default", 0, TINY)
    sensitivity = scripts["sensitivity"]
    found = {name: cut() for name, (cut, _) in sensitivity.settings(halves, real=False).items()}
    base = found[sensitivity.BASE]
    assert base.hash == scripts["worlds"].study("default", 0, TINY).scored.hash
    assert len(found["w1 of 50%"].events) < len(base.events)
    assert found["unseen items 0%"].events.unseen.sum() == 0
    one, four = (found[f"clicks alone, negatives {number}"].events.label.mean() for number in (1, 4))
    assert four < one < 0.7
    run = {"embeddings": np.random.default_rng(0).standard_normal((5, 60, 4)), "gold": np.arange(5.0), "moves": False}
    row = sensitivity.scored(run, halves.data.items.rows(base.item_ids), base)
    assert np.isnan(row["Spearman"])
    table = sensitivity.summary([{"setting": "a", "world": "b", **row}] * 2)
    assert table[0]["AIS"] == f"{row['AIS']:.4f}"
    whole = base.score(run["embeddings"][0][: base.num_items]).ceilings["pairs"].value
    assert sensitivity.folded(base, 5) == pytest.approx(whole)


@pytest.mark.slow
def test_what_sensitivity_has_measured_stays(scripts, tmp_path, monkeypatch):
    sensitivity = scripts["sensitivity"]
    halves = scripts["worlds"].Halves.read("default", 0, TINY)
    monkeypatch.setattr(sensitivity.Halves, "read", lambda kind, seed: halves)
    some = dict(list(sensitivity.settings(halves, real=False).items())[:2])
    some |= {f"k {k}": (halves.to_score, {"k": k}) for k in (8, 16, 32)}
    monkeypatch.setattr(sensitivity, "settings", lambda *_, **__: some)
    rows = np.random.default_rng(0).standard_normal((5, 60, 4))
    run = {"embeddings": rows, "gold": np.arange(5.0), "moves": True, "recipe": "infonce", "seed": 0}
    first = sensitivity.measured("default", [run], tmp_path / "a.json")
    monkeypatch.setattr(sensitivity, "scored", None)  # nothing is scored again
    assert sensitivity.measured("default", [run], tmp_path / "a.json") == first
    mean = next(row for row in first if row["setting"] == sensitivity.MEAN)
    curves = [row["curve"] for row in first if "curve" in row and not row["setting"].startswith("max")]
    assert len(curves) == 4
    assert mean["AIS"] == pytest.approx(np.mean(curves, axis=0)[-1])


def test_a_curve_agrees_with_gold_where_gold_can_tell_snapshots_apart(arithmetic, gold_noise):
    rng = np.random.default_rng(0)
    truth = np.linspace(0, 0.02, 8)
    fits = truth + 0.0005 * rng.standard_normal((50, 8))
    assert gold_noise.fit_noise(fits) == pytest.approx(0.0005 / np.sqrt(50), rel=0.15)
    assert gold_noise.decidable(truth, fits) == (1.0, 28)
    assert gold_noise.decidable(-truth, fits) == (0.0, 28)
    flat = 0.0005 * rng.standard_normal((50, 8))
    assert gold_noise.decidable(truth, flat)[1] < 3
    assert arithmetic.one_agrees(fits) == pytest.approx(stats.spearmanr(fits[0], fits[1:].mean(0))[0])


def test_a_perfect_curve_agrees_as_far_as_gold_is_exact(gold_noise):
    truth = np.linspace(0, 0.02, 10)
    assert gold_noise.perfect_agrees(truth, 1e-6) == pytest.approx(1)
    assert 0.5 < gold_noise.perfect_agrees(truth, 0.005) < 0.95
    assert abs(gold_noise.perfect_agrees(np.zeros(10), 0.005)) < 0.1


def test_gold_takes_the_expected_auc_where_the_chance_of_a_click_is_known(scripts):
    world = scripts["worlds"].study("default", 0, TINY)
    ranker = scripts["trees"].BoostedTrees(world)
    chance = world.chance[~world.gold.events.train]
    labels = (np.random.default_rng(0).random((400, chance.size)) < chance).astype(int)
    logits = np.random.default_rng(1).standard_normal(chance.size) + 2 * chance
    drawn = [ranker_auc(logits, one) for one in labels]
    assert ranker.auc(logits) == pytest.approx(np.mean(drawn), abs=3 * np.std(drawn) / 20)


def ranker_auc(logits, labels):
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(labels, logits)


def test_trees_know_what_alignment_saw_and_find_content_under_louder_directions(scripts):
    world = scripts["worlds"].study("strong content", 0, {"num_users": 800, "num_items": 150, "num_events": 40_000})
    ranker = scripts["trees"].BoostedTrees(world)
    latents = world.truth.content_latents[world.items.rows(world.gold.item_ids)]
    rng = np.random.default_rng(0)
    loud = np.concatenate([latents, latents.std() * rng.standard_normal((len(latents), 20))], axis=1)
    buried, noise = (ranker.auc(ranker.logits(rows, 0)) for rows in (loud, loud[:, 6:]))
    assert ranker.auc(ranker.logits(latents, 0)) > buried > noise + 0.002


def test_clicks_alone_are_cut_with_drawn_negatives(scripts):
    world = scripts["worlds"].study(scripts["worlds"].CLICKS, 0, TINY)
    assert world.scored.settings["negatives"] == scripts["worlds"].NEGATIVES
    assert world.chance is None
    assert 0.1 < world.gold.events.label.mean() < 0.4


def test_representations_made_by_hand_hold_what_their_names_say(scripts):
    world = scripts["worlds"].study("default", 0, TINY)
    cases = scripts["constructed"].constructed(world.truth, world.items.features, 0)
    assert {rows.shape for rows in cases.values()} == {(60, 96)}
    content = world.truth.content_latents - world.truth.content_latents.mean(0)

    def explained(name):
        fitted = np.linalg.lstsq(cases[name], content, rcond=1e-4)[0]
        return 1 - ((cases[name] @ fitted - content) ** 2).sum() / (content**2).sum()

    assert explained("content") == pytest.approx(1, abs=1e-3)
    strength = np.linalg.svd(cases["8 axes of the features"] - cases["8 axes of the features"].mean(0))[1]
    assert (strength > 1e-3 * strength[0]).sum() == 8
    flat = np.linalg.svd(cases["features, spectrum to the 0.0"])[1]
    assert flat[50] > 0.5 * flat[0]
    length = np.log(np.linalg.norm(cases["quality 0.6 in the length"], axis=1))
    assert np.corrcoef(length, world.truth.quality)[0, 1] > 0.99
