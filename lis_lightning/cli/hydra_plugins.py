"""What Hydra is told before it runs: the user's own recipes; and what it is spared: names that do not exist."""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import itertools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from lis_lightning.cli import racer as _racer
from lis_lightning.cli.resources import resource_dir
from lis_lightning.errors import ConfigError

_CHOICE = re.compile(r"^\+{0,2}(?P<group>[a-z_]+)=\[?(?P<names>[\w., -]*)\]?$")

_PLUGINS = {
    "joblib": "hydra-joblib-launcher",
    "submitit": "hydra-submitit-launcher",
    "optuna": "hydra-optuna-sweeper",
}


class UserRecipes(SearchPathPlugin):
    """Let the folder named by ``$LIS_RECIPES`` hold recipes, and the Python they name."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder: it adds to our recipes and does not shadow them."""
        folder = user_folder()
        if folder is None:
            return
        search_path.append("lis-lightning", f"file://{folder}")
        import_from_user_folder()


def import_from_user_folder() -> None:
    """Let the Python in the folder be imported: in the process of the command, and in those of a launcher."""
    folder = user_folder()
    if folder is not None and str(folder) not in sys.path:
        sys.path.append(str(folder))


def user_folder() -> Path | None:
    """Return the folder named by ``$LIS_RECIPES``, if it is set.

    Raises:
        ConfigError: If it is set to something that is no folder.
    """
    named = os.environ.get("LIS_RECIPES")
    if not named:
        return None
    folder = Path(named).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(
            f"LIS_RECIPES={named!r} is not a folder; name one with recipe/<name>.yaml in it, or unset it."
        )
    return folder


def register() -> None:
    """Tell Hydra of the user's recipes and of our sweeper; call before ``hydra.main`` runs."""
    Plugins.instance().register(UserRecipes)
    _racer.register()


def _described_recipes() -> str:
    """Return a line for each recipe: its name and what its first comment says."""
    folders = [resource_dir("conf"), *([user] if (user := user_folder()) is not None else [])]
    lines = []
    for path in sorted(path for folder in folders for path in (folder / "recipe").glob("*.yaml")):
        said = re.search(rf"^# lis-align\S* recipe={re.escape(path.stem)}\s+(.+)$", path.read_text(), re.MULTILINE)
        lines.append(f"  recipe={path.stem:<22}{said[1] if said else ''}".rstrip())
    return "\n".join(lines)


def check_choices(arguments: Sequence[str]) -> None:
    """Raise for a group option that does not exist, before Hydra composes anything.

    Args:
        arguments: The command line without the program.

    Raises:
        ConfigError: With the options there are, and the nearest one.

    Example:
        >>> check_choices(["trainer=defaultt"])
        Traceback (most recent call last):
        ...
        lis_lightning.errors.ConfigError: There is no trainer 'defaultt'; there are default. Did you mean 'default'?
    """
    folders = [resource_dir("conf"), *_config_dirs(arguments)]
    if (folder := user_folder()) is not None:
        folders.append(folder)
    for argument in arguments:
        if argument.startswith("="):
            raise ConfigError(f"{argument!r} says no name; write name=value, as in seed{argument}.")
        match = _CHOICE.match(argument)
        if match is None:
            continue
        _check_plugin(match["group"], match["names"])
        options = sorted({path.stem for folder in folders for path in (folder / match["group"]).glob("*.yaml")})
        for name in filter(None, map(str.strip, match["names"].split(","))):
            if options and name.removesuffix(".yaml") not in options:
                near = difflib.get_close_matches(name, options, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"There is no {match['group']} {name!r}; there are {', '.join(options)}.{hint}")


def _check_plugin(group: str, name: str) -> None:
    """Raise where a way to run a sweep is asked for whose plugin is not installed."""
    needed = _PLUGINS.get(name) if group == "sweep" else None
    if needed is not None and not any(importlib.metadata.distributions(name=needed)):
        raise ConfigError(f"sweep={name} needs {needed}; pip install 'lis-lightning[sweep]'.")


def _job_folder(recipe: str, seed: int, overrides: str) -> str:
    """Return the name of a job's folder in a sweep: the same for the same command, and short."""
    return f"{recipe}-seed{seed}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


def _config_dirs(arguments: Sequence[str]) -> list[Path]:
    """Return the folders given to Hydra by ``--config-dir``."""
    named = [argument.partition("=")[2] for argument in arguments if argument.startswith("--config-dir=")]
    flags = {"--config-dir", "-cd"}
    named += [after for flag, after in itertools.pairwise(arguments) if flag in flags]
    return [Path(name).expanduser() for name in named]


# At import, not in `register`: a launcher's worker processes import the task, and resolve its folder first.
OmegaConf.register_new_resolver("lis_recipes", _described_recipes, replace=True)
OmegaConf.register_new_resolver("lis_job", _job_folder, replace=True)
