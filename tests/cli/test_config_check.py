"""Unknown settings are refused, on the command line and in a user's own files."""

import os
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException

from lis_lightning.align.objectives import PairContrastive
from lis_lightning.cli import hydra_plugins, resource_dir
from lis_lightning.cli.config_check import check_config, unknown_key
from lis_lightning.errors import ConfigError

CONF = resource_dir("conf")
GROUPS = sorted(path for path in CONF.rglob("*.yaml") if path.parent != CONF and path.parent.name != "callbacks")


def composed(*overrides, name="align"):
    hydra_plugins.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=list(overrides))


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_we_ship_passes(path):
    if path.stem == "swanlab":
        pytest.importorskip("swanlab", reason="SwanLab is not installed; .ci/run does so")
    check_config(composed(f"{path.parent.name}={path.stem}"), "align")


@pytest.mark.parametrize("data", ["world", "movielens", "log"])
def test_what_we_ship_for_audits_passes(data):
    check_config(composed(f"data={data}", "embeddings={text: text.npy}", "preferences=[pairs]", name="audit"), "audit")


@pytest.mark.parametrize("fine", ["lis.every_n_steps=null", "lis.split.max_events=null", "model.output_dim=null"])
def test_what_may_be_left_out_can_be(fine):
    check_config(composed(fine), "align")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+training.learning_rat=1", r"no 'learning_rat' in training; there are backbone_.*learning_rate'\?"),
        ("+objectives.pairs.pairs.windw=3", r"no 'windw' in objectives.pairs.pairs \(CoEngagement\); .* mean 'window'"),
        ("+trainer.max_step=3", r"no 'max_step' in trainer \(Trainer\); .* Did you mean 'max_steps'\?"),
        ("+model.output_dims=3", r"no 'output_dims' in model \(\w+.from_items\); .* Did you mean 'output_dim'\?"),
        ("+lis.split.histories=2", r"no 'histories' in lis.split; .* Did you mean 'history'\?"),
        ("+training_options={a: 1}", r"no 'training_options' in the configuration; .* Did you mean 'training'\?"),
        ("+objectives.pair={temperature: 2}", r"objectives.pair has no _target_, .* Did you mean 'pairs'\?"),
        ("objectives.pairs._target_=mine.Loss", r"objectives.pairs._target_ names 'mine.Loss', .*: No module named"),
        ("training.batch_size=abc", "training.batch_size is a whole number, such as 256, but got 'abc'"),
        ("training.batch_size=true", "training.batch_size is a whole number, such as 256, but got True"),
        ("lis.early_stopping=5", "lis.early_stopping is true or false, but got 5"),
        ("training.batch_size=2.5", "training.batch_size is a whole number, such as 256, but got 2.5"),
        ("lis.split=null", r"lis.split is a group of settings \(base_logit, .*\), but got None"),
        ("seed=1.5", "seed is a whole number, such as 0, but got 1.5"),
        ("seed=null", "seed is a whole number, such as 0, but got None"),
        ("training.learning_rate=null", "training.learning_rate is a number, such as 0.005, but got None"),
        ("lis.encode_batch_size=null", "lis.encode_batch_size is a whole number, such as 128, but got None"),
        ("trainer.max_steps=abc", "trainer.max_steps is a whole number, but got 'abc'"),
        ("trainer.max_steps=null", "trainer.max_steps is a whole number, but got None"),
        ("model.output_dim=abc", "model.output_dim is a whole number or null, but got 'abc'"),
        ("objectives.pairs.held_out=many", "objectives.pairs.held_out is a number, but got 'many'"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_was_meant(override, message):
    with pytest.raises(ConfigError, match=message):
        check_config(composed(override), "align")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.learning_rat=1", r"no 'learning_rat' in training; .* Did you mean 'learning_rate'\?"),
        ("objectives.pairs.pairs.windw=3", r"no 'windw' in objectives.pairs.pairs; .* Did you mean 'window'\?"),
        ("training_options.x=3", r"no 'training_options' in the configuration; .* Did you mean 'training'\?"),
    ],
)
def test_what_hydra_refuses_is_put_in_our_words(override, message):
    with pytest.raises(ConfigCompositionException) as caught:
        composed(override)
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(unknown_key(caught.value))
    assert unknown_key(ValueError("other")) is None


class Handing(PairContrastive):
    """Hands what it does not name to its base."""

    def __init__(self, mine=1, **options):
        super().__init__(**options)


def test_a_users_class_takes_what_its_base_takes(monkeypatch):
    monkeypatch.setitem(sys.modules, "mylosses", sys.modules[__name__])
    target = "objectives.pairs._target_=mylosses.Handing"
    check_config(composed(target, "+objectives.pairs.mine=2"), "align")
    with pytest.raises(ConfigError, match=r"no 'min' in objectives.pairs \(Handing\); .* Did you mean 'mine'\?"):
        check_config(composed(target, "+objectives.pairs.min=2"), "align")


def test_values_to_interpolate_and_options_of_others_stay_free():
    free = composed("+_rate=0.1", "training.learning_rate=${_rate}", "logger=wandb", "+logger.wandb.entity=me")
    check_config(free, "align")
    assert free.training.learning_rate == 0.1


@pytest.mark.slow
def test_a_users_recipe_with_a_typo_is_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - infonce\nobjectives:\n  pairs:\n    pairs:\n      windw: 3\n"
    )
    env = os.environ | {"LIS_RECIPES": str(tmp_path), "LIS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", "from lis_lightning.cli.align import main; main()", "recipe=mine"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 1
    assert "ConfigError: There is no 'windw' in objectives.pairs.pairs (CoEngagement)" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "cache").exists()
