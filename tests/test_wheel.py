"""The wheel alone, outside of the checkout: the configuration travels inside it, and the command runs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=280)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_configuration_and_nothing_at_the_top(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"lis_lightning/conf/align.yaml", "lis_lightning/conf/audit.yaml"} <= set(names)
    assert "lis_lightning/conf/recipe/infonce.yaml" in names
    assert "lis_lightning/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {"lis_lightning", names[-1].partition("/")[0]}
    (scripts,) = [name for name in names if name.endswith("entry_points.txt")]
    assert b"lis-audit = lis_lightning.cli.audit:main" in zipfile.ZipFile(wheel).read(scripts)
    assert not any("__pycache__" in name for name in names)


def test_the_installed_wheel_aligns_by_a_recipe_and_an_objective_of_the_users(wheel, tmp_path):
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, *install], check=True, capture_output=True, timeout=280)
    lab = tmp_path / "lab"
    (lab / "recipe").mkdir(parents=True)
    (lab / "mylosses.py").write_text(
        "from lis_lightning.align.objectives import PairContrastive\n\n\nclass Mine(PairContrastive):\n    pass\n"
    )
    (lab / "recipe" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - infonce\nobjectives:\n  pairs:\n    _target_: mylosses.Mine\n"
    )
    own = {"LIS_RECIPES": str(lab), "LIS_CACHE": str(tmp_path / "cache")}
    env = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"} | own
    code = "import lis_lightning.cli.align as app; print(app.__file__); app.main()"
    arguments = ["debug=fast", "trainer.max_steps=20", "recipe=mine"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith(str(site))
    assert list(tmp_path.glob("outputs/mine/*/record.jsonl"))
    assert list(tmp_path.glob("outputs/mine/*/report.html"))
