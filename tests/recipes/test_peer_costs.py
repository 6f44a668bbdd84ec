"""What costs.py computes, refuses and leaves out; peers themselves run in environments of their own."""

import csv
import importlib
import json
import sys

import numpy as np
import polars as pl
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.align.world import simulate_world
from lis_lightning.cli import resource_dir
from lis_lightning.errors import ConfigError

SCRIPTS = ("costs", "cost_tables", "contender", "prepare", "neural_rankers", "worlds", "arithmetic")
TINY = {"num_users": 200, "num_items": 60, "num_events": 5000}


@pytest.fixture(scope="module")
def scripts():
    before, known = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(resource_dir("recipes") / name) for name in ("peer_costs", "evidence")]
    yield {name: importlib.import_module(name) for name in SCRIPTS}
    sys.path[:] = before
    for name in set(SCRIPTS) - known:
        sys.modules.pop(name)


@pytest.fixture
def tables(scripts):
    return scripts["cost_tables"]


@pytest.fixture
def gold(tables):
    """Five snapshots, each better than the one before to two of three fits, and to the third the other way round."""
    rising = np.array([0.60, 0.62, 0.64, 0.66, 0.68])
    return tables.Gold(np.stack([rising, rising, 2 * rising[2] - rising], axis=1), moves=True)


def test_what_is_paid_once_is_no_part_of_a_snapshot(tables):
    one = tables.Answer("r", "LIS", (0.1,) * 4, seconds=(5.0, 1.0, 3.0, 2.0), one_off=0.5)
    assert one.typical == 2.0
    assert one.once == 0.5 + 3.0
    assert tables.Answer("r", "LIS", (0.1,) * 3, seconds=(1.0, 2.0, 2.0)).once == 0.0


def test_agreement_is_by_rank_with_the_mean_of_fits_and_of_a_fit_with_the_others(tables, gold):
    assert gold.agrees([1, 2, 3, 4, 50]) == pytest.approx(1)
    assert gold.agrees([5, 4, 3, 2, 1]) == pytest.approx(-1)
    # The rising fits each against the flat mean of a rising and a falling one: 0; the third against both: -1.
    assert gold.one_fit() == pytest.approx(-1 / 3)


def test_gold_moves_where_fits_agree_on_a_range(tables):
    steps, noise = np.arange(6) / 100, np.random.default_rng(0).normal(0, 1e-4, (6, 6))
    auc = 0.6 + steps[:, None] + noise
    assert tables.Gold.of(np.stack([auc, auc], axis=-1)).moves
    flat = 0.6 + noise
    still = tables.Gold.of(np.stack([flat, flat], axis=-1))
    assert not still.moves
    assert still.fits == pytest.approx(flat)


def test_a_row_holds_medians_the_most_memory_and_mean_agreement(tables, gold):
    answers = [
        tables.Answer("a", "LIS", (1, 2, 3, 4, 5), (1.0,) * 5, 0.5, 10.0),
        tables.Answer("b", "LIS", (5, 4, 3, 2, 1), (3.0,) * 5, 1.5, 30.0),
        tables.Answer("c", "LIS", error="ended with code 1: no"),
        tables.Answer("a", "RankMe", error="ended with code 1: no"),
        tables.Answer("a", "(nothing)", (0,) * 5, (0.1,) * 5),
    ]
    still = tables.Gold(gold.fits, moves=False)
    told = tables.costs(answers, {"a": gold, "b": still, "c": gold}).splitlines()
    assert told[2] == "| LIS | 2.00 | 1.00 | 30 | 0.00 | 1.00 | 2; ended with code 1: no |"
    assert told[3] == "| RankMe | failed: ended with code 1: no | - | - | - | - | - |"
    assert told[4] == "| (nothing) | 0.10 | 0.00 | 0 | - | - | 1 |"
    assert told[5].startswith("| (one fit of gold, with the others) | - | - | - | -0.33 [-0.33, -0.33] | -0.33 |")


def test_a_score_is_compared_with_fits_of_its_own_run(tables):
    name = "LIS, a ranker's events"
    answers = [
        tables.Answer(run, who, (0,) * 3, (0.0, seconds, seconds))
        for run, who, seconds in (("a", name, 1.0), ("a", "gold DIN", 4.0), ("b", name, 3.0), ("b", "gold DIN", 4.0))
    ]
    answers.append(tables.Answer("b", "FuxiCTR DIN", error="no such module"))
    assert tables.ratios(answers).splitlines()[2:] == ["| gold DIN | 0.50 | 0.25 to 0.75 | 2 |"]
    assert tables.ratios([one for one in answers if one.contender == name]) == ""


def test_every_contender_has_a_row_of_features_but_a_run_without_evaluator(scripts, tables):
    costs = scripts["costs"]
    everyone = [*costs.OURS, *costs.FUXICTR, *costs.PRETRAINING]
    assert [name for name in everyone if name not in tables.NEEDS] == ["(10 epochs, no evaluator)"]
    assert tables.features(everyone).count("\n") == 2 + len(tables.NEEDS)


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ((), r"no finished run of recipes/evidence: it has no snapshots.npz, gold.json, record.jsonl\. Give folders"),
        (("snapshots.npz", "record.jsonl"), "it has no gold.json"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused(scripts, tmp_path, monkeypatch, files, match):
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "argv", ["costs.py", "--runs", str(tmp_path)])
    with pytest.raises(SystemExit, match=match):
        scripts["costs"].main()


def test_a_run_given_twice_is_refused(scripts, tmp_path):
    for name in scripts["costs"].FILES:
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match="each run once"):
        scripts["costs"].checked([tmp_path, tmp_path])


def test_a_folder_with_a_name_of_no_world_is_refused(scripts, tmp_path):
    assert scripts["prepare"].world_of(tmp_path / "sparse_cold--few_pairs--2") == ("sparse, cold", 2)
    for name in ("default", "elsewhere--infonce--0", "default--infonce--first"):
        with pytest.raises(ConfigError, match=f"KIND--RECIPE--SEED.* got {name}"):
            scripts["prepare"].world_of(tmp_path / name)


def test_a_ranker_of_the_scored_half_has_its_users_and_windows_as_gold_has(scripts):
    halves = scripts["worlds"].Halves.read("default", 0, TINY)
    scored, gold, ranked = halves.to_score(), halves.to_rank(), halves.to_rank(half=0)
    assert set(ranked.user_ids) >= set(scored.user_ids)
    assert not set(ranked.user_ids) & set(gold.user_ids)
    assert ranked.settings["windows"] == gold.settings["windows"]
    assert len(ranked.events) > len(scored.events)


def test_a_class_is_a_quarter_of_the_click_rates_before_the_score(scripts):
    log, _ = simulate_world(num_users=60, num_items=40, num_events=3000)
    split = PreferenceSplit.from_log(log, label="clicked")
    bins = scripts["prepare"].click_bins(split)
    rates = dict(split.alignment.group_by("item_id").agg(pl.col("label").mean()).rows())
    assert [item in rates for item in split.item_ids.tolist()] == (bins >= 0).tolist()
    assert np.ptp(np.bincount(bins[bins >= 0], minlength=4)) <= 1
    mean = [np.mean([rates[split.item_ids[at]] for at in np.flatnonzero(bins == one)]) for one in range(4)]
    assert mean == sorted(mean)


def test_a_contender_answers_for_every_run_and_a_failure_keeps_what_came_before(scripts, tmp_path, monkeypatch):
    folders = {name: tmp_path / name for name in ("a", "b")}
    for folder in folders.values():
        folder.mkdir()
    side = tmp_path / "side.py"
    side.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(resource_dir('recipes') / 'peer_costs')!r})\n"
        "from contender import serve\n"
        "def load(what, folder):\n"
        "    if folder.name == what:\n"
        "        raise ValueError('no such snapshots')\n"
        "    return float, [1.5, 2.5], 0.25\n"
        "serve(load)\n"
    )
    costs = scripts["costs"]
    good, bad = costs.ask("LIS", (sys.executable, str(side), "b"), folders)
    assert (good.run, good.values, good.one_off, good.error) == ("a", [1.5, 2.5], 0.25, "")
    assert len(good.seconds) == 2
    assert good.memory >= 0
    assert (bad.run, bad.error) == ("b", "ended with code 1: ValueError: no such snapshots")


def test_a_csv_row_is_kept_of_every_run_and_contender(scripts, gold, tables, tmp_path):
    answers = [tables.Answer("a", "LIS", (1, 2, 3, 4, 5), (1.0,) * 5), tables.Answer("a", "RankMe", error="no")]
    text = scripts["costs"].write(answers, {"a": gold}, tmp_path)
    assert text == (tmp_path / "tables.md").read_text()
    assert "a score beside a fit" not in text  # no ranker was asked
    with (tmp_path / "costs.csv").open() as file:
        lis, rankme = csv.DictReader(file)
    assert (lis["snapshots"], lis["seconds"], float(lis["spearman"])) == ("5", "1.0", pytest.approx(1))
    assert (rankme["seconds"], rankme["error"]) == ("", "no")


def test_gold_is_read_of_the_file_that_the_study_writes(tables, tmp_path):
    found = [[[0.6 + 0.01 * at, 0.5], [0.61, 0.5]] for at in range(5)]
    (tmp_path / "gold.json").write_text(json.dumps({"gold": found, "placebo": []}))
    read = tables.Gold.of(json.loads((tmp_path / "gold.json").read_text())["gold"])
    assert read.fits[3].tolist() == pytest.approx([0.63, 0.61])


def test_a_stack_of_rankers_is_each_of_them_alone(scripts):
    world = scripts["worlds"].study("default", 0, TINY)
    data = scripts["neural_rankers"].Data(world.gold)
    rows = [np.random.default_rng(seed).standard_normal((world.gold.num_items, 4)) for seed in range(3)]
    for kind in scripts["neural_rankers"].RANKERS:
        stacked = scripts["neural_rankers"].fit(data, rows, kind, 0)
        alone = scripts["neural_rankers"].fit(data, rows[1:2], kind, 0)[0]
        np.testing.assert_allclose(stacked[1], alone, atol=1e-3)
        assert np.abs(stacked[1] - stacked[0]).max() > 0.05
