"""The recipes and studies inside the package: ``lis-align --recipes`` lists them, and copies one out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from lis_lightning.cli.config_check import nearest
from lis_lightning.cli.hydra_plugins import describe_recipes
from lis_lightning.cli.resources import resource_dir
from lis_lightning.errors import ConfigError


def recipes_command(names: Sequence[str], target: Path) -> str:
    """Return a list of the recipes and studies of the package, or copy those that are named; return what to do next.

    A study is copied as a folder, a recipe as ``recipe/my_NAME.yaml``, which a folder in ``LIS_RECIPES`` may hold.

    Args:
        names: Names of recipes or studies; none lists all.
        target: Folder to copy to.

    Raises:
        ConfigError: If there is no recipe or study of a name, or its copy exists.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = recipes_command(["own_objective"], Path(folder))
        ...     sorted(path.name for path in (Path(folder) / "own_objective").iterdir())
        ['README.md', 'margin.py', 'recipe']
    """
    return "\n".join(_copy(name, target) for name in names) if names else _listed()


def _studies() -> dict[str, Path]:
    return {file.parent.name: file.parent for file in sorted(resource_dir("recipes").glob("*/README.md"))}


def _presets() -> dict[str, Path]:
    return {file.stem: file for file in sorted((resource_dir("conf") / "recipe").glob("*.yaml"))}


def _listed() -> str:
    lines = ["Studies and examples (lis-align --recipes NAME copies the folder here):"]
    for name, folder in _studies().items():
        title = (folder / "README.md").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"  {name:<22}{title}")
    lines += ["Recipes (lis-align --recipes NAME copies one as recipe/my_NAME.yaml):", describe_recipes()]
    return "\n".join([*lines, f"They lie in {resource_dir('recipes')} and {resource_dir('conf') / 'recipe'}."])


def _copy(name: str, target: Path) -> str:
    studies, presets = _studies(), _presets()
    if name not in studies | presets:
        options = [*studies, *presets]
        raise ConfigError(f"There is no recipe {name!r}; there are {', '.join(options)}.{nearest(name, options)}")
    copy = target / name if name in studies else target / "recipe" / f"my_{name}.yaml"
    if copy.exists():
        raise ConfigError(f"{copy} exists: remove it, or copy {name!r} from another working folder.")
    if name in studies:
        shutil.copytree(studies[name], copy, ignore=shutil.ignore_patterns("__pycache__"))
        return f"copied to {copy}; begin with {copy / 'README.md'}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    text = presets[name].read_text(encoding="utf-8")
    copy.write_text(re.sub(rf"recipe={re.escape(name)}\b", f"recipe=my_{name}", text), encoding="utf-8")
    return f"copied to {copy}; run it by LIS_RECIPES={target} lis-align recipe=my_{name}"
