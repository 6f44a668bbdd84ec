"""A real W&B run, offline, read back from its file by W&B's own reader."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from pytorch_lightning.loggers import CSVLogger, WandbLogger

from lis_lightning.functional.intervals import Estimate
from lis_lightning.results.exchange_rate import exchange_rates
from lis_lightning.results.movers import Mover
from lis_lightning.results.selection import corrected_best
from lis_lightning.results.verdict import Judgement
from lis_lightning.tracking import loggers as tracking, wandb_run as _wandb
from lis_lightning.tracking.wandb_tables import MOVER_COLUMNS, SLICE_COLUMNS
from tests._helpers.small_results import CONSTANTS, FROZEN_KEYS, RESULTS, make_result
from tests._helpers.wandb_files import Run, quiet_home

BEST = RESULTS[1]


def judgement(verdict, stop=False, reason=""):
    message = f"about {verdict}"
    return Judgement(verdict=verdict, message=message, stop=stop, reason=reason, best=0, gain_z=0.0)


def mover(number, image=None):
    gain = Estimate(value=0.001 * number, se=0.001, low=-0.001, high=0.01)
    return Mover(item_id=number, title=f"item {number}", image=image, gain=gain, change=gain)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    place = tmp_path_factory.mktemp("wandb-home")
    with pytest.MonkeyPatch.context() as patch:
        quiet_home(patch, place)
        yield place


def train(folder, *ours):
    """Log a training's own metrics, on steps and with summary kinds of its own, and call `ours` in between."""
    logger = WandbLogger(project="lis", save_dir=folder, mode=_wandb.wandb_mode(), name="a run")
    run = logger.experiment
    run.define_metric("their/clock")
    run.define_metric("their/*", step_metric="their/clock")
    run.define_metric("their/accuracy", step_metric="their/clock", summary="max")
    run.config.update({"rate": 0.1, "split": "theirs"})
    run.summary["their/note"] = "kept"
    before, each, after = ours or [lambda *_: None] * 3
    before(logger)
    for number, accuracy in enumerate((0.3, 0.9, 0.5)):
        logger.log_metrics({"train/loss": 1.0 / (1 + number)}, step=20 * number)
        run.log({"their/clock": 7 * number, "their/accuracy": accuracy})
        each(logger, number)
    logger.log_metrics({"train/loss": 0.01}, step=41)
    after(logger)
    run.finish()
    return Run(folder)


@pytest.fixture(scope="module")
def alone(home, tmp_path_factory):
    """The training without us."""
    return train(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    place = tmp_path_factory.mktemp("snapshots") / "step-00000020.safetensors"
    place.write_bytes(b"representations")
    return place


@pytest.fixture(scope="module")
def run(home, file, tmp_path_factory):
    """The same training with three snapshots of ours; returns what W&B's file says."""
    failures = []

    def start(logger):
        failures.extend(tracking.start([logger], {"users": 3, "windows": [0.5, 0.25, 0.25]}))

    def each(logger, number):
        best = RESULTS[min(1, number)]
        failures.extend(tracking.log_result([logger], RESULTS[: number + 1], best))

    def end(logger):
        options = {"previous": "improving", "step": 40, "stopped": False}
        failures.extend(tracking.log_alert([logger], judgement("plateau"), **options))
        failures.extend(tracking.log_movers([logger], [mover(number) for number in range(50)], num=2))
        failures.extend(tracking.log_failures([logger], 3, 1, "OSError: gone"))
        failures.extend(tracking.finish([logger], RESULTS, BEST, file))
        hints.append((tracking.sync_hint([logger]), logger.experiment.settings.sync_dir))

    hints = []
    made = train(tmp_path_factory.mktemp("run"), start, each, end)
    assert failures == []
    made.hint, made.sync_dir = hints[0]
    return made


# --- curves and summaries --------------------------------------------------------------------------------------------


def test_six_keys_stand_at_the_snapshots_own_steps(run):
    rows = run.rows("lis/ais")
    assert [row["trainer/global_step"] for row in rows] == [0, 20, 40]
    for row, result in zip(rows, RESULTS, strict=True):
        assert {key for key in row if key.startswith("lis/")} == FROZEN_KEYS
        assert (row["lis/ais"], row["lis/best_ais"]) == (result.ais, result.best_ais)
    assert rows[0]["lis/realised"] == "NaN"


def test_constants_stand_in_the_summary_only(run):
    logged = {key for row in run.history for key in row}
    assert {key for key in run.summary if key.startswith("lis/more/")} == CONSTANTS
    assert logged.isdisjoint(CONSTANTS | {"lis/verdict"})
    ceiling = [run.summary[f"lis/more/ceiling_pairs{end}"] for end in ("", "_low", "_high")]
    assert ceiling == [0.02, 0.01, 0.03]


def test_a_panel_stands_at_the_step_of_its_snapshot(run):
    assert [row["trainer/global_step"] for row in run.rows("lis/curve")] == [0, 20, 40]


def test_our_curves_are_drawn_over_the_training_step(run):
    ours = [metric for metric in run.of("metric") if metric.get("glob_name") == "lis/*"]
    assert [metric["step_metric"] for metric in ours] == ["trainer/global_step"]
    assert "summary" not in ours[0]


def test_the_summary_says_verdict_best_last_and_ceilings(run):
    said = {key: value for key, value in run.summary.items() if key.startswith("lis/")}
    assert (said["lis/verdict"], said["lis/message"]) == ("plateau", "about plateau")
    assert (said["lis/best_step"], said["lis/best_ais"], said["lis/ais"]) == (20, 0.006, 0.004)
    assert said["lis/best_realised"] == pytest.approx(0.3)
    assert said["lis/realised"] == pytest.approx(0.2)


def test_the_summary_counts_the_snapshots_that_failed(run):
    assert (run.summary["lis/failures"], run.summary["lis/last_error"]) == ("3 of 4 snapshots scored", "OSError: gone")


def test_the_config_describes_the_split(run):
    assert run.config["lis"] == {"users": 3, "windows": [0.5, 0.25, 0.25]}


# --- panel and tables ------------------------------------------------------------------------------------------------


def test_the_panel_follows_the_run_and_marks_the_best(run):
    panels = run.media("lis/curve")
    assert [row["lis/curve._type"] for row in run.rows("lis/curve")] == ["plotly-file"] * 3
    drawn = [{trace["name"]: trace for trace in panel["data"]} for panel in panels]
    assert [traces["AIS"]["x"] for traces in drawn] == [[0], [0, 20], [0, 20, 40]]
    assert drawn[-1]["best: step 20"]["y"] == [0.006]
    assert drawn[-1]["AIS, 95 %"]["y"] == pytest.approx([0.003, 0.007, 0.005, 0.003, 0.005, 0.001])
    assert drawn[-1]["LIS of pairs, 95 %"]["y"] == [0.03, 0.03, 0.01, 0.01]


def test_the_snapshots_are_a_table(run):
    table = run.table("lis/snapshots")
    assert set(table[0]) == {"step", "verdict", "message", *RESULTS[0].numbers()}
    assert [(row["step"], row["ais"], row["verdict"]) for row in table] == [
        (0, 0.002, "warming-up"), (20, 0.006, "improving"), (40, 0.004, "plateau"),
    ]  # fmt: skip


def test_the_slices_of_the_best_and_the_last_snapshot_are_a_table(run):
    table = run.table("lis/slices")
    assert tuple(table[0]) == SLICE_COLUMNS
    assert [(row["snapshot"], row["step"], row["slice"], row["events"]) for row in table] == [
        ("best", 20, "head items", 80), ("best", 20, "new users", 2),
        ("last", 40, "head items", 80), ("last", 40, "new users", 2),
    ]  # fmt: skip
    assert [row["ais"] for row in table] == [0.006, None, 0.004, None]
    assert (table[0]["ais_low"], table[0]["ais_high"]) == pytest.approx((0.004, 0.008))


def test_the_files_are_json_that_a_browser_can_read(run):
    files = [path for path in run.file.parent.rglob("*.json") if "media" in path.parts]
    assert len(files) == 6

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    for path in files:
        json.loads(path.read_text(), parse_constant=refuse)


def test_of_too_many_movers_both_ends_are_a_table(run):
    table = run.table("lis/movers")
    assert tuple(table[0]) == MOVER_COLUMNS
    assert [row["item"] for row in table] == ["0", "1", "48", "49"]


# --- what belongs to others ------------------------------------------------------------------------------------------


def theirs(values):
    return {key: value for key, value in values.items() if not key.startswith(("lis", "_"))}


def test_their_rows_are_what_they_are_without_us(run, alone):
    assert [theirs(row) for row in run.history if not any(key.startswith("lis/") for key in row)] == [
        theirs(row) for row in alone.history
    ]


def test_our_rows_hold_nothing_but_ours_and_the_step(run):
    ours = [row for row in run.history if any(key.startswith("lis/") for key in row)]
    assert {key for row in ours for key in theirs(row)} == {"trainer/global_step"}


def test_their_summaries_are_what_they_are_without_us(run, alone):
    assert alone.summary["their/accuracy"] == {"max": 0.9}  # the kind they asked for
    assert alone.summary["their/note"] == "kept"
    assert theirs(run.summary) == theirs(alone.summary)


def test_their_config_and_metrics_are_what_they_are_without_us(run, alone):
    assert theirs(run.config) == theirs(alone.config)
    assert alone.config["split"] == "theirs"
    ours = [metric for metric in run.of("metric") if metric.get("glob_name", "").startswith("lis")]
    assert [metric for metric in run.of("metric") if metric not in ours] == alone.of("metric")
    assert len(ours) == 1


def test_a_named_monitor_keeps_to_its_own_keys(home, tmp_path):
    logger = WandbLogger(project="lis", save_dir=tmp_path, mode="offline")
    assert tracking.start([logger], {"users": 1}, prefix="lis/cold") == []
    assert tracking.log_result([logger], RESULTS, BEST, prefix="lis/cold") == []
    assert tracking.finish([logger], RESULTS, BEST, prefix="lis/cold") == []
    logger.experiment.finish()
    made = Run(tmp_path)
    ours = {key for row in made.history for key in row if key.startswith("lis/")}
    assert ours >= {"lis/cold/ais", "lis/cold/curve._type", "lis/cold/snapshots._type"}
    assert all(key.startswith("lis/cold/") for key in ours)


# --- alerts ----------------------------------------------------------------------------------------------------------


def test_an_alert_is_kept_offline(run):
    (alert,) = run.of("alert")
    assert (alert["title"], alert["text"], alert["level"]) == ("lis: plateau", "Step 40: about plateau", "INFO")


@pytest.mark.parametrize(
    ("before", "after", "stopped", "title", "level"),
    [
        ("", "warming-up", False, None, None),
        ("warming-up", "improving", False, None, None),
        ("plateau", "improving", False, None, None),
        ("plateau", "plateau", False, None, None),
        ("", "data-bound", False, "lis: data-bound", "WARN"),
        ("improving", "plateau", False, "lis: plateau", "INFO"),
        ("plateau", "overfitting", False, "lis: overfitting", "WARN"),
        ("plateau", "plateau", True, "lis: stopping, plateau", "INFO"),
        ("improving", "overfitting", True, "lis: stopping, overfitting", "WARN"),
    ],
)
def test_news_is_a_verdict_to_act_on_or_a_stop(before, after, stopped, title, level):
    alert = _wandb.new_alert(before, judgement(after, reason="flat"), step=40, stopped=stopped, prefix="lis")
    if title is None:
        assert alert is None
    else:
        why = " Stopping: flat." if stopped else ""
        assert dataclasses.astuple(alert) == (title, f"Step 40: about {after}{why}", level)


def test_a_title_is_no_longer_than_wandb_takes():
    alert = _wandb.new_alert("", judgement("data-bound"), step=0, stopped=False, prefix=f"lis/{'x' * 80}")
    assert len(alert.title) == 63


# --- the best snapshot as an artifact --------------------------------------------------------------------------------


def test_the_best_snapshot_is_an_artifact(run, file, home):
    (artifact,) = [record for record in run.of("artifact") if record["type"] == "representations"]
    assert artifact["name"].startswith("lis-")
    assert set(artifact["aliases"]) == {"best", "latest"}
    about = {"step": 20, "ais": 0.006, "ais_low": 0.005, "ais_high": 0.007, "split_hash": "abc"}
    assert json.loads(artifact["metadata"]) == about
    (entry,) = artifact["manifest"]["contents"]
    assert entry["path"] == "step-00000020.safetensors"
    assert Path(entry["local_path"]).read_bytes() == file.read_bytes()
    assert base64.b64decode(entry["digest"]) == hashlib.md5(file.read_bytes()).digest()


@pytest.mark.parametrize(
    ("environment", "netrc", "expected"),
    [
        pytest.param({}, "", "offline", id="nothing-configured"),
        pytest.param({"WANDB_API_KEY": "x" * 40}, "", None, id="key-in-the-environment"),
        pytest.param({"WANDB_MODE": "disabled"}, "", None, id="mode-is-respected"),
        pytest.param({}, "machine api.wandb.ai login user password secret", None, id="netrc"),
        pytest.param({}, "machine example.com login user password secret", "offline", id="netrc-of-others"),
        pytest.param({}, "machine", "offline", id="netrc-damaged"),
        pytest.param(
            {"WANDB_BASE_URL": "https://wandb.example.com:8443"}, "machine wandb.example.com login a password b", None,
            id="own-server",
        ),
    ],
)  # fmt: skip
def test_wandb_mode(tmp_path, monkeypatch, environment, netrc, expected):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "netrc").write_text(netrc)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert _wandb.wandb_mode() == expected


def test_the_hint_names_the_folder_to_sync(run, tmp_path):
    assert run.hint == f"W&B is offline; upload this run with `wandb sync {run.sync_dir}`."
    assert run.file.parent == Path(run.sync_dir)
    assert tracking.sync_hint([CSVLogger(tmp_path)]) is None


def test_the_summary_holds_the_best_ais_corrected_for_having_been_picked():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20, 200)) * 2e-4
    results = [
        make_result(step, 0.01 + row.sum(), "plateau", influence=row - row.mean()) for step, row in enumerate(rows)
    ]
    values = _wandb.corrected_summaries(results, "lis")
    best = corrected_best(results)
    assert values["lis/best_ais_corrected"] == best.value < max(result.ais for result in results)
    assert (values["lis/best_ais_corrected_low"], values["lis/best_ais_corrected_high"]) == (best.low, best.high)


def test_the_summary_holds_what_one_percent_more_of_a_watched_metric_was_worth():
    rng = np.random.default_rng(0)
    noise = 1e-7 * rng.standard_normal((8, 50))
    results = [
        make_result(10 * index, 0.01 + 0.001 * min(index, 4), "improving", influence=noise[index],
                    watched={"val/recall": 0.1 * 1.1**index})
        for index in range(8)
    ]  # fmt: skip
    values = _wandb.worth_summaries(results, "lis")
    (rate,) = [found for found in exchange_rates(results) if not found.reason]  # the companions do not move
    assert values == {
        "lis/worth/val/recall": rate.rate.value,
        "lis/worth/val/recall_low": rate.rate.low,
        "lis/worth/val/recall_high": rate.rate.high,
        "lis/worth/val/recall_broke_at": 40,
    }
