"""What the Trainer refuses, and what a sweep cannot run, before anything is loaded."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from lis_lightning.errors import ConfigError


def trial_trainer(config: DictConfig) -> pl.Trainer:
    """Return a Trainer as the settings say, which trains nothing.

    Args:
        config: With the node ``trainer``.

    Raises:
        ConfigError: In Lightning's words, if it refuses a value.
    """
    build: Any = instantiate(config.trainer)
    # The one that trains says it all again; under which name depends on what was imported first.
    said = [logging.getLogger(f"{name}.utilities.rank_zero") for name in ("pytorch_lightning", "lightning.pytorch")]
    before = [logger.disabled for logger in said]
    for logger in said:
        logger.disabled = True
    try:
        trainer: pl.Trainer = build(logger=False, enable_checkpointing=False)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"Lightning's Trainer refuses what `trainer` says: {error}") from error
    finally:
        for logger, disabled in zip(said, before, strict=True):
            logger.disabled = disabled
    return trainer


def refuse_own_processes(config: DictConfig) -> None:
    """Raise where a job of a sweep would start processes itself: each would begin the whole sweep anew.

    Args:
        config: With the node ``trainer``. What the Trainer refuses is left for the job to fail with.

    Raises:
        ConfigError: With the ways there are to train on several devices.
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
