"""Check the settings of the Trainer before anything is loaded."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from lis_lightning.errors import ConfigError


def trial_trainer(config: DictConfig) -> pl.Trainer:
    """Return a Trainer built from the settings, which is not used for training.

    Args:
        config: With the node ``trainer``.

    Raises:
        ConfigError: With Lightning's message, if it refuses a value.
    """
    build: Any = instantiate(config.trainer)
    try:
        with _silent_lightning():
            trainer: pl.Trainer = build(logger=False, enable_checkpointing=False)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"Lightning's Trainer refuses what `trainer` says: {error}") from error
    return trainer


@contextlib.contextmanager
def _silent_lightning() -> Iterator[None]:
    """Silence Lightning's notes on devices; the Trainer that trains prints them again."""
    # Which of the two names Lightning logs under depends on what was imported first.
    loggers = [logging.getLogger(f"{name}.utilities.rank_zero") for name in ("pytorch_lightning", "lightning.pytorch")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def refuse_own_processes(config: DictConfig) -> None:
    """Raise if a job of a sweep would start further processes, each of which would run the whole sweep again.

    Args:
        config: With the node ``trainer``. Settings that the Trainer refuses are left for the job to report.

    Raises:
        ConfigError: With the ways to train on several devices.
    """
    try:
        trainer = trial_trainer(config)
    except ConfigError:
        return
    strategy: Any = trainer.strategy
    launches = type(strategy.launcher).__name__ == "_SubprocessScriptLauncher"  # of either import name of Lightning
    if launches and trainer.num_devices > 1 and not strategy.cluster_environment.creates_processes_externally:
        raise ConfigError(
            f"A job of a sweep runs in one process, but trainer.strategy={config.trainer.strategy} with "
            f"trainer.devices={config.trainer.devices} starts this command once more for each device, and each would "
            "begin the whole sweep. Give each job one device (trainer.devices=1; sweep=joblib runs several at a time), "
            "or run the jobs by themselves, without -m."
        )
