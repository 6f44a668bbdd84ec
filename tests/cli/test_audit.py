"""The audit as a user meets it: composed in-process, and for real in a process of its own."""

import csv
import os
import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException

from lis_lightning.cli import resource_dir
from lis_lightning.cli.audit import audit_config
from lis_lightning.cli.hydra_command import describe_hydra_error
from lis_lightning.errors import ConfigError, ItemError, LisError, LisWarning, LogError

CONF = resource_dir("conf")
SMALL = ["data.num_users=120", "data.num_items=60", "data.num_events=4000"]


def compose_audit(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("audit", overrides=list(overrides))


def run(tmp_path, *overrides):
    return audit_config(compose_audit(*overrides), tmp_path / "out")


@pytest.fixture
def files(tmp_path, log, latents, split):
    """A log and vectors, as a user has them."""
    log.write_parquet(tmp_path / "events.parquet")
    vectors = pl.DataFrame({"item_id": split.item_ids, "vector": latents.tolist()}).reverse()
    vectors.write_parquet(tmp_path / "latents.parquet")
    np.save(tmp_path / "latents.npy", latents.astype(np.float32))
    np.save(tmp_path / "ids.npy", split.item_ids)
    pl.DataFrame({"item_id": split.item_ids}).write_csv(tmp_path / "items.csv")
    return tmp_path


@pytest.mark.parametrize("group", ["data", "lis"])
def test_every_option_composes(group):
    for path in (CONF / group).glob("*.yaml"):
        config = compose_audit(f"{group}={path.stem}")
        assert config.data.content is False, "texts and images are not read"


def test_the_default_shows_the_known_truth(tmp_path, capsys):
    found = run(tmp_path, *SMALL, f"cache_dir={tmp_path}/cache", "preferences=[pairs]")
    told, progress = capsys.readouterr()
    assert progress.startswith("lis-audit: cutting the log\nlis-audit: AIS of random vectors (1 of ")  # no terminal
    for expected in (
        "smallest detectable gain", "AUC of the true click probabilities", "content (truth)",
        "LIS of pairs (an estimate of what this preference data carries) is",
        "report: ", "took ",
    ):  # fmt: skip
        assert expected in told
    assert list(found.parts[0].results) == ["content (truth)", "items (truth)"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["audit.csv", "audit.html", "audit.json"]
    assert not (tmp_path / "cache").exists(), "nothing is rendered"


def test_a_log_alone_is_enough_and_vectors_come_in_any_file(files, split, latents):
    found = run(
        files, "data=log", f"data.log={files}/events.parquet", "preferences=[pairs]", f"row_ids={files}/ids.npy",
        f"embeddings={{table: {files}/latents.parquet, rows: {files}/latents.npy}}",
    )  # fmt: skip
    results = found.parts[0].results
    assert results["table"].ais == pytest.approx(split.score(latents, placebo=False).ais, abs=1e-6)
    assert results["rows"].ais == pytest.approx(results["table"].ais, abs=1e-6)
    by_items = run(
        files, "data=log", f"data.log={files}/events.parquet", f"data.items={files}/items.csv", "preferences=[pairs]",
        f"embeddings={{rows: {files}/latents.npy}}",
    )  # fmt: skip
    assert by_items.parts[0].results["rows"].ais == results["rows"].ais
    with (files / "out/audit.csv").open() as lines:
        assert {row["name"] for row in csv.DictReader(lines)} >= {"pairs", "rows", "random vectors"}


def test_options_of_the_split_and_tasks_arrive(files):
    found = run(
        files, "data=log", f"data.log={files}/events.parquet", "data.label={yes: label, all: [label, 0.5]}",
        "lis.split.windows=rolling", "lis.split.num_periods=2", "lis.split.unseen_items=0", "preferences=[ids]",
    )  # fmt: skip
    assert [(part.task, part.period) for part in found.parts] == [("yes", 0), ("all", 0), ("yes", 1)]
    assert found.aligned_to == "ids"


def test_preference_data_of_ones_own_comes_from_the_configuration(files, log):
    liked = log.filter(log["label"] == 1)
    pairs = liked.join(liked, on="user_id").filter(pl.col("item_id") < pl.col("item_id_right"))
    pairs.sample(3000, seed=0).write_parquet(files / "pairs.parquet")
    mine = "{_target_: lis_lightning.PairTable, table: %s, item: item_id, other: item_id_right, user: user_id}"
    found = run(
        files, "data=log", f"data.log={files}/events.parquet",
        f"preferences={{mine: {mine % (files / 'pairs.parquet')}, pairs: pairs}}",
    )  # fmt: skip
    assert list(found.parts[0].ceilings) == ["mine", "pairs"]
    assert found.parts[0].ceilings["mine"].value != found.parts[0].ceilings["pairs"].value


def test_items_without_a_vector_get_the_mean_or_are_left_out(files):
    table = pl.read_parquet(files / "latents.parquet")
    table.head(55).write_parquet(files / "most.parquet")
    arguments = ("data=log", f"data.log={files}/events.parquet", "preferences=[pairs]")
    with pytest.warns(LisWarning, match=r"most\.parquet: 55 of 60 items \(91\.7%\) have a vector; .*mean"):
        mean = run(files, *arguments, f"embeddings={{most: {files}/most.parquet}}", "missing=mean")
    with pytest.warns(LisWarning, match=r"55 of 60 items .* in every file; .* 9\d\.\d% of the events remain"):
        drop = run(files, *arguments, f"embeddings={{most: {files}/most.parquet}}", "missing=drop")
    assert mean.parts[0].results["most"].ais_low > 0
    assert drop.parts[0].results["most"].ais_low > 0
    assert drop.parts[0].facts["test_events"] < mean.parts[0].facts["test_events"]


def test_ids_of_another_type_are_no_missing_vectors(files):
    table = pl.read_parquet(files / "latents.parquet")
    table.with_columns(pl.format("sku-{}", "item_id").alias("item_id")).write_parquet(files / "text.parquet")
    for missing in ("mean", "drop"):
        with pytest.raises(ItemError, match=r"embeddings 'text': .*'sku-.*one type"):
            run(
                files, "data=log", f"data.log={files}/events.parquet", "preferences=[pairs]",
                f"embeddings={{text: {files}/text.parquet}}", f"missing={missing}",
            )  # fmt: skip


def test_rows_in_another_order_are_suspected(files, log, split, latents):
    shuffled = np.random.default_rng(0).permutation(split.item_ids)
    pl.DataFrame({"item_id": shuffled}).write_csv(files / "shuffled.csv")
    np.save(files / "sorted.npy", latents[np.argsort(split.item_ids)].astype(np.float32))
    with pytest.warns(LisWarning, match=r"'rows': AIS is .* if they are in the order of the ids sorted\. Check"):
        run(
            files, "data=log", f"data.log={files}/events.parquet", f"data.items={files}/shuffled.csv",
            "preferences=[pairs]", f"embeddings={{rows: {files}/sorted.npy}}",
        )  # fmt: skip


BAD = {
    "missing=skip": (ConfigError, "Expected `missing` to be raise, mean or drop, got 'skip'"),
    "data.log=/gone.parquet": (LogError, r"'/gone\.parquet' does not exist"),
    "data.label=[rating]": (LogError, "no column 'rating'"),
    "data.label=[label, 1, 2]": (ConfigError, "a column and a threshold as in .*, got 1"),
    "preferences=[pears]": (ConfigError, r"Unknown preference data 'pears'; expected one of \['ids', 'pairs'\]"),
    "preferences=[]": (ConfigError, "no preference data to audit"),
    "aligned_to=mine": (ConfigError, r"`aligned_to` among the preference data \['pairs', 'ids'\], got 'mine'"),
    "lis.split.history=0": (ConfigError, "`history` to be an integer of at least 1, got 0"),
    "embeddings=text.npy": (ConfigError, r"Expected embeddings=\{name: file\}, as in .*, got 'text\.npy'"),
    "embeddings={text: null}": (ConfigError, r"Expected embeddings=\{name: file\}, as in .*, got \{'text': None\}"),
    "embeddings={text: gone.npy}": (ConfigError, r"embeddings 'text': gone\.npy: the file gone\.npy does not exist"),
    "embeddings={text: FOLDER/latents.npy}": (ConfigError, r"latents\.npy: its rows have no ids\. Set row_ids=FILE"),
    "embeddings={text: FOLDER/few.parquet}": (ItemError, r"'text': few\.parquet: 57 of 60 item ids have no row in the"),
}


@pytest.mark.parametrize("argument", BAD)
def test_bad_words_get_one_clear_message(argument, files):
    pl.read_parquet(files / "latents.parquet").head(3).write_parquet(files / "few.parquet")
    error, words = BAD[argument]
    with pytest.raises((LisError, InstantiationException)) as caught:
        run(files, "data=log", f"data.log={files}/events.parquet", argument.replace("FOLDER", str(files)))
    assert re.match(f"{error.__name__}: .*{words}", describe_hydra_error(caught.value))
    assert not (files / "out").exists(), "no partial output is mistaken for a result"


def lis_audit(*arguments, folder, **environment):
    command = [sys.executable, "-c", "from lis_lightning.cli.audit import main; main()", *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.slow
def test_the_command_leaves_its_files_where_it_is_told(files):
    done = lis_audit(
        "data=log", "data.log=events.parquet", "embeddings={latents: latents.parquet}", "out=found", folder=files
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "latents" in done.stdout
    assert {"audit.csv", "audit.html", "audit.json", ".hydra"} <= {path.name for path in (files / "found").iterdir()}
    assert not (files / "outputs").exists()
    swept = lis_audit("-m", *SMALL, "preferences=[pairs],[ids]", "out=sweep", folder=files)
    assert swept.returncode == 0, swept.stderr[-3000:]
    assert sorted(path.parent.name for path in (files / "sweep").rglob("audit.csv")) == ["0", "1"]


@pytest.mark.slow
def test_the_command_fails_with_a_message(files):
    done = lis_audit("data=log", "data.log=events.parquet", "embeddings={a: gone.npy}", folder=files)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("lis-audit: ConfigError: embeddings 'a': gone.npy: the file gone.npy does not exist")
    unknown = lis_audit("data=logs", folder=files)
    assert (
        unknown.stderr
        == "lis-audit: ConfigError: There is no data 'logs'; there are log, movielens, world. Did you mean 'log'?\n"
    )
    taken = lis_audit("out=events.parquet", folder=files)
    assert taken.returncode == 1
    assert taken.stderr == "lis-audit: FileExistsError: [Errno 17] File exists: 'events.parquet'\n"


@pytest.mark.slow
def test_help_and_a_dry_look_at_the_configuration(tmp_path):
    told = lis_audit("--help", folder=tmp_path)
    assert told.returncode == 0
    assert "lis-audit data=log data.log=events.parquet" in told.stdout
    shown = lis_audit("--cfg", "job", "embeddings={a: b.npy}", folder=tmp_path)
    assert yaml.safe_load(shown.stdout)["embeddings"] == {"a": "b.npy"}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_movielens_is_audited_within_a_minute(movielens_folder, tmp_path):
    done = lis_audit(
        "data=movielens", f"data.folder={movielens_folder}", f"embeddings={{text: {movielens_folder}/text_minilm.npy}}",
        folder=tmp_path, LIS_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(re.search(r"took (\d+) s", done.stdout)[1]) < 60
    assert "LIS of pairs (an estimate of what this preference data carries) is +0.00" in done.stdout
