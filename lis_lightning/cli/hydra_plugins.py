"""What this package adds to Hydra: the user's folder of recipes, a sweeper, and resolvers."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from lis_lightning.cli import race_sweeper
from lis_lightning.cli.resources import resource_dir
from lis_lightning.errors import ConfigError


class UserRecipes(SearchPathPlugin):
    """Add the folder named by ``$LIS_RECIPES`` to the search paths of configurations and of Python modules."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder, so that its files cannot replace the ones of this package."""
        folder = user_folder()
        if folder is None:
            return
        search_path.append("lis-lightning", f"file://{folder}")
        import_from_user_folder()


def import_from_user_folder() -> None:
    """Make the Python files in ``$LIS_RECIPES`` importable; call it in every process, those of a launcher included."""
    folder = user_folder()
    if folder is not None and str(folder) not in sys.path:
        sys.path.append(str(folder))


def user_folder() -> Path | None:
    """Return the folder named by ``$LIS_RECIPES``, or None if the variable is not set.

    Raises:
        ConfigError: If the variable names something that is not a folder.
    """
    name = os.environ.get("LIS_RECIPES")
    if not name:
        return None
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"LIS_RECIPES={name!r} is not a folder; name one with recipe/<name>.yaml in it, or unset it.")
    return folder


def group_options(group: str) -> list[str]:
    """Return the options of a config group, from this package and the user's folder; empty for other names.

    Example:
        >>> group_options("data")
        ['log', 'movielens', 'world']
    """
    paths = [path for folder in _config_folders() for path in (folder / group).glob("*.yaml")]
    return sorted({path.stem for path in paths})


def register() -> None:
    """Register the plugins; call it before the function decorated by ``hydra.main`` runs."""
    Plugins.instance().register(UserRecipes)
    race_sweeper.register()


def _config_folders() -> list[Path]:
    folder = user_folder()
    return [resource_dir("conf")] if folder is None else [resource_dir("conf"), folder]


def describe_recipes() -> str:
    """Return a line for each recipe, for the help text: its name, and what its first comment says."""
    paths = [path for folder in _config_folders() for path in (folder / "recipe").glob("*.yaml")]
    lines = []
    for path in sorted(paths):
        comment = re.search(rf"^# lis-align\S* recipe={re.escape(path.stem)}\s+(.+)$", path.read_text(), re.MULTILINE)
        description = comment[1] if comment else ""
        lines.append(f"  recipe={path.stem:<22}{description}".rstrip())
    return "\n".join(lines)


def describe_groups(*groups: str) -> str:
    """Return a line for each config group, for the help text: its name and its options."""
    return "\n".join(f"  {group}: {', '.join(group_options(group))}" for group in groups)


def _job_folder(recipe: str, seed: int, overrides: str) -> str:
    """Return the name of a job's folder in a sweep, and of its run: short, and the same for the same command."""
    model = re.search(r"(?:^|,)model\.model=([^,]+)", overrides)
    if model is not None:  # the last part of a folder or of a name on the hub
        name = re.split(r"[/\\]", model[1].rstrip("/"))[-1]
        recipe += "-" + re.sub(r"[^\w.-]+", "-", name)
    return f"{recipe}-seed{seed}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


# At import and not in `register`: the worker processes of a launcher import the task and resolve its folder first.
OmegaConf.register_new_resolver("lis_recipes", describe_recipes, replace=True)
OmegaConf.register_new_resolver("lis_groups", describe_groups, replace=True)
OmegaConf.register_new_resolver("lis_job", _job_folder, replace=True)
