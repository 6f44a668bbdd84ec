"""The objective of `recipes/own_objective`, as a copy of it is run from another folder."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from lis_lightning.align.data import AlignmentEvents, ItemTable
from lis_lightning.cli import hydra_plugins, resource_dir
from lis_lightning.cli.align import _train, main
from lis_lightning.results.record import Record

SMALL = [
    "data.num_users=120", "data.num_items=60", "data.num_events=4000", "trainer.max_steps=4", "lis.every_n_steps=2",
    "trainer.val_check_interval=2", "training.batch_size=8", "logger=none", "model=text",
]  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def lab(tmp_path, monkeypatch, capsys):
    """A copy of the recipe, as the command makes it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lis-align", "--recipes", "own_objective"])
    main()
    assert "begin with own_objective/README.md" in capsys.readouterr().out
    monkeypatch.setenv("LIS_RECIPES", str(tmp_path / "own_objective"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_next_clicks_come_closer(monkeypatch):
    monkeypatch.syspath_prepend(str(resource_dir("recipes") / "own_objective"))
    objective = importlib.import_module("margin").NextClickMargin(margin=0.5, held_out=0.1)
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(40), 10)
    item = (user % 3) * 10 + rng.integers(0, 10, user.size)  # each user clicks on one of three groups
    items = ItemTable(np.arange(30), ("",) * 30, (None,) * 30)
    label, nothing = np.ones(user.size, np.int8), np.zeros(0, np.int64)
    events = AlignmentEvents(user, item, label, np.arange(user.size), items, nothing, None, 0)
    examples = objective.examples(events, 4)
    assert (examples.items["click"] // 10 == examples.items["next"] // 10).all()
    assert (examples.items["click"] != examples.items["next"]).all()
    assert 0 < examples.held_out.sum() < 0.2 * len(examples)
    rows = torch.nn.Parameter(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)))
    optimizer, losses = torch.optim.Adam([rows], lr=0.1), []
    for _ in range(40):
        picked = rng.permutation(len(examples))[:64]
        batch = {role: torch.from_numpy(found[picked, 0]) for role, found in examples.items.items()}
        losses.append(objective.loss(rows, batch))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow  # it loads transformers
def test_a_copy_of_the_recipe_trains(lab):
    hydra_plugins.register()
    with initialize_config_dir(str(resource_dir("conf")), version_base="1.3"):
        config = compose("align", overrides=[*SMALL, "recipe=next_click_margin", f"cache_dir={lab / 'cache'}"])
    run = _train(config, lab / "run", None, None)
    results = Record.read(run.record)[1]
    assert [result.step for result in results] == [0, 2, 4]
    assert results[1].train_loss > 0
    assert results[0].aligned_to == "pairs"
    assert results[1].ais != results[0].ais
