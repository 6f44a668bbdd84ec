import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from lis_lightning.errors import ConfigError
from lis_lightning.functional.intervals import cluster_interval
from lis_lightning.results.leaderboard import Runs, conclusion, rank_recipes, render_standings, standings_frame
from lis_lightning.results.snapshot import Snapshot

USERS = np.random.default_rng(0).standard_normal(200) * 1e-4
USERS -= USERS.mean()


def result(ais, *, noise=0.0, seed=1, split="s", realised=0.5, **fields):
    influence = USERS + noise * np.random.default_rng(seed).standard_normal(200) * 1e-4
    se = np.sqrt(200 / 199 * influence @ influence)
    return Snapshot(
        ais=ais, ais_low=ais - 2 * se, ais_high=ais + 2 * se, ais_geometry=0.0, auc_base=0.7, auc=0.7 + ais, step=10,
        verdict="plateau", split_hash=split, influence=influence, realised=realised, **fields,
    )  # fmt: skip


def test_places_are_ranked_and_paired():
    runs = {
        "b": Runs(best=[result(0.010, noise=0.5, seed=2)], seconds=5.0),
        "a": Runs(best=[result(0.020)], seconds=3.0),
        "broken": Runs(best=[], failed=2),
    }
    standings = rank_recipes(runs)
    assert [standing.recipe for standing in standings] == ["a", "b", "broken"]
    assert math.isnan(standings[0].p)
    assert math.isnan(standings[0].behind.value)
    paired = runs["a"].best[0].compare(runs["b"].best[0])
    assert standings[1].behind.value == pytest.approx(paired.value)
    assert standings[1].behind.se == pytest.approx(paired.se)
    influence = runs["a"].best[0].influence - runs["b"].best[0].influence
    assert standings[1].p == pytest.approx(cluster_interval(paired.value, influence).p)
    assert (standings[2].verdict, standings[2].failed, standings[2].tied) == ("failed", 2, False)
    assert conclusion(standings) == "a leads with AIS +0.0200, clearly before all others."


def test_equals_cannot_be_told_apart_and_seeds_widen():
    rng = np.random.default_rng(3)
    runs = {
        name: Runs(best=[result(0.02 + x, noise=0.3, seed=i) for i, x in enumerate(rng.normal(0, 0.001, 3))])
        for name in ("a", "b", "c")
    }
    runs["far"] = Runs(best=[result(0.001), result(0.0012)])
    standings = rank_recipes(runs)
    assert [standing.tied for standing in standings[1:]] == [True, True, False]
    assert conclusion(standings).endswith("cannot be told apart; the others are behind.")
    assert conclusion(standings[:3]).endswith("cannot be told apart.")
    gains = [snapshot.ais for snapshot in runs["a"].best]
    mean_influence = np.mean([snapshot.influence for snapshot in runs["a"].best], axis=0)
    expected = np.sqrt(200 / 199 * mean_influence @ mean_influence + np.var(gains, ddof=1) / 3)
    assert next(standing for standing in standings if standing.recipe == "a").ais.se == pytest.approx(expected)


def test_correction_counts_every_pair():
    runs = {str(i): Runs(best=[result(0.02 - 0.0001 * i, noise=1.0, seed=i)]) for i in range(5)}
    standings = rank_recipes(runs)
    first = runs["0"].best[0].influence
    others = {standing.recipe: runs[standing.recipe].best[0].influence for standing in standings[1:]}
    raw = [cluster_interval(s.behind.value, first - others[s.recipe]).p for s in standings[1:]]
    assert min(standing.p for standing in standings[1:]) == pytest.approx(min(1.0, 10 * min(raw)))


def test_false_alarms_are_rare_among_equals():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        runs = {}
        for name in "abcde":
            influence = rng.standard_normal(100) * 1e-3
            template = result(0.0)
            shown = influence.sum()  # what such users would show
            runs[name] = Runs(best=[Snapshot(**{**vars(template), "ais": shown, "influence": influence})])
        alarms += any(standing.p < 0.05 for standing in rank_recipes(runs)[1:])
    assert alarms <= 0.08 * 300


def test_nothing_above_zero_and_nothing_at_all():
    assert conclusion(rank_recipes({"a": Runs(best=[result(0.0)])})).startswith("No recipe is clearly above 0; a is")
    assert conclusion(rank_recipes({"a": Runs(best=[], failed=1)})) == "Every run failed: there is nothing to compare."


def test_runs_on_two_splits_are_refused():
    with pytest.raises(ConfigError, match=r"scored on 2 different splits \(s, t\)"):
        rank_recipes({"a": Runs(best=[result(0.1)]), "b": Runs(best=[result(0.1, split="t")])})


def test_the_table_has_a_row_a_recipe():
    table = standings_frame(rank_recipes({"a": Runs(best=[result(0.02)], seconds=3.0), "b": Runs(best=[], failed=1)}))
    assert table["recipe"].to_list() == ["a", "b"]
    assert table["ais"][0] == 0.02
    assert table["verdict"].to_list() == ["plateau", "failed"]


def test_the_interval_of_a_recipe_with_few_seeds_has_the_t_quantile_of_their_number():
    far_apart = {"a": Runs(best=[result(0.010), result(0.030), result(0.050)])}
    ais = rank_recipes(far_apart)[0].ais
    assert ais.se == pytest.approx(0.02 / np.sqrt(3), rel=0.02)  # the users add next to nothing
    assert (ais.high - ais.value) / ais.se == pytest.approx(t.ppf(0.975, 2), rel=0.05)
    single = rank_recipes({"a": Runs(best=[result(0.010)])})[0].ais
    assert (single.high - single.value) / single.se == pytest.approx(1.98, abs=0.02)


def test_equal_recipes_of_few_seeds_are_covered():
    rng = np.random.default_rng(5)
    inside = []
    for _ in range(400):
        gains = 0.02 + rng.normal(0, 0.01, 3)
        ais = rank_recipes({"a": Runs(best=[result(gain) for gain in gains])})[0].ais
        inside.append(ais.low <= 0.02 <= ais.high)
    assert 0.91 <= np.mean(inside) <= 0.98  # the normal quantile: .82


def test_the_leader_of_equals_is_corrected_for_having_been_picked():
    rng = np.random.default_rng(1)
    raw, corrected = [], []
    for _ in range(60):
        runs = {}
        for name in range(12):
            noise = rng.standard_normal(200) * 2e-4
            snapshot = replace(result(0.02 + noise.sum()), influence=noise - noise.mean())
            runs[str(name)] = Runs(best=[snapshot], corrected=[snapshot.ais])
        leader = rank_recipes(runs)[0]
        raw.append(leader.ais.value - 0.02)
        corrected.append(leader.corrected.value - 0.02)
    assert np.mean(raw) > 0.003
    assert abs(np.mean(corrected)) < 0.0008


def test_the_corrections_of_the_runs_are_averaged_and_only_the_leader_is_shifted_further():
    runs = {
        "a": Runs(best=[result(0.020), result(0.021)], corrected=[0.019, 0.020]),
        "b": Runs(best=[result(0.010, noise=0.5, seed=2)], corrected=[0.0095]),
        "c": Runs(best=[result(0.005)]),
    }
    first, second, third = rank_recipes(runs)
    assert second.corrected.value == pytest.approx(0.0095)
    assert second.corrected.high - second.corrected.low == pytest.approx(second.ais.high - second.ais.low)
    assert first.corrected.value <= 0.0195 + 1e-12
    assert math.isnan(third.corrected.value)


def test_what_a_model_started_from_is_told_apart_from_what_training_added():
    rng = np.random.default_rng(0)
    shared, own = 1e-3 * rng.standard_normal(60), 1e-4 * rng.standard_normal(60)
    start, best = replace(result(0.010), influence=shared), replace(result(0.013), influence=shared + own)
    standing = rank_recipes({"mine": Runs(best=[best], start=[start])})[0]
    assert standing.start.value == 0.010
    assert standing.trained.value == pytest.approx(0.003)
    assert standing.trained.se < standing.start.se / 5  # paired by user
    assert "start: AIS before training" in render_standings([standing])
    frame = standings_frame([standing])
    assert frame["trained_low"][0] < 0.003 < frame["trained_high"][0]


def test_without_the_start_of_every_run_there_is_none():
    standing = rank_recipes({"mine": Runs(best=[result(0.01)] * 2, start=[result(0.01)])})[0]
    assert math.isnan(standing.start.value)
    assert math.isnan(standing.trained.value)
    assert "start: AIS" not in render_standings([standing])
