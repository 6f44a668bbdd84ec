"""The dashboard: built offline, it names keys that a monitor logs; uploaded, the server gets what was built."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from lis_lightning.errors import ConfigError
from lis_lightning.tracking import wandb_run as _wandb
from lis_lightning.tracking.workspace import SLICES, build_workspace, save_workspace, workspace_command, workspace_json
from tests._helpers import module_environment
from tests._helpers.small_results import FROZEN_KEYS, MORE_KEYS, RESULTS

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")  # of wandb-workspaces 0.4

TABLES = {f"lis/{name}" for name in ("snapshots", "slices", "movers")}
LOGGED = (
    FROZEN_KEYS
    | MORE_KEYS
    | set(_wandb.summaries(RESULTS[-1], RESULTS[1], "lis"))
    | set(_wandb.corrected_summaries(RESULTS, "lis"))
    | {f"lis/more/slice/{name.replace(' ', '_')}{end}" for name in SLICES for end in ("", "_low", "_high")}
    | TABLES
    | {"lis/curve"}
    | {f"lis/worth/{key}" for key in ("pair_auc", "cka", "rankme", "train_loss")}
)


def strings(value):
    """Yield every string in a JSON value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def keys_of(built, prefix="lis"):
    """Return the logged keys that the panels name, without what says that a value is a summary."""
    found = (re.sub(r"^(summary_metrics\.|summary:)", "", text) for text in strings(json.loads(workspace_json(built))))
    return {text for text in found if text.startswith(f"{prefix}/")}


@pytest.fixture(scope="module")
def built():
    return build_workspace("team", "lis")


def test_the_sections_are_those_that_were_promised(built):
    assert [section.name for section in built.sections] == [
        "Curve", "Verdict", "Slices", "Sweep", "Metrics", "More, logged with log_more=True",
    ]  # fmt: skip
    assert all(section.panels for section in built.sections)


def test_every_key_of_a_panel_is_logged(built):
    assert keys_of(built) - LOGGED == set()


def test_the_first_panels_are_ais_with_its_band(built):
    first, second, *_ = built.sections[0].panels
    assert first.media_keys == ["lis/curve"]
    assert second.y == ["lis/ais", "lis/ais_low", "lis/ais_high"]


def test_every_logged_key_has_a_panel_those_of_the_default_in_an_open_section(built):
    assert (FROZEN_KEYS | MORE_KEYS) - keys_of(built) == {"lis/more/train_loss"}  # Lightning logs its own
    assert [section.is_open for section in built.sections] == [True] * 5 + [False]
    opened = json.dumps([panel._to_model().model_dump(mode="json") for s in built.sections[:5] for panel in s.panels])
    assert "lis/more/" not in opened.replace("lis/more/ceiling_pairs", "")


def test_the_worth_of_further_metrics_has_a_panel_if_they_are_named():
    built = build_workspace("team", "lis", watch=["val/recall"])
    assert keys_of(built) - LOGGED == {"lis/worth/val/recall"}

    assert keys_of(built) >= TABLES | {
        "lis/curve",
        "lis/best_headroom",
        "lis/best_ais",
        "lis/best_ais_corrected",
        "lis/best_step",
        "lis/best_realised",
    }


def test_the_slices_are_those_of_every_log(split):
    assert tuple(split.slices) == SLICES


def test_every_line_runs_over_the_training_step(built):
    lines = [panel for section in built.sections for panel in section.panels if type(panel).__name__ == "LinePlot"]
    assert len(lines) > 15
    assert {panel.x for panel in lines} == {"trainer/global_step"}


def test_the_json_is_read_by_wandbs_own_model(built):
    from wandb_workspaces.workspaces.internal import WorkspaceViewspec

    spec = WorkspaceViewspec.model_validate_json(workspace_json(built))
    assert [section.name for section in spec.section.panel_bank_config.sections][:2] == ["Curve", "Verdict"]
    assert spec.section.settings.x_axis == "trainer/global_step"
    assert spec.section.settings.max_runs == 20


def test_options_of_the_dashboard():
    built = build_workspace("team", "lis", prefix="lis/cold", num_runs=3, slices=["surface=home"], inputs=["a.b"])
    assert all(key.startswith("lis/cold/") for key in keys_of(built))
    assert {"lis/cold/more/slice/surface_home", "lis/cold/ais"} <= keys_of(built, "lis/cold")
    assert built.settings.max_runs == 3
    assert "config:a.value.b" in set(strings(json.loads(workspace_json(built))))


@pytest.mark.parametrize(
    ("entity", "project", "num_runs", "message"),
    [
        ("", "lis", 20, r"expected `entity` to be a name, got ''"),
        ("team", "  ", 20, r"expected `project` to be a name, got '  '"),
        ("team", "lis", 0, r"`num_runs` must be at least 1 run, got 0"),
    ],
)
def test_what_is_missing_is_said(entity, project, num_runs, message):
    with pytest.raises(ConfigError, match=message):
        build_workspace(entity, project, num_runs=num_runs)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ConfigError, match=r"needs wandb-workspaces: pip install 'lis-lightning\[dashboard\]'"):
        build_workspace("team", "lis")


def test_the_command_writes_a_file(tmp_path):
    said = workspace_command("team", "lis", tmp_path / "new" / "workspace.json")
    assert said == f"Workspace of team/lis: {tmp_path / 'new' / 'workspace.json'}"
    assert "section" in json.loads((tmp_path / "new" / "workspace.json").read_text())


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"cannot be written to {tmp_path}: "):
        workspace_command("team", "lis", tmp_path)


@pytest.mark.parametrize("entity", [None, ""])
def test_the_command_needs_an_entity(entity):
    with pytest.raises(ConfigError, match="expected `entity` to be a name, got ''"):
        workspace_command(entity, "lis")


@pytest.mark.parametrize(
    ("environment", "got"), [({}, "None"), ({"WANDB_MODE": "offline", "WANDB_API_KEY": "x" * 40}, "'offline'")]
)
def test_an_upload_needs_a_key_and_a_server(built, tmp_path, monkeypatch, environment, got):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=rf"run `wandb login` or set WANDB_API_KEY .*got WANDB_MODE={got}"):
        save_workspace(built)


UPLOAD = """
import json, os, sys
from tests._helpers.wandb_stub import Stub
from lis_lightning.errors import ConfigError
from lis_lightning.tracking.workspace import workspace_command
with Stub() as server:
    os.environ |= server.environment(sys.argv[1])
    server.errors.extend([int(status) for status in sys.argv[2:]])
    try:
        said = workspace_command("team", "lis")
    except ConfigError as error:
        said = f"ConfigError: {error}"
    print(json.dumps({"said": said, "views": server.operations("UpsertView2")}), flush=True)
    os._exit(0)  # not to wait for what W&B still has to say
"""


def upload(folder, *errors):
    environment = {name: value for name, value in module_environment().items() if not name.startswith("WANDB_")}
    command = [sys.executable, "-c", UPLOAD, str(folder), *errors]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow  # a process that imports W&B
def test_the_server_gets_what_was_built(tmp_path, built):
    said = upload(tmp_path)
    (view,) = said["views"]
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("team", "lis", "LIS")
    sent = " ".join(strings(json.loads(view["spec"])))
    assert all(key in sent for key in keys_of(built))
    assert re.match(r"Workspace: http://127\.0\.0\.1:\d+/team/lis\?nw=\w+$", said["said"])


@pytest.mark.slow  # a process that imports W&B
def test_a_refusal_of_the_server_is_said(tmp_path):
    said = upload(tmp_path, *["403"] * 20)
    assert said["said"].startswith("ConfigError: W&B refused the workspace of team/lis: ")
    assert said["views"] == []
