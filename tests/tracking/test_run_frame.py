"""The numbers of a run as a data frame, from its record and from W&B's file."""

from __future__ import annotations

import json
import math
import shutil

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pytorch_lightning.loggers import WandbLogger

from lis_lightning import read_run
from lis_lightning.cli.report import main
from lis_lightning.errors import ConfigError
from lis_lightning.results.frame import snapshots_frame
from lis_lightning.results.record import Record
from lis_lightning.tracking import loggers as tracking
from tests._helpers.small_results import RESULTS, make_result

TASK = make_result(0, 0.3, "improving", best_ais=0.3)
NESTED = make_result(0, 0.1, "improving", tasks={"add_to_cart": TASK}, realised_high=math.inf)


def test_a_row_a_snapshot_with_all_numbers(tmp_path):
    record = Record.create(tmp_path / "record.jsonl", run_id="a", split_hash="abc")
    for result in RESULTS:
        record.append(result)
    frame = read_run(tmp_path)
    assert frame["step", "verdict", "best_ais"].rows() == [
        (0, "warming-up", 0.002), (20, "improving", 0.006), (40, "plateau", 0.006),
    ]  # fmt: skip
    assert frame["slice/head_items"].to_list() == [0.002, 0.006, 0.004]
    assert frame["realised"].to_list()[0] is None
    assert frame["ceiling_pairs", "auc_base"].unique().rows() == [(0.02, 0.75)]


@pytest.fixture(scope="module")
def offline(wandb_home, tmp_path_factory):
    """A run in W&B's file alone, whose tables were written."""
    folder = tmp_path_factory.mktemp("offline")
    logger = WandbLogger(project="p", name="named", save_dir=folder, mode="offline")
    for number in range(1, 4):
        assert tracking.log_result([logger], RESULTS[:number], RESULTS[min(1, number - 1)]) == []
    assert tracking.finish([logger], RESULTS, RESULTS[1]) == []
    assert tracking.close([logger]) == []
    return folder


def test_wandbs_file_holds_the_same(offline):
    assert_frame_equal(read_run(offline), snapshots_frame(RESULTS))


def test_without_its_table_wandbs_file_holds_what_was_logged(offline, tmp_path):
    shutil.copy(next(offline.rglob("run-*.wandb")), tmp_path)
    frame = read_run(tmp_path)
    logged = [
        "step",
        "verdict",
        "message",
        "ais",
        "ais_low",
        "ais_high",
        "headroom",
        "realised",
        "best_ais",
        "auc_base",
    ]
    assert_frame_equal(frame[logged], snapshots_frame(RESULTS)[logged])
    assert frame["auc"].null_count() == 3


def test_several_runs_are_listed(tmp_path):
    for name in "ab":
        Record.create(tmp_path / name / "record.jsonl", run_id=name, split_hash="abc").append(RESULTS[0])
    with pytest.raises(ConfigError, match=r"Expected one run, got .* with 2; .*\n  a: .*\n  b: "):
        read_run(tmp_path)


def test_the_command_prints_the_numbers_of_all_runs(tmp_path, capsys):
    for name, result in (("a", RESULTS[1]), ("b", NESTED)):
        Record.create(tmp_path / name / "record.jsonl", run_id=name, split_hash="abc").append(result)
    main([str(tmp_path), "--csv"])
    frame = pl.read_csv(capsys.readouterr().out.encode())
    assert frame["run", "step", "verdict", "ais", "task/add_to_cart/ais"].rows() == [
        ("a", 20, "improving", 0.006, None), ("b", 0, "improving", 0.1, 0.3),
    ]  # fmt: skip
    main([str(tmp_path), "--json", "--out", str(tmp_path / "new" / "numbers.json")])
    rows = json.loads((tmp_path / "new" / "numbers.json").read_text())
    assert [(row["run"], row["ais"], row["realised_high"]) for row in rows] == [("a", 0.006, 0.6), ("b", 0.1, None)]
