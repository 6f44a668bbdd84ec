"""Real trainings against a W&B server on the loopback: all arrives, or the training does not notice."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests._helpers import module_command, module_environment

pytestmark = pytest.mark.slow  # a process each, which imports Lightning and W&B, trains twice and waits for a server
STEPS = [0, 2, 4, 6]


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    """Runs wandb_fit.py once for each `how`."""
    done = {}

    def run(how):
        if how not in done:
            environment = {name: value for name, value in module_environment().items() if not name.startswith("WANDB_")}
            command = module_command("_helpers.wandb_fit", how, tmp_path_factory.mktemp(how))
            began = time.monotonic()
            ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
            assert ended.returncode == 0, ended.stderr[-3000:]
            done[how] = json.loads(ended.stdout.splitlines()[-1]) | {"seconds": time.monotonic() - began}
        return done[how]

    return run


def rows(said, key):
    return [row for row in said["rows"] if key in row]


@pytest.mark.parametrize("how", ["well", "resume", "500", "429"])
def test_every_snapshot_arrives_once_at_its_step(fit, how):
    said = fit(how)
    arrived = rows(said, "lis/ais")
    assert [row["trainer/global_step"] for row in arrived] == STEPS
    assert [row["lis/ais"] for row in arrived] == said["ais"]
    assert said["failures"] == said["warnings"] == said["closing"] == []
    assert said["finished"] == {"run": 0}
    if how.isdigit():
        assert said["refused"] == 12


@pytest.mark.parametrize("how", ["well", "resume", "500", "429"])
def test_summary_and_config_arrive(fit, how):
    said = fit(how)
    best = max(range(4), key=lambda index: said["ais"][index])
    assert said["summary"]["lis/best_ais"] == said["ais"][best]
    assert said["summary"]["lis/best_step"] == STEPS[best]
    assert isinstance(said["summary"]["lis/verdict"], str)
    assert {"lis/more/ceiling_pairs", "lis/more/ceiling_pairs_low", "lis/more/ceiling_ids_high"} <= set(said["summary"])
    assert {"lis", "rate"} <= set(said["config"])


@pytest.mark.parametrize("how", ["well", "resume", "500", "429"])
def test_tables_panel_and_artifact_arrive(fit, how):
    said = fit(how)
    (snapshots,) = (
        table for name, table in said["tables"].items() if "lis/snapshots" in name and len(table["data"]) == 4
    )  # a resumed run has logged one at its first end too
    step, ais = (snapshots["columns"].index(name) for name in ("step", "ais"))
    logged = [(row[step], row[ais]) for row in snapshots["data"]]
    assert logged == list(zip(STEPS, said["ais"], strict=True))
    assert any("lis/slices" in name for name in said["tables"])
    panels = [size for name, size in said["files"].items() if name.startswith("media/plotly/lis/curve")]
    assert len(panels) == 4
    assert max(panels) < 20_000
    ours = [made for made in said["artifacts"] if made["artifactTypeName"] == "representations"]
    assert {made["artifactCollectionName"] for made in ours} == {"lis-run"}
    best = max(range(4), key=lambda index: said["ais"][index])
    assert json.loads(ours[-1]["metadata"])["step"] == STEPS[best]
    assert any(name.endswith(f"step-{STEPS[best]:08d}.safetensors") for name in said["files"])
    assert said["committed"] == len(said["artifacts"])


def test_an_alert_arrives_where_the_verdict_asks_for_something(fit):
    assert fit("well")["alerts"] == ["lis: underpowered"]  # of the raw snapshot, and no other as it stays so


def test_a_resumed_run_does_not_alert_again(fit):
    assert fit("resume")["alerts"] == ["lis: underpowered"]


@pytest.mark.parametrize(
    ("how", "failure"),
    [
        ("hang", "WandbLogger raised TimeoutError: no answer within 3 s"),
        ("dead", "WandbLogger raised TimeoutError: no answer within 3 s"),
        ("killed", "WandbLogger raised ConnectionResetError"),
    ],
)
def test_a_training_outlives_wandb(fit, how, failure):
    said = fit(how)
    assert (said["step"], said["recorded"]) == (6, STEPS)
    assert len(said["failures"]) >= 1
    assert all(text.startswith(failure) for text in said["failures"])
    assert len(said["warnings"]) == 1  # loud, once
    assert said["end_seconds"] < 3 + 12  # the bound, and the last snapshot on a busy machine
    assert said["close_seconds"] < 3 + 3


@pytest.mark.parametrize("how", ["hang", "dead"])
def test_what_was_logged_before_the_server_went_has_arrived(fit, how):
    assert [row["trainer/global_step"] for row in rows(fit(how), "lis/ais")] == [0, 2]


@pytest.mark.parametrize("how", ["well", "resume", "500", "429", "hang", "dead", "killed"])
def test_the_weights_are_those_of_a_training_without_a_logger(fit, how):
    assert fit(how)["same_weights"]
