"""The command lis-cut as a user meets it: it saves a split that audits and trainings take in place of the log."""

import polars as pl
import pytest
from hydra import compose, initialize_config_dir

from lis_lightning import PreferenceSplit
from lis_lightning.cli import resource_dir
from lis_lightning.cli.audit import audit_config
from lis_lightning.cli.cut import cut_config
from lis_lightning.errors import ConfigError


def compose_config(name, *overrides):
    with initialize_config_dir(str(resource_dir("conf")), version_base="1.3"):
        return compose(name, overrides=list(overrides))


@pytest.fixture
def log_file(tmp_path, log):
    log.write_parquet(tmp_path / "events.parquet")
    return tmp_path / "events.parquet"


def test_an_audit_takes_the_saved_split_in_place_of_the_log(tmp_path, log_file, capsys):
    small = ("lis.split.max_events=2000", "lis.split.history=20")
    folder = cut_config(compose_config("cut", f"data.log={log_file}", f"out={tmp_path}/split", *small))
    printed = capsys.readouterr().out
    assert "the validation preference split" in printed
    assert f"saved: {folder} (hash {PreferenceSplit.load(folder).hash})" in printed
    assert f"lis-audit data=log data.log={folder}" in printed
    log_file.unlink()
    audit = compose_config("audit", "data=log", f"data.log={folder}", "preferences=[pairs]")
    result = audit_config(audit, tmp_path / "audit")
    assert "lis.split is as it was cut" in capsys.readouterr().out
    assert len(result.parts) == 1


def test_a_larger_log_than_the_budget_is_reduced_where_it_is(tmp_path, log_file, capfd):
    budget = pl.read_parquet(log_file).height // 4
    options = (f"lis.split.max_alignment_events={budget}", "lis.split.max_events=1000", "lis.split.memory_limit=1GB")
    folder = cut_config(compose_config("cut", f"data.log={log_file}", f"out={tmp_path}/split", *options))
    printed = capfd.readouterr()
    assert "events read" in printed.err
    split = PreferenceSplit.load(folder)
    assert split.num_sampled < split.num_logged
    assert f"a sample of whole users, {split.num_sampled:,} of {split.num_logged:,} events" in printed.out
    assert (split.log.window == 0).sum() <= budget


def test_a_folder_of_other_files_is_refused_before_the_log_is_read(tmp_path, log_file):
    with pytest.raises(ConfigError, match="exists and is not a saved split"):
        cut_config(compose_config("cut", "data.log=/gone.parquet", f"out={tmp_path}"))
    with pytest.raises(ConfigError, match="`out` is missing"):
        cut_config(compose_config("cut", f"data.log={log_file}"))


def test_dropping_items_without_vectors_needs_the_whole_log(tmp_path, log, log_file):
    PreferenceSplit.from_log(log).save(tmp_path / "split")
    config = compose_config("audit", "data=log", f"data.log={tmp_path}/split", "missing=drop")
    with pytest.raises(ConfigError, match="missing=drop needs the whole log"):
        audit_config(config, tmp_path / "audit")
