import importlib.util

import numpy as np
import pytest

from lis_lightning import PreferenceSplit
from lis_lightning.align.world import simulate_world
from lis_lightning.cli import resource_dir
from lis_lightning.functional.intervals import paired_difference


@pytest.fixture(scope="module")
def ceilings():
    path = resource_dir("recipes") / "ceilings" / "ceilings.py"
    spec = importlib.util.spec_from_file_location("ceilings", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ceilings_over_a_snapshot_bind_and_worthless_pairs_have_no_headroom(ceilings):
    log, truth = simulate_world(num_users=80, num_items=60, num_events=4000)
    split = PreferenceSplit.from_log(log, label="clicked")
    arms, limits = ceilings.study(split, ceilings.snapshots(split, truth, np.random.default_rng(0)))
    assert len(arms) == 14
    over = [name for name in limits if name.startswith("R, then")]
    assert len(over) == 6
    for name in over:
        for recipe, arm in arms.items():
            limit = limits[name][recipe]
            assert paired_difference(arm.gain.value, arm.gain.influence, *limit).z < 3
    assert limits["null"]["raw"][0] < 0.3 * limits["pairs"]["raw"][0]
