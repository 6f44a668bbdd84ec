"""Logger options derived from the run: folder and, for W&B, mode, group, id and resume."""

from __future__ import annotations

import hashlib
import os
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lis_lightning.tracking.wandb_run import wandb_mode

FINISH_TIMEOUT = "300"  # seconds; without a limit, a job whose W&B server is unreachable never ends


def run_options(logger: Mapping[str, Any], run_dir: Path, group: str | None = None) -> dict[str, Any]:
    """Return keyword arguments for a configured logger: its folder and, for W&B, mode, group, id and resume.

    W&B is offline if no API key is configured. The jobs of a sweep form one W&B group, and the id of a job follows
    from its folder: a job that is retried or resumed continues its W&B run. For W&B this also sets three variables,
    unless the user has set them: ``WANDB_FINISH_TIMEOUT``, which W&B reads from the environment only; ``WANDB_QUIET``,
    so that it prints where the run is but not its history; and, offline, ``WANDB_SILENT``, since the monitor says how
    to upload the run.

    Args:
        logger: The logger's configuration, with the class under ``_target_``.
        run_dir: Folder of the run.
        group: Name of the sweep that the run belongs to; None outside of sweeps.

    Example:
        >>> run_options({"_target_": "pytorch_lightning.loggers.CSVLogger"}, Path("runs/a"))
        {'save_dir': 'runs/a'}
    """
    options: dict[str, Any] = {"save_dir": str(run_dir)}
    if not is_wandb_config(logger):
        return options
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", FINISH_TIMEOUT)
    os.environ.setdefault("WANDB_QUIET", "true")
    mode = wandb_mode()
    if "offline" in {mode, os.environ.get("WANDB_MODE")}:
        os.environ.setdefault("WANDB_SILENT", "true")
    if mode is not None:
        options["mode"] = mode
    if group is not None:
        options["id"] = hashlib.sha256(f"{group}/{run_dir.name}".encode()).hexdigest()[:12]
        if not logger.get("group"):
            options["group"] = group
        if mode != "offline":
            options["resume"] = "allow"
    return options


def drop_ignored_settings(logger: Any) -> None:
    """Drop the argument `anonymous` of a WandbLogger: Lightning passes it always, and W&B ignores it with a warning."""
    arguments = getattr(logger, "_wandb_init", None)  # W&B's run is made later, from these
    if isinstance(arguments, dict) and arguments.get("anonymous") is None:
        arguments.pop("anonymous", None)


def leaderboard_destination(loggers: Mapping[str, Any], sweep_name: str) -> dict[str, Any] | None:
    """Return the W&B group, project and entity that the leaderboard of a sweep belongs to; None without a W&B logger.

    Args:
        loggers: Configurations of the loggers by name; those that are None are switched off.
        sweep_name: Group of the jobs if the logger has no group.

    Example:
        >>> wandb = {"_target_": "pytorch_lightning.loggers.WandbLogger", "project": "news"}
        >>> leaderboard_destination({"wandb": wandb}, "first")
        {'group': 'first', 'project': 'news', 'entity': None}
    """
    for logger in loggers.values():
        if logger is not None and is_wandb_config(logger):
            group = str(logger.get("group") or sweep_name)
            return {"group": group, "project": logger.get("project"), "entity": logger.get("entity")}
    return None


def is_wandb_config(logger: Mapping[str, Any]) -> bool:
    """Return whether the class of a configured logger is a WandbLogger, or derived from one.

    Example:
        >>> is_wandb_config({"_target_": "pytorch_lightning.loggers.WandbLogger"})
        True
    """
    target = pkgutil.resolve_name(str(logger["_target_"]))
    return any(base.__name__ == "WandbLogger" for base in getattr(target, "__mro__", ()))
