"""Run a Hydra application as a command: Hydra's errors in the words of the user's input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from lis_lightning.cli import hydra_plugins
from lis_lightning.cli.command import describe_error, run_command
from lis_lightning.cli.config_check import nearest, unknown_key
from lis_lightning.errors import ConfigError, LisError

_PLUGINS = {
    "hydra/launcher/joblib": "hydra-joblib-launcher",
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
    "hydra/launcher/submitit_local": "hydra-submitit-launcher",
    "hydra/sweeper/optuna": "hydra-optuna-sweeper",
}


def run_hydra_command(name: str, application: Callable[[], Any]) -> None:
    """Run a function decorated by ``hydra.main``, and report what is wrong with its configuration in one message.

    Args:
        name: Of the command.
        application: Parses the command line and runs the job or jobs.
    """
    # Without it Hydra shortens tracebacks and hides the type of an error from the handler below.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")

    def run() -> None:
        check_arguments(sys.argv[1:])
        hydra_plugins.register()
        application()

    expected = (LisError, HydraException, OmegaConfBaseException, OSError)
    run_command(name, run, expected=expected, describe=describe_hydra_error)


def describe_hydra_error(error: BaseException) -> str | None:
    """Return the message for an expected error; None for an operating system error that names no file."""
    message = unknown_key(error)
    if message is None and isinstance(error, MissingConfigException):
        message = missing_option(error)
    if message is not None:
        return f"ConfigError: {message}"
    # Wrappers without a message of their own: the cause says what is wrong.
    while not str(error) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, LisError | OSError):
        error = error.__cause__
    if isinstance(error, OverrideParseException):
        advice = "Quote a value with special characters: 'data.log=\"words, spaces and ü.parquet\"'."
        return f"{describe_error(error)}\n{advice}"
    if isinstance(error, OSError) and error.filename is None and not isinstance(error, HydraException):
        return None  # the traceback tells more
    return describe_error(error)


def missing_option(error: MissingConfigException) -> str | None:
    """Return what is wrong where a config group has no such option; None where a file other than an option is missing.

    Args:
        error: As Hydra raises it, also for a choice in a user's recipe.

    Example:
        >>> missing_option(MissingConfigException("", "trainer/defaultt", ["default"]))
        "There is no trainer 'defaultt'; there are default. Did you mean 'default'?"
    """
    missing = error.missing_cfg_file or ""
    if missing in _PLUGINS:
        return f"{missing.replace('hydra/', '')} needs {_PLUGINS[missing]}; pip install 'lis-lightning[sweep]'."
    group, _, name = missing.rpartition("/")
    # Hydra lists no options where a group takes several, as in objective=[pairs,bpr].
    options = error.options or hydra_plugins.group_options(group)
    return _no_option(group, name, options) if group and options else None


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise for two mistakes that Hydra reports without naming the argument: no name, and a group that is set to null.

    Args:
        arguments: The command line without the program.

    Raises:
        ConfigError: With the argument, and what to write instead.

    Example:
        >>> check_arguments(["logger=null"])
        Traceback (most recent call last):
        ...
        lis_lightning.errors.ConfigError: There is no logger 'null'; there are csv, none, swanlab, trackio, wandb.
    """
    for argument in arguments:
        name, _, value = argument.partition("=")
        if not name:
            raise ConfigError(f"{argument!r} has no name; write name=value, as in seed{argument}.")
        options = hydra_plugins.group_options(name) if value == "null" else []
        if options:
            raise ConfigError(_no_option(name, value, options))


def _no_option(group: str, name: str, options: Collection[str]) -> str:
    return f"There is no {group} {name!r}; there are {', '.join(options)}.{nearest(name, options)}"
