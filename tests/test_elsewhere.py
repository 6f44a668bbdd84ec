"""Our configuration in the hands of others: a Hydra project with its own callbacks group, and a W&B agent."""

import string

import polars as pl
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from lis_lightning import LISEarlyStopping, LISMonitor
from lis_lightning._config import check_config
from lis_lightning._resources import resource_dir


def instantiate_callbacks(config):
    """As lightning-hydra-template does in src/utils/instantiators.py."""
    return [instantiate(one) for one in config.values() if isinstance(one, DictConfig) and "_target_" in one]


@pytest.fixture
def project(tmp_path):
    """A project laid out as lightning-hydra-template, that finds our folder on its search path."""
    (tmp_path / "callbacks").mkdir()
    mine = {"rich": {"_target_": "pytorch_lightning.callbacks.RichProgressBar"}}
    (tmp_path / "callbacks" / "default.yaml").write_text(yaml.safe_dump(mine))
    train = {
        "defaults": ["_self_", {"callbacks": ["default", "lis"]}],
        "hydra": {"searchpath": [f"file://{resource_dir('conf')}"]},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(train))
    return tmp_path


def composed(project, *overrides):
    with initialize_config_dir(str(project), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def test_a_project_of_others_builds_our_callbacks_beside_its_own(project):
    rows = [(user, item, 40.0 * user + item, (user + item) % 2) for user in range(30) for item in range(20)]
    columns = ["user_id", "item_id", "timestamp", "label"]
    pl.DataFrame(rows, columns, orient="row").write_parquet(project / "log.parquet")
    monitored = "callbacks.lis_monitor"
    items = f"{monitored}.items=[{{item_id: 1}}]"
    config = composed(
        project, f"{monitored}.split.log={project / 'log.parquet'}", items, f"{monitored}.every_n_steps=7"
    )
    progress, monitor, stopping = instantiate_callbacks(config.callbacks)
    assert type(progress).__name__ == "RichProgressBar"
    assert isinstance(monitor, LISMonitor)
    assert isinstance(stopping, LISEarlyStopping)
    assert monitor.every_n_steps == 7
    assert len(monitor.split.item_ids) == 20


def test_what_only_the_project_knows_is_asked_for(project):
    with pytest.raises(MissingMandatoryValue, match=r"callbacks.lis_monitor.split.log"):
        OmegaConf.to_container(composed(project).callbacks, throw_on_missing=True)


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
