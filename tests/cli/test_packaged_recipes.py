"""Recipes and studies of the package: listed, and copied to where a user can change them."""

from __future__ import annotations

import sys

import pytest

from lis_lightning.cli import resource_dir
from lis_lightning.cli.align import main
from lis_lightning.cli.packaged_recipes import recipes_command
from lis_lightning.errors import ConfigError


def test_all_are_listed_with_what_they_are_and_where(tmp_path):
    said = recipes_command([], tmp_path)
    assert "  own_objective         An objective of your own" in said
    assert "recipe=infonce               co-clicked pairs (InfoNCE)" in said
    assert str(resource_dir("recipes")) in said


def test_a_recipe_is_copied_under_a_name_of_its_own(tmp_path):
    said = recipes_command(["bpr"], tmp_path)
    assert f"LIS_RECIPES={tmp_path} lis-align recipe=my_bpr" in said
    copy = (tmp_path / "recipe" / "my_bpr.yaml").read_text()
    assert copy == (resource_dir("conf") / "recipe" / "bpr.yaml").read_text().replace("recipe=bpr", "recipe=my_bpr")


def test_a_study_is_copied_whole(tmp_path):
    recipes_command(["own_objective"], tmp_path)
    copied = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    names = {"README.md", "margin.py", "recipe/next_click_margin.yaml"}
    assert copied == {f"own_objective/{name}" for name in names}


def test_nothing_is_overwritten_and_the_nearest_name_is_said(tmp_path):
    recipes_command(["bpr", "own_objective"], tmp_path)
    for name, copy in (("bpr", "recipe/my_bpr.yaml"), ("own_objective", "own_objective")):
        with pytest.raises(ConfigError, match=f"{copy} exists: remove it, or copy '{name}' from another working"):
            recipes_command([name], tmp_path)
    with pytest.raises(ConfigError, match=r"no recipe 'own_objectiv'; there are .*Did you mean 'own_objective'\?"):
        recipes_command(["own_objectiv"], tmp_path)


def test_the_command_says_what_is_wrong_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lis-align", "--recipes", "absent"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("lis-align: ConfigError: There is no recipe 'absent'; there are ")
