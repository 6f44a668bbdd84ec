"""The command ``lis-align``: fine-tune an item encoder and score its representations during training.

Modules that load torch are imported inside the functions that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lis_lightning.cli.command import run_command
from lis_lightning.cli.config_check import check_config
from lis_lightning.cli.config_values import drop_null, lists_as_tuples
from lis_lightning.cli.extras import require_extra
from lis_lightning.cli.hydra_command import run_hydra_command
from lis_lightning.cli.hydra_plugins import import_from_user_folder
from lis_lightning.cli.packaged_recipes import recipes_command
from lis_lightning.cli.resources import resource_dir
from lis_lightning.errors import ConfigError, LisWarning
from lis_lightning.scoring.cache import cache_folder

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from lis_lightning.align.data import AlignmentData
    from lis_lightning.align.training.pruning import Rival
    from lis_lightning.align.training.run import Monitoring, Run

# Settings that change how the jobs of a sweep are run and not what they compute.
_NOT_OF_A_JOB = {"prune", "retry", "stop_at", "sweep", "sweep_name"}


def main() -> None:
    """Run ``lis-align``."""
    if sys.argv[1:2] == ["--recipes"]:
        run_command("lis-align", lambda: print(recipes_command(sys.argv[2:], Path())))  # noqa: T201
        return
    run_hydra_command("lis-align", _align)


@hydra.main(version_base="1.3", config_path=str(resource_dir("conf")), config_name="align")
def _align(config: DictConfig) -> float:
    """Run one job; return its best AIS, which sweepers maximise."""
    require_extra("align", "lis-align")
    from lis_lightning.cli.sweep import best_finished, run_once
    from lis_lightning.cli.trainer_check import refuse_own_processes
    from lis_lightning.results.jobs import Job, digest

    settings = HydraConfig.get()
    folder, swept = Path(settings.runtime.output_dir), settings.mode == RunMode.MULTIRUN
    if swept:
        refuse_own_processes(config)
    elif config.prune:
        raise ConfigError("prune=true compares the jobs of a sweep: add -m, or leave it out.")
    plain: Any = OmegaConf.to_container(config, resolve=False)
    overrides = dict(override.lstrip("+~").partition("=")[::2] for override in settings.overrides.task)
    rival = partial(best_finished, Path(settings.sweep.dir)) if swept and config.prune else None
    job = Job(
        recipe=str(settings.runtime.choices["recipe"]),
        seed=config.seed,
        overrides=_of_a_job(overrides),
        digest=digest(_of_a_job(plain)),
        stop_at=config.stop_at,
        prune=rival is not None,
    )
    group = config.sweep_name if swept else None
    return run_once(folder, job, lambda: _train(config, folder, group, rival), retry=config.retry, survive=swept)


def _of_a_job(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _NOT_OF_A_JOB}


def _train(config: DictConfig, run_dir: Path, group: str | None, rival: Callable[[], Rival | None] | None) -> Run:
    """Train and score as the configuration says."""
    from lis_lightning.align.training.run import align
    from lis_lightning.cli.trainer_check import trial_trainer

    # Mistakes in the settings are reported before a model or data is loaded.
    import_from_user_folder()
    check_config(config, "align")
    trial_trainer(config)
    _quiet_known_noise()
    monitoring = _monitoring(config)
    cache_dir = _settle_cache(config, run_dir)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    with contextlib.ExitStack() as opened:

        def loggers() -> list[Any]:
            return opened.enter_context(_closed(_loggers(config, run_dir, group)))

        data = instantiate(config.data)
        run = align(
            data,
            instantiate(config.model),
            trainer=_trainer(config),
            loggers=loggers,
            objectives=drop_null(instantiate(config.objectives, _convert_="all")),
            regularisers=drop_null(instantiate(config.regularisers, _convert_="all")),
            training=lists_as_tuples(plain["training"]),
            split_options=lists_as_tuples(plain["lis"]["split"]),
            monitoring=monitoring,
            run_dir=run_dir,
            cache_dir=cache_dir,
            seed=config.seed,
            stop_at=config.stop_at,
            rival=rival,
        )
    _print_summary(run, plain["data"], data, run_dir)
    return run


def _trainer(config: DictConfig) -> Callable[..., Trainer]:
    """Return what builds the Trainer, by default with a progress bar if standard error is a terminal."""
    from lis_lightning.align.training.step_progress import StepProgress

    build = instantiate(config.trainer)
    wanted = config.trainer.get("enable_progress_bar")

    def trainer(*, callbacks: list[Any], enable_progress_bar: bool | None = wanted, **options: Any) -> Trainer:
        shown = sys.stderr.isatty() if enable_progress_bar is None else enable_progress_bar
        bars = [StepProgress()] if shown else []
        made: Trainer = build(callbacks=[*callbacks, *bars], enable_progress_bar=shown, **options)
        return made

    return trainer


def _print_summary(run: Run, section: dict[str, Any], data: AlignmentData, run_dir: Path) -> None:
    """Print, on the first process, the end of the output, with the command that encodes items with the best weights."""
    from pytorch_lightning.utilities import rank_zero_only

    from lis_lightning.align.training.console import rank_zero_print, summary
    from lis_lightning.cli.encode import encode_command

    command = None
    if run.checkpoint is not None:
        # Only there, since the command may need a table of the items, which it writes.
        command = rank_zero_only(encode_command)(section, data, run.checkpoint, run_dir)
    rank_zero_print(summary(run, command))


def _monitoring(config: DictConfig) -> Monitoring:
    """Return when snapshots are taken, from the section `lis`."""
    from lis_lightning.align.training.run import Monitoring

    section: Any = instantiate(config.lis, _convert_="all")
    return Monitoring(**{key: value for key, value in section.items() if key != "split"})


@contextlib.contextmanager
def _closed(loggers: list[Any]) -> Iterator[list[Any]]:
    """Close the runs of the loggers at the end: the next job of a sweep in this process opens its own."""
    from lis_lightning.tracking.loggers import close

    failed = True
    try:
        yield loggers
        failed = False
    finally:
        for failure in close(loggers, failed=failed):
            warnings.warn(failure, LisWarning, stacklevel=1)


def _settle_cache(config: DictConfig, run_dir: Path) -> Path:
    """Return the folder of worlds and processed items: the run's own folder where caches are switched off."""
    folder = cache_folder(config.cache_dir) or run_dir / "cache"
    config.cache_dir = str(folder)
    return folder


def _loggers(config: DictConfig, run_dir: Path, group: str | None = None) -> list[Any]:
    """Build the loggers, and log the configuration to each."""
    from lis_lightning.tracking.logger_options import drop_ignored_settings, run_options

    loggers = []
    for node in drop_null(config.logger or {}).values():
        logger = instantiate(node, **run_options(node, run_dir, group))
        drop_ignored_settings(logger)
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
        loggers.append(logger)
    return loggers


def _quiet_known_noise() -> None:
    """Silence Lightning's advice on settings that are intended, and its notes that say nothing of this run."""
    messages = ("does not have many workers", "`log_every_n_steps`", "exists and is not empty", "in eval mode at the")
    for message in (*messages, "LeafSpec"):
        warnings.filterwarnings("ignore", message=f".*{message}.*")
    rank_zero = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    notes = ("Tip:", "TPU available: False", "`Trainer.fit` stopped: `max_steps=")
    rank_zero.addFilter(lambda record: not any(note in record.getMessage() for note in notes))
