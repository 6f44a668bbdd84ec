"""The table of model families: what works has its numbers, and what does not is explained."""

import sys

import pytest

from lis_lightning.cli import resource_dir


@pytest.fixture
def models(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(resource_dir("recipes") / "models"), *sys.path])
    import models

    monkeypatch.setitem(models.WORLD, "num_users", 60)
    return models


def test_a_cell_says_what_works_and_a_note_what_does_not(models, monkeypatch):
    quick = ("loads", "batch = single", "0 to 2 images", "pooling right", "LoRA where", "DDP, full")
    monkeypatch.setattr(models, "CHECKS", {name: models.CHECKS[name] for name in quick})
    lines = models.table(["BERT", "ResNet", "GIT"]).splitlines()
    bert, resnet, git = (line.strip("| ").split(" | ") for line in lines[2:5])
    assert bert[:2] == ["BERT", "BertModel"]
    assert bert[-2:] == ["query, value: 4 layers", "yes"]
    assert resnet[-2:] == ["**no** (1)", "yes"]
    assert "**no** (" in git[-1]
    assert lines[6].startswith("1. ResNet, LoRA where: ConfigError: The vision tower (ResNetModel) has no")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # as the script does
def test_a_family_is_run_resumed_and_exported(models):
    row = models.table(["LLaVA"]).splitlines()[2]
    assert "**no**" not in row
    assert "| lora, 3 snapshots |" in row


def test_unknown_families_are_refused(models, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["models.py", "BERTT"])
    with pytest.raises(SystemExit):
        models.main()
    assert "unknown families ['BERTT']; there are BERT, RoBERTa" in capsys.readouterr().err
