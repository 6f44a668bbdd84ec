"""What the README shows is run: its Python, its commands' options, its names."""

import re
import shlex
from pathlib import Path

import numpy as np
import polars as pl_frame
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from torch.utils.data import DataLoader

from lis_lightning.cli import resource_dir
from lis_lightning.cli.report import _compare_parser, _parser, _workspace_parser
from lis_lightning.results.verdict import VERDICTS

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line
    for kind, block in BLOCKS
    if kind == "bash"
    for line in block.splitlines()
    if line.startswith(("lis-align ", "lis-audit "))
]


class TwoTower(pl.LightningModule):
    """A module that knows nothing of us but `encode_items`."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 8)

    def encode_items(self, batch):
        return self.layer(batch["features"])

    def training_step(self, batch, _):
        return self.encode_items(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_the_python_runs(log, split, latents, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events").mkdir()
    rich = log.rename({"label": "clicked"}).with_columns(
        liked=pl_frame.col("clicked") * (pl_frame.int_range(pl_frame.len()) % 3 > 0),
        seconds=1.0 + pl_frame.int_range(pl_frame.len()) % 7,
        surface=pl_frame.Series(["feed", "search"] * (len(log) // 2)),
    )
    rich.write_parquet("events/part-0.parquet")
    positives = rich.filter(pl_frame.col("clicked") == 1).select("user_id", item_a="item_id")
    positives.join(positives.rename({"item_a": "item_b"}), on="user_id").write_parquet("pairs.parquet")
    items = [
        {"item_id": int(item), "features": torch.from_numpy(row).float()}
        for item, row in zip(split.item_ids, latents, strict=True)
    ]
    code = "\n".join(block for kind, block in BLOCKS if kind == "python")
    code = code.replace("pl.Trainer(", "pl.Trainer(max_epochs=1, logger=False, enable_progress_bar=False, ")
    assert "max_epochs=1" in code
    loader = DataLoader(items, batch_size=16, generator=torch.Generator())
    with pytest.warns():  # Lightning's advice on loader workers, which readers get too
        exec(code, {"items": items, "module": TwoTower(), "loader": loader, "embeddings": latents})
    told = capsys.readouterr().out
    assert "smallest detectable gain" in told
    assert "LIS of pairs, an estimate" in told
    assert "[like] LIS of mine, an estimate" in told
    assert "aging" in told
    assert np.isfinite(float(re.search(r"AIS +([+-][\d.]+)", told)[1]))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_name_options_that_exist(command):
    arguments = [word for word in shlex.split(command, comments=True)[1:] if "=" in word]
    # A sweep names several values; composing takes one of each.
    swept = [word if "[" in word or "{" in word else word.split(",")[0] for word in arguments]
    with initialize_config_dir(str(resource_dir("conf")), version_base="1.3"):
        compose(shlex.split(command)[0].removeprefix("lis-"), overrides=swept)


def test_the_reports_are_called_as_they_can_be():
    calls = [
        shlex.split(line, comments=True)[1:]
        for _, block in BLOCKS
        for line in block.splitlines()
        if line.startswith("lis-report ")
    ]
    assert len(calls) == 5
    parsers = {"workspace": _workspace_parser(), "compare": _compare_parser()}
    for first, *others in calls:
        assert parsers[first].parse_args(others) if first in parsers else _parser().parse_args([first, *others])


def test_every_file_it_points_to_exists():
    named = re.findall(r"\]\((?!http)([^)]+)\)", README) + re.findall(r"`python (?!-m)(\S+)`", README)
    named += [name.replace(".", "/") for name in re.findall(r"`python -m (tests\.\w+)`", README)]
    assert len(named) >= 7
    for name in named:
        assert (Path(__file__).resolve().parents[1] / name).exists(), name


def test_every_verdict_is_explained():
    for verdict in VERDICTS:
        assert f"`{verdict}`" in README


def test_it_is_short():
    assert len(README.splitlines()) <= 150
