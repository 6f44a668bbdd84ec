"""What every recipe keeps to: a script short enough to read and copy, on public names, and a README that says how."""

import ast
import importlib
import importlib.util

import pytest

from lis_lightning.cli import resource_dir

FOLDERS = sorted(path for path in resource_dir("recipes").iterdir() if path.is_dir() and path.name != "__pycache__")
SCRIPTS = sorted(path for folder in FOLDERS for path in folder.glob("*.py"))
LONGEST = 150  # lines


def imported(script):
    """Dotted names that a script takes from us."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] == "lis_lightning")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lis_lightning":
            yield from (f"{node.module}.{one.name}" for one in node.names)


def outside_faces(names):
    """Names that no room exports: a module of a room, or what stands in one."""
    return [name for name in names if not is_public(name)]


def is_public(name):
    room, _, leaf = name.rpartition(".")
    if name == "lis_lightning.errors" or room == "lis_lightning.errors":
        return True
    face = importlib.util.find_spec(room)
    return face is not None and bool(face.submodule_search_locations) and leaf in importlib.import_module(room).__all__


def test_there_are_recipes_and_what_is_not_public_is_seen(tmp_path):
    assert {"ceilings", "compare_recipes", "coverage", "hydra_template", "minilm", "peers"} <= {f.name for f in FOLDERS}
    script = tmp_path / "script.py"
    script.write_text("from lis_lightning import LISMonitor\nfrom lis_lightning.scoring.probe import fit_probe\n")
    assert outside_faces(imported(script)) == ["lis_lightning.scoring.probe.fit_probe"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_script_is_short_and_takes_public_names_alone(script):
    assert len(script.read_text().splitlines()) <= LONGEST
    assert not outside_faces(imported(script))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_readme_says_what_to_run(folder):
    told = (folder / "README.md").read_text()
    assert told.startswith("# ")
    commands = [line.strip() for line in told.splitlines() if line.startswith(("    ", "wandb ", "lis-"))]
    for script in folder.glob("*.py"):
        run = (f"python recipes/{folder.name}/", f"LIS_RECIPES={folder.name} lis-align")
        assert any(line.startswith(run) for line in commands), f"{script.name} is run by no command"
    assert commands
