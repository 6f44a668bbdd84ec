"""What Hydra refuses is reported in the words of the user's input."""

import os
import re
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException, MissingConfigException

from lis_lightning.cli import hydra_plugins, resource_dir
from lis_lightning.cli.hydra_command import check_arguments, describe_hydra_error
from lis_lightning.errors import ConfigError, LogError

GROUPS = {path.name for path in resource_dir("conf").iterdir() if path.is_dir()}


def refused(*overrides):
    """Return the message for a command line that does not compose."""
    hydra_plugins.register()
    with (
        pytest.raises(MissingConfigException) as caught,
        initialize_config_dir(str(resource_dir("conf")), version_base="1.3"),
    ):
        compose("align", overrides=list(overrides), return_hydra_config=True)
    return describe_hydra_error(caught.value)


@pytest.mark.parametrize("error", [NotADirectoryError(20, "Not a directory", "a/file"), LogError("no column")])
def test_the_cause_of_a_failed_instantiation_is_reported_alone(error):
    wrapped = InstantiationException("Error in call to target 'load_world'")
    wrapped.__cause__ = error
    assert describe_hydra_error(wrapped) == f"{type(error).__name__}: {error}"


def test_an_error_of_the_operating_system_without_a_file_keeps_its_traceback():
    assert describe_hydra_error(OSError("out of memory")) is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=vml", "no model 'vml'; there are dual, features, text, vision, vlm. Did you mean 'vlm'?"),
        ("trainer=defaultt", "no trainer 'defaultt'; there are default. Did you mean 'default'?"),
        ("objective=[pairs,bpx]", "no objective 'bpx'; there are attraction, bpr, "),
        ("sweep=racing", "no sweep 'racing'; there are joblib, optuna, race, submitit. Did you mean 'race'?"),
        ("hydra/launcher=jobli", "no hydra/launcher 'jobli'; there are basic, joblib, "),
    ],
)
def test_an_unknown_option_names_its_group_the_options_and_the_nearest(override, message):
    assert f"ConfigError: There is {message}" in refused(override)


def test_an_unknown_option_in_a_users_recipe_is_named_too(tmp_path, monkeypatch):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /data: worl\n")
    monkeypatch.setenv("LIS_RECIPES", str(tmp_path))
    assert "There is no data 'worl'; there are log, movielens, world. Did you mean 'world'?" in refused("recipe=mine")
    assert "Did you mean 'mine'?" in refused("recipe=mime")


def test_the_help_of_a_command_lists_the_groups_it_has():
    said = hydra_plugins.describe_groups("data", "lis")
    assert said == "  data: log, movielens, world\n  lis: default"
    for name, groups in (("audit", {"data", "lis"}), ("align", GROUPS - {"callbacks"})):
        template = (resource_dir("conf") / f"{name}.yaml").read_text()
        (listed,) = re.findall(r"\$\{lis_groups:(.+)\}", template)
        assert set(listed.split(",")) == groups
        assert "$APP_CONFIG_GROUPS" not in template


def test_a_users_folder_that_does_not_exist_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LIS_RECIPES", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="is not a folder"):
        hydra_plugins.user_folder()


@pytest.mark.parametrize("group", ["logger", "recipe", "objective", "debug"])
def test_a_group_set_to_null_is_refused(group):
    with pytest.raises(ConfigError, match=rf"There is no {group} 'null'; there are "):
        check_arguments([f"{group}=null"])


def test_an_argument_without_a_name_is_refused():
    with pytest.raises(ConfigError, match="'=3' has no name; write name=value, as in seed=3"):
        check_arguments(["=3"])
    check_arguments(["data.folder=x", "logger=none", "objectives.pairs=null", "model.output_dim=null", "-m", "lis.x="])


@pytest.mark.parametrize(
    ("option", "module", "package"),
    [
        ("joblib", "hydra_joblib_launcher", "hydra-joblib-launcher"),
        ("submitit", "hydra_submitit_launcher", "hydra-submitit-launcher"),
        ("optuna", "hydra_optuna_sweeper", "hydra-optuna-sweeper"),
    ],
)
def test_a_plugin_that_is_not_installed_is_named(option, module, package, tmp_path):
    code = f"import sys; sys.modules['hydra_plugins.{module}'] = None; from lis_lightning.cli.align import main; main()"
    command = [sys.executable, "-W", "ignore", "-c", code, f"sweep={option}"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{option} needs {package}; pip install 'lis-lightning[sweep]'." in done.stderr.replace("_slurm", "")
    assert "Traceback" not in done.stderr
