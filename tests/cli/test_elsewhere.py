"""Our configuration in the hands of others: a Hydra project with its own callbacks group, and a W&B agent."""

import importlib.util
import string
import subprocess
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from lis_lightning import LISEarlyStopping, LISMonitor
from lis_lightning.cli import resource_dir
from lis_lightning.cli.config_check import check_config
from lis_lightning.results.record import Record


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project laid out as lightning-hydra-template, that finds our folder on its search path: the recipe's."""
    path = resource_dir("recipes") / "hydra_template" / "template.py"
    spec = importlib.util.spec_from_file_location("template", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("project")
    module.write(folder)
    return folder


def composed(project, *overrides):
    with initialize_config_dir(str(project / "configs"), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def test_a_project_of_others_builds_our_callbacks_beside_its_own(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(project)
    train = importlib.import_module("src.train")
    callbacks = composed(project, "callbacks.lis_monitor.every_n_steps=7", "callbacks.last.dirpath=here").callbacks
    last, monitor, stopping = train.instantiate_callbacks(callbacks)
    assert type(last).__name__ == "ModelCheckpoint"
    assert isinstance(monitor, LISMonitor)
    assert isinstance(stopping, LISEarlyStopping)
    assert monitor.every_n_steps == 7
    assert len(monitor.split.item_ids) == 80


def test_what_only_the_project_knows_is_asked_for(project):
    with pytest.raises(MissingMandatoryValue, match=r"callbacks.lis_monitor.split.log"):
        OmegaConf.to_container(composed(project, "callbacks=[lis]").callbacks, throw_on_missing=True)


@pytest.mark.slow
def test_the_recipe_trains_and_its_score_rises(tmp_path):
    script = resource_dir("recipes") / "hydra_template" / "template.py"
    command = [sys.executable, str(script), "--out", str(tmp_path), "trainer.max_steps=20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    (record,) = tmp_path.rglob("record*.jsonl")
    first, last = Record.read(record)[1]
    assert (first.step, last.step) == (0, 20)
    assert last.ais > first.ais


def test_a_wandb_agent_starts_what_lis_align_understands():
    sweep = yaml.safe_load((resource_dir("recipes") / "wandb_sweep" / "sweep.yaml").read_text())
    drawn = {
        name: {"value": options.get("value", options.get("max", options.get("values", [None])[-1]))}
        for name, options in sweep["parameters"].items()
    }
    flags = create_sweep_command_args({"args": drawn})["args_no_hyphens"]
    given = {"env": [], "program": ["lis-align"], "args_no_hyphens": flags}
    command = [
        word
        for part in sweep["command"]
        for word in (given[part[2:-1]] if string.Template(part).get_identifiers() else [part])
    ]
    assert command == ["lis-align", "logger=wandb", "recipe=bpr", "training.learning_rate=0.02", "seed=0"]
    with initialize_config_dir(str(resource_dir("conf")), version_base="1.3"):
        config = compose("align", overrides=command[1:])
    check_config(config, "align")
    assert config.training.learning_rate == 0.02
    assert (sweep["metric"]["name"], sweep["metric"]["goal"]) == ("lis/best_ais", "maximize")
