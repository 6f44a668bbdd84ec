"""The command line as a user meets it: one small run, every option composed, and what bad words get."""

import math
import os
import subprocess
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir

from lis_lightning.align.training.step_progress import StepProgress
from lis_lightning.cli import hydra_plugins, resource_dir
from lis_lightning.cli.align import _loggers, _settle_cache, _train, _trainer
from lis_lightning.errors import ConfigError
from lis_lightning.results.record import Record

CONF = resource_dir("conf")
OPTIONS = sorted(path for path in CONF.rglob("*.yaml") if path.parent not in {CONF, CONF / "callbacks"})
SMALL = [
    "data.num_users=120", "data.num_items=60", "data.num_events=4000", "trainer.max_steps=4", "lis.every_n_steps=2",
    "trainer.val_check_interval=2", "training.batch_size=8",
]  # fmt: skip


def lis_align(*arguments, folder, **environment):
    command = [sys.executable, "-c", "from lis_lightning.cli.align import main; main()", *arguments]
    env = os.environ | {"LIS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=280)


def test_there_are_options():
    assert len(OPTIONS) >= 10


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_option_composes(path):
    hydra_plugins.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("align", overrides=[f"{path.parent.name}={path.stem}"])
    assert config.seed == 0


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_option_says_how_to_use_it(path):
    lines = path.read_text().splitlines()
    packaged = lines[0].startswith("# @package ")
    assert not any("@package " in line for line in lines[1:]), "Hydra reads it on the first line only"
    assert lines[1 if packaged else 0].startswith(f"# lis-align {path.parent.name}={path.stem}") or not packaged
    assert lines[1 if packaged else 0].startswith("# lis-align")
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_where_caches_are_off_a_world_stays_with_its_run(tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("align", overrides=["cache_dir=off"])
    assert _settle_cache(config, tmp_path) == tmp_path / "cache"
    assert config.data.cache_dir == f"{tmp_path}/cache/worlds"
    config.cache_dir = "~/elsewhere"
    assert _settle_cache(config, tmp_path).parts[-1] == "elsewhere"
    assert "~" not in config.cache_dir


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One real run on a small world, with a real offline W&B run."""
    folder = tmp_path_factory.mktemp("run")
    done = lis_align(*SMALL, folder=folder, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done


@pytest.mark.slow
def test_a_run_ends_with_a_table_and_says_where_everything_is(finished):
    folder, done = finished
    said = done.stdout + done.stderr
    for expected in (
        "smallest detectable gain", "AUC of the true click probabilities", "aligning VisionLanguageEncoder",
        "geometry", "Best snapshot: step", "Record: ", "wandb sync", "placebo passed",
        "lis-encode ",
    ):  # fmt: skip
        assert expected in said
    for unwanted in ("wandb: ", "TPU", "Epoch", "WARNING", "Warning", str(folder / "outputs")):
        assert unwanted not in said
    (page,) = folder.rglob("report.html")
    assert done.stdout.endswith(f"report: {page.relative_to(folder)}\n")
    assert len(said.splitlines()) <= 42
    (record,) = folder.rglob("record.jsonl")
    _, results = Record.read(record)
    assert [result.step for result in results] == [0, 2, 4]
    assert all(math.isfinite(result.ais) for result in results)
    assert list(folder.rglob("*.wandb"))


@pytest.mark.slow
def test_log_files_of_ones_own_run_end_to_end(finished):
    folder, _ = finished
    (world,) = (folder / "cache/worlds").glob("world-*")
    done = lis_align(
        "data=log", f"data.log={world}/interactions.parquet", f"data.items={world}/items.parquet",
        "data.label=clicked", f"data.image_folder={world}/images", "logger=csv", *SMALL[3:], folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "log: the validation preference split" in done.stdout


@pytest.mark.parametrize(
    ("setting", "terminal", "shown"),
    [("null", True, True), ("null", False, False), ("true", False, True), ("false", True, False)],
)
def test_a_bar_counts_steps_in_a_terminal_unless_the_settings_say_otherwise(monkeypatch, setting, terminal, shown):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("align", overrides=["trainer.accelerator=cpu", f"trainer.enable_progress_bar={setting}"])
    bar = _trainer(config)(callbacks=[], logger=False).progress_bar_callback
    assert type(bar) is (StepProgress if shown else type(None))


def test_a_debug_run_composes_smaller_settings():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("align", overrides=["debug=fast"])
    assert config.trainer.max_steps == 20
    assert "csv" in config.logger


BAD = {
    "recipe=infonec": "ConfigError: There is no recipe 'infonec'; there are attraction, bpr,",
    "data=movie": "ConfigError: There is no data 'movie'; there are log, movielens, world.",
    "trainer.max_step=3": "ConfigError: There is no 'max_step' in trainer; there are",
    "data.content_share=3": "content_share of the generated world must be a number from 0.0 to 1.0, got 3",
    "lis.split.history=0": "`history` to be an integer of at least 1, got 0",
    "model.model=absent/folder": "absent/folder",
    "logger=null": "ConfigError: There is no logger 'null'; there are csv, none, swanlab, trackio, wandb.",
    "objectives.pairs=null": "ConfigError: There is no objective to train for",
    "stop_at=0": "ConfigError: `stop_at` must be an optimizer step, 1 or more, or null, but got 0.",
    "seed=-1": "ConfigError: `seed` must be from 0 to 4294967295, but got -1.",
    "trainer.max_steps=0": "the Trainer ended at once (trainer.max_steps is 0)",
    "trainer.precision=foo": "ConfigError: Lightning's Trainer refuses what `trainer` says: Precision 'foo' is invalid",
    "prune=true": "ConfigError: prune=true compares the jobs of a sweep: add -m, or leave it out.",
    "model.tuning.mode=loar": "ConfigError: `mode` of the tuning must be one of full, head, lora, last, but got 'loar'",
}


@pytest.mark.slow
@pytest.mark.parametrize("argument", BAD)
def test_bad_words_get_one_clear_message(argument, finished):
    folder, _ = finished
    before = set(folder.rglob("record*.jsonl"))
    done = lis_align(*SMALL, argument, "logger=csv", folder=folder, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert BAD[argument] in done.stderr
    assert "Traceback" not in done.stderr
    assert set(folder.rglob("record*.jsonl")) == before, "no partial output is mistaken for a result"


@pytest.mark.slow
def test_movielens_without_a_folder_says_what_to_do(finished):
    folder, _ = finished
    done = lis_align("data=movielens", "logger=csv", folder=folder, LIS_DATA="")
    assert done.returncode == 1
    assert "data.folder=" in done.stderr


@pytest.mark.slow
def test_help_and_a_dry_look_at_the_configuration(tmp_path):
    told = lis_align("--help", folder=tmp_path)
    assert told.returncode == 0
    assert "lis-align debug=fast" in told.stdout
    shown = lis_align("--cfg", "job", "seed=7", folder=tmp_path)
    assert yaml.safe_load(shown.stdout)["seed"] == 7
    assert not list(tmp_path.rglob("record*.jsonl"))


@pytest.mark.slow
def test_a_users_own_recipe(finished, tmp_path):
    folder, _ = finished
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/mine.yaml").write_text("# @package _global_\ndefaults: [infonce, _self_]\nseed: 11\n")
    shown = lis_align("recipe=mine", "--cfg", "job", folder=folder, LIS_RECIPES=str(tmp_path))
    assert yaml.safe_load(shown.stdout)["seed"] == 11, shown.stderr


def test_without_loggers_there_are_none_and_one_set_to_null_is_left_out(tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert _loggers(compose("align", overrides=["logger=none"]), tmp_path) == []
        assert _loggers(compose("align", overrides=["logger.wandb=null"]), tmp_path) == []


def test_a_model_that_cannot_be_loaded_leaves_no_empty_wandb_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    overrides = [*SMALL, f"model.model={tmp_path}/absent", f"cache_dir={tmp_path}/cache", "logger.wandb.name=mine"]
    hydra_plugins.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("align", overrides=overrides)
    with pytest.raises(ConfigError, match="absent does not exist"):
        _train(config, tmp_path / "run", None, None)
    assert not (tmp_path / "run").exists()
