import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import settings
from PIL import Image

from lis_lightning import PreferenceSplit
from tests._helpers import wandb_files
from tests._helpers.recorded_runs import one_run, runs, scored, sweep_folder, write_run  # noqa: F401  # fixtures

# The same examples every time, and no failure because the machine was busy.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")


def pytest_configure(config):
    """No test, and no example in a docstring, reads or writes the user's cache."""
    folder = tempfile.TemporaryDirectory(prefix="lis-cache-")
    os.environ["LIS_CACHE"] = folder.name
    config.add_cleanup(folder.cleanup)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Two workers on two cores: more threads than that only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch):
    """No test reaches W&B's server, and none sees a user's recipes."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("LIS_RECIPES", raising=False)


@pytest.fixture(autouse=True, scope="module")
def _no_tracker_outlives_its_module():
    """W&B's threads draw from Python's random numbers, which tests of identity compare to the bit."""
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def make_log(num_users=150, num_items=60, num_events=6000, seed=0):
    """A log with taste: users and items have latents, clicks follow them; latents are returned for tests to score."""
    rng = np.random.default_rng(seed)
    taste, latents = rng.standard_normal((num_users, 4)), rng.standard_normal((num_items, 4))
    user, item = rng.integers(0, num_users, num_events), rng.integers(0, num_items, num_events)
    logit = 0.9 * (taste[user] * latents[item]).sum(1) + 0.3 * rng.standard_normal(num_items)[item]
    table = pl.DataFrame(
        {
            "user_id": user,
            "item_id": item + 1000,
            "timestamp": 1_600_000_000 + np.sort(rng.integers(0, 10_000_000, num_events)),
            "label": (rng.random(num_events) < 1 / (1 + np.exp(-logit))).astype(np.int8),
        }
    )
    return table, latents


@pytest.fixture(scope="session")
def log():
    return make_log()[0]


@pytest.fixture(scope="session")
def split(log):
    return PreferenceSplit.from_log(log)


@pytest.fixture(scope="session")
def latents(split):
    return make_log()[1][split.item_ids - 1000]


@pytest.fixture(scope="session")
def movielens_folder():
    data = os.environ.get("LIS_DATA")
    if not data:
        pytest.skip("needs real data: set LIS_DATA to the folder that holds ml100k_mm/")
    return Path(data) / "ml100k_mm"


@pytest.fixture(scope="session")
def log_maker():
    return make_log


@pytest.fixture
def sweep():
    """Runs ``lis-align -m`` on a small world: sweep(folder, *overrides) -> CompletedProcess."""
    small = [
        "data.num_users=120", "data.num_items=60", "data.num_events=4000", "trainer.max_steps=4",
        "lis.every_n_steps=2", "trainer.val_check_interval=2", "training.batch_size=8",
    ]  # fmt: skip

    def run(folder, *overrides):
        code = "from lis_lightning.cli.align import main; main()"
        env = os.environ | {"LIS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
        command = [sys.executable, "-c", code, "-m", *small, *overrides]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=280)

    return run


@pytest.fixture(scope="module")
def wandb_home(tmp_path_factory):
    """W&B without any of the user's keys and folders."""
    home = tmp_path_factory.mktemp("wandb-home")
    with pytest.MonkeyPatch.context() as patch:
        wandb_files.quiet_home(patch, home)
        yield home


@pytest.fixture
def image(tmp_path):
    """Makes a picture of noise: image(name, (width, height), mode) -> its path."""

    def make(name, size, mode="RGB"):
        noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(tmp_path / name)
        return tmp_path / name

    return make
