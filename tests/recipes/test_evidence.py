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

from lis_lightning._resources import resource_dir

SCRIPTS = ("evidence", "tables", "agreement", "curves", "training", "gold", "worlds", "arithmetic")
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


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_killed_and_repeats_itself(scripts, tmp_path):
    plan = {"worlds": ["default"], "recipes": ["infonce", "perfect"], "seeds": 1, "size": TINY, "gold_seeds": (0,)}
    steps = (0, 5, 10, 15, 20)
    scripts["evidence"].run(plan, tmp_path / "runs", steps)
    kept, lost = (tmp_path / "runs" / f"default--{name}--0.json" for name in ("infonce", "perfect"))
    first, before = json.loads(lost.read_text()), kept.stat().st_mtime_ns
    lost.unlink()
    scripts["evidence"].run(plan, tmp_path / "runs", steps)
    again = json.loads(lost.read_text())
    assert kept.stat().st_mtime_ns == before
    np.testing.assert_equal(again["snapshots"], first["snapshots"])
    text = scripts["tables"].write_tables(tmp_path)
    assert text == (tmp_path / "tables.md").read_text()
    ran = pl.read_csv(tmp_path / "what_ran.csv")
    assert ran.select("world", "runs").rows() == [("default", 2)]
    assert pl.read_csv(tmp_path / "within.csv")["curve"].to_list()[:2] == ["AIS", "geometry"]
    runs = scripts["tables"].read(tmp_path / "runs")
    trained = {run["recipe"]: run["curves"]["pair AUC"] for run in runs}
    assert len(set(trained["infonce"])) == 5
    assert len(set(trained["perfect"])) == 1


def test_gold_pays_for_content_and_not_for_the_same_rows_traded(scripts):
    world = scripts["worlds"].study("strong content", 0, {"num_users": 400, "num_items": 60, "num_events": 16_000})
    assert not set(world.scored.user_ids) & set(world.gold.user_ids)
    gold = scripts["curves"].Gold(world)
    content, placebo = (np.array(gold(world.content, placebo=traded))[:, 0] for traded in (False, True))
    assert (content > placebo + 0.01).all()
    fits = len(gold.seconds)
    assert gold(world.content.copy()) == gold(world.content)
    assert len(gold.seconds) == fits


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


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_the_stock_rule_stops_where_lightning_does(arithmetic, patience):
    rng = np.random.default_rng(patience)
    for _ in range(30):
        losses = np.cumsum(rng.standard_normal(10)) + 5
        stock = EarlyStopping("val/loss", patience=patience, mode="min", min_delta=0.0)
        stops = [stock._evaluate_stopping_criteria(torch.tensor(loss))[0] for loss in losses]
        end = stops.index(True) if any(stops) else 9
        assert arithmetic.stock_stop(losses, patience) == (end, int(losses[: end + 1].argmin()))


def test_our_rule_ends_at_its_first_stop_with_the_best_by_then(arithmetic):
    told = [(False, 0), (False, 1), (True, 1), (False, 3)]
    snapshots = [{"stop": stop, "best": best} for stop, best in told]
    assert arithmetic.judged_stop(snapshots) == (2, 1)
    assert arithmetic.judged_stop(snapshots[:2]) == (1, 1)


def made(gold, noise, rng, fits=4):
    """Runs of 8 snapshots, of which each fit sees a part of the users."""
    parts = np.asarray(gold)[:, None] + noise * rng.standard_normal((8, fits)) + rng.standard_normal(fits)
    return parts.mean(1), parts


def test_gold_without_an_effect_is_said_to_move_once_in_twenty(arithmetic):
    rng = np.random.default_rng(0)
    hits = [arithmetic.moves(*made(np.zeros(8), 0.01, rng)) for _ in range(1000)]
    assert np.mean(hits) == pytest.approx(0.05, abs=0.02)
    assert all(arithmetic.moves(*made(np.linspace(0, 0.1, 8), 0.01, rng)) for _ in range(50))


def test_gains_are_over_the_mean_placebo(arithmetic):
    shots = [{"gold": [[0.7, 0.6], [0.8, 0.9]], "placebo": [[0.5, 0.5], [0.6, 0.6]]}, {"gold": [[0.7, 0.7]] * 2}]
    shots.append({"gold": [[0.9, 0.9]] * 2, "placebo": [[0.7, 0.7], [0.6, 0.6]]})
    mean, parts = arithmetic.gains({"snapshots": shots})
    np.testing.assert_allclose(mean, [0.15, 0.1, 0.3])
    np.testing.assert_allclose(parts, [[0.0, 0.3], [0.1, 0.1], [0.3, 0.3]])


def test_intervals_are_those_of_the_percentile_bootstrap(arithmetic):
    values = np.random.default_rng(0).standard_normal(25)
    mean, low, high = arithmetic.bootstrap([*values, np.nan])
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=1).confidence_interval
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    assert arithmetic.shown([0.5, np.nan]) == "0.50"
    assert arithmetic.shown([np.nan]) == "-"


@pytest.mark.parametrize(
    ("truth", "verdict", "fits"),
    [
        ("data-bound", "data-bound", True),
        ("data-bound", "model-bound", False),
        ("at-ceiling", "ceiling-not-binding", True),
        ("", "plateau", True),
        ("", "collapsed", False),
    ],
)
def test_a_verdict_is_right_if_it_is_what_was_built_in(arithmetic, truth, verdict, fits):
    assert arithmetic.right(truth, verdict) is fits
    assert arithmetic.truth_of({"world": "no taste", "truth": truth}) == "data-bound"
    assert arithmetic.truth_of({"world": "no taste", "truth": "collapsed"}) == "collapsed"


GOLD, LOSS = [0.0, 0.02, 0.04, 0.06, 0.1, 0.08], [3.0, 2.0, 2.5, 1.0, 1.5, 1.8]
AIS = [0.0, 0.01, 0.02, 0.05, 0.04, 0.03]


def a_run(recipe, truth, verdict, gold, ais=AIS, stop_at=4):
    """A run of six snapshots whose two fits both say `gold` over a placebo of .6."""
    shots = [
        {
            "step": 10 * number,
            "curves": {"AIS": ais[number], "- val loss": -LOSS[number]},
            "gold": [[0.6 + gold[number]] * 2] * 2,
            "stop": number >= stop_at,
            "best": int(np.argmax(ais[: number + 1])),
            "verdict": verdict,
            "ceiling": 0.03,
            "above_z": 3.0 if ais[number] > 0.04 else 0.0,
            "headroom": 0.04,
        }
        for number in range(6)
    ]
    shots[0]["placebo"] = [[0.6, 0.6]] * 2
    cost = {"score": 0.5, "gold fit": 2.0, "scored events": 1000, "gold events": 2000}
    return {"world": "default", "recipe": recipe, "seed": 0, "snapshots": shots, "truth": truth, "cost": cost}


def test_tables_hold_what_runs_say(scripts, tmp_path):
    (tmp_path / "runs").mkdir()
    runs = [
        a_run("a", "", "plateau", GOLD),
        a_run("b", "", "collapsed", [value / 2 for value in GOLD]),
        a_run("c", "data-bound", "underpowered", [0.0] * 6, [0.0] * 6),
        a_run("d", "at-ceiling", "at-ceiling", [0.07] * 6),
    ]
    for run in runs:
        (tmp_path / "runs" / f"{run['recipe']}.json").write_text(json.dumps(run))
    scripts["tables"].write_tables(tmp_path)
    table = {path.stem: pl.read_csv(path, infer_schema=False) for path in tmp_path.glob("*.csv")}
    assert table["what_ran"].row(0) == ("default", "4", "2", "0.0750")
    # Ranks of gold 0 1 2 3 5 4, of AIS 0 1 2 5 4 3: differences 2, 1, 1, of which the squares are 6.
    assert table["within"]["Spearman, gold moves"][0] == f"{1 - 6 * 6 / (6 * 35):.2f}"
    assert table["within"]["Spearman, gold moves"][-1] == "1.00"
    assert table["across"].row(0) == (
        "AIS",
        "1",
        f"{stats.spearmanr([0.03, 0.03, 0, 0.03], [0.08, 0.04, 0, 0.07])[0]:.2f}",
    )
    assert table["selection"].rows()[0] == ("AIS", "0.40", "0 of 2")
    assert table["selection"].rows()[-1] == ("the last", "0.20", "0 of 2")
    assert table["stopping"].rows()[0] == ("lis_lightning.stopping", "0.40", "0.20", "0 of 2")
    assert table["stopping"].rows()[1] == ("val loss, patience 1", "0.80", "0.60", "0 of 2")
    said = {row["built in"]: row for row in table["verdicts"].to_dicts()}
    assert [said["(none of these)"][key] for key in ("runs", "right", "underpowered")] == ["2", "1", "0"]
    assert [said["data-bound"][key] for key in ("runs", "right", "underpowered")] == ["1", "0", "1"]
    assert said["at-ceiling"]["right"] == "1"
    assert table["ceilings"].row(0) == ("default", "12", "10 of 12", "0 of 2")
    assert table["cost"]["score / fit at equal events"][0].startswith("0.50")


def test_halves_of_gold_are_one_kind_of_ranker_each(arithmetic):
    din, dcn = np.array([[0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.3, 0.5]]), np.array([[0.4, 0.3, 0.2, 0.1]] * 2)
    fits = np.stack([din[0], dcn[0], din[1], dcn[1]])
    assert arithmetic.halves_agree(fits) == pytest.approx(stats.spearmanr(din.mean(0), dcn.mean(0))[0])
