import math
import shutil

import pytest
import wandb
from pytorch_lightning.loggers import WandbLogger

from lis_lightning.errors import RecordError
from lis_lightning.report import find_runs
from lis_lightning.tracking import loggers as tracking
from lis_lightning.tracking.wandb_offline import OFFLINE_READERS, read_offline


@pytest.fixture(scope="module")
def offline_run(scored, split, tmp_path_factory):
    """A real offline W&B run with the logs of three snapshots, and no record."""
    folder = tmp_path_factory.mktemp("wandb-only")
    logger = WandbLogger(save_dir=str(folder), project="p", name="named", mode="offline")
    results = scored(0)[:3]
    assert not tracking.start([logger], split.describe())
    for number in range(1, 4):
        assert not tracking.log_result([logger], results[:number], results[0])
    assert not tracking.close([logger])
    wandb.teardown()
    return folder


def test_snapshots_come_back_as_they_were_logged(offline_run, scored):
    (run,) = find_runs([offline_run], OFFLINE_READERS)
    assert run.name == "named"
    assert not run.paired
    assert run.ended
    assert run.split["users"] == 150
    for found, logged in zip(run.results, scored(0), strict=False):
        assert (found.step, found.verdict) == (logged.step, logged.verdict)
        expected = logged.scalars(more=False) | logged.constants()
        for name, value in expected.items():
            assert found.numbers()[name] == value or math.isnan(value), name
    assert run.judgement.verdict == run.results[-1].verdict


def test_a_file_that_was_cut_short_gives_the_snapshots_before_the_cut(offline_run, tmp_path):
    (file,) = offline_run.rglob("run-*.wandb")
    short = tmp_path / "run-short.wandb"
    data = file.read_bytes()
    short.write_bytes(data[: int(len(data) * 0.75)])
    assert 1 <= len(read_offline(short).results) <= 3


def test_a_file_that_is_none_of_wandbs_is_refused(tmp_path):
    (tmp_path / "run-x.wandb").write_bytes(b"hello")
    with pytest.raises(RecordError, match=r"run-x.wandb cannot be read by `wandb leet inspect`"):
        read_offline(tmp_path / "run-x.wandb")


def test_the_record_beside_wandbs_own_folder_is_preferred(offline_run, write_run, tmp_path):
    (file,) = offline_run.rglob("run-*.wandb")
    shutil.copytree(offline_run, tmp_path / "run")
    write_run(tmp_path / "run" / "p" / file.stem.removeprefix("run-"), num=2)
    (run,) = find_runs([tmp_path / "run"], OFFLINE_READERS)
    assert run.paired


def test_the_record_is_preferred_to_wandbs_file(offline_run, write_run, tmp_path):
    write_run(tmp_path / "run", num=2)
    shutil.copytree(offline_run, tmp_path / "run" / "logs")
    (run,) = find_runs([tmp_path], OFFLINE_READERS)
    assert run.paired
