"""The command lines: ``lis-align`` fine-tunes an item encoder, ``lis-audit`` looks at the data before that."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lis_lightning.cli import hydra_plugins as _hydra
from lis_lightning.cli.config import check_config, unknown_key
from lis_lightning.cli.resources import resource_dir
from lis_lightning.data.cache import cache_folder
from lis_lightning.errors import ConfigError, LisError, LisWarning

if TYPE_CHECKING:
    from lis_lightning.align.training.pruning import Rival
    from lis_lightning.align.training.run import Monitoring, Run
    from lis_lightning.scoring.audit import Audit

_NOT_OF_A_JOB = {
    "prune",
    "retry",
    "stop_at",
    "sweep",
    "sweep_name",
}  # settings that change how jobs are run, not what they are


def main() -> None:
    """Run ``lis-align``."""
    _run("lis-align", _align)


def audit() -> None:
    """Run ``lis-audit``."""
    _run("lis-audit", _audit)


def _run(name: str, command: Callable[[], Any]) -> None:
    """Run a command; an error that names what to mend is a message and exit status 1, not a traceback."""
    # Hydra cuts tracebacks and swallows types; left alone, errors reach the handler below as they are.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        _hydra.check_choices(sys.argv[1:])
        _hydra.register()
        command()
    except (LisError, HydraException, OmegaConfBaseException, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:
            raise  # it does not say which file: its place may
        print(f"{name}: {_in_words(error)}", file=sys.stderr)  # noqa: T201  # a command's last word
        raise SystemExit(1) from None


def _in_words(error: BaseException) -> str:
    """Return an error's kind and message; of a bare wrapper, those of its cause."""
    if (told := unknown_key(error)) is not None:
        return f"ConfigError: {told}"
    while not str(error) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OverrideParseException):
        return (
            f"{type(error).__name__}: {error}\nIn quotes any text is taken: 'data.log=\"words, spaces and ü.parquet\"'."
        )
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, LisError | OSError):
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


@hydra.main(version_base="1.3", config_path=str(resource_dir("conf")), config_name="align")
def _align(config: DictConfig) -> float:
    """Run one job; returns the best AIS, for sweepers that maximise it."""
    from lis_lightning.cli.sweep import best_finished, run_once
    from lis_lightning.cli.trainer import refuse_own_processes
    from lis_lightning.results.jobs import Job, digest

    told = HydraConfig.get()
    given = (override.lstrip("+~").partition("=")[::2] for override in told.overrides.task)
    overrides = {key: value for key, value in given if key not in _NOT_OF_A_JOB}
    recipe = str(told.runtime.choices["recipe"])
    plain: Any = OmegaConf.to_container(config, resolve=False)
    known = digest({key: value for key, value in plain.items() if key not in _NOT_OF_A_JOB})
    folder, swept = Path(told.runtime.output_dir), told.mode == RunMode.MULTIRUN
    if swept:
        refuse_own_processes(config)
    elif config.prune:
        raise ConfigError("prune=true compares the jobs of a sweep: add -m, or leave it out.")
    group = config.sweep_name if swept else None
    rival = partial(best_finished, Path(told.sweep.dir)) if swept and config.prune else None
    job = Job(
        recipe=recipe, seed=config.seed, overrides=overrides, digest=known, stop_at=config.stop_at,
        prune=rival is not None,
    )  # fmt: skip
    return run_once(folder, job, lambda: _train(config, folder, group, rival), retry=config.retry, survive=swept)


def _train(config: DictConfig, run_dir: Path, group: str | None, rival: Callable[[], Rival | None] | None) -> Run:
    """Train and score as the configuration says."""
    from lis_lightning.align.training.run import align
    from lis_lightning.cli.trainer import trial_trainer

    _hydra.import_from_user_folder()
    check_config(config, "align")
    trial_trainer(config)
    _quiet_known_noise()
    monitoring = _monitoring(config)
    cache_dir = _settle_cache(config, run_dir)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    loggers = _loggers(config, run_dir, group)
    with _closed(loggers):
        return align(
            instantiate(config.data),
            instantiate(config.model),
            trainer=instantiate(config.trainer),
            loggers=loggers,
            objectives=_given(instantiate(config.objectives, _convert_="all")),
            regularisers=_given(instantiate(config.regularisers, _convert_="all")),
            training=_plain(plain["training"]),
            split_options=_plain(plain["lis"]["split"]),
            monitoring=monitoring,
            run_dir=run_dir,
            cache_dir=cache_dir,
            seed=config.seed,
            stop_at=config.stop_at,
            rival=rival,
        )


def _monitoring(config: DictConfig) -> Monitoring:
    """Return when snapshots are taken, as `lis` says."""
    from lis_lightning.align.training.run import Monitoring

    given: Any = instantiate(config.lis, _convert_="all")
    return Monitoring(**{key: value for key, value in given.items() if key != "split"})


@contextlib.contextmanager
def _closed(loggers: list[Any]) -> Iterator[None]:
    """End the runs of the loggers afterwards: the next job of a sweep in this process has its own."""
    from lis_lightning.tracking.loggers import close

    failed = True
    try:
        yield
        failed = False
    finally:
        for failure in close(loggers, failed=failed):
            warnings.warn(failure, LisWarning, stacklevel=1)


def _settle_cache(config: DictConfig, run_dir: Path) -> Path:
    """Return where worlds and items are kept; where caches are switched off, they stay with the run."""
    folder = cache_folder(config.cache_dir) or run_dir / "cache"
    config.cache_dir = str(folder)
    return folder


@hydra.main(version_base="1.3", config_path=str(resource_dir("conf")), config_name="audit")
def _audit(config: DictConfig) -> None:
    """Run one audit."""
    audit_config(config, Path(HydraConfig.get().runtime.output_dir))


def audit_config(config: DictConfig, folder: Path) -> Audit:
    """Audit what a configuration names.

    Args:
        config: As composed from ``conf/audit.yaml``.
        folder: Where the files go.
    """
    from lis_lightning.cli.audit import audit_data

    check_config(config, "audit")
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return audit_data(
        instantiate(config.data),
        split_options=_plain(plain["lis"]["split"]),
        preferences=instantiate(config.preferences, _convert_="all"),
        embeddings=plain["embeddings"],
        row_ids=config.row_ids,
        id_column=config.id_column,
        aligned_to=config.aligned_to,
        folder=folder,
    )


def _loggers(config: DictConfig, run_dir: Path, group: str | None = None) -> list[Any]:
    """Build the loggers; W&B is offline where no key is configured, and the jobs of a sweep are one group."""
    from lis_lightning.tracking.wandb_run import wandb_mode

    loggers = []
    for name, spec in _given(config.logger or {}).items():
        options = {"save_dir": str(run_dir)}
        if name == "wandb":  # with its server dead, a job would never end; `wandb sync` uploads what is missing
            os.environ.setdefault("WANDB_FINISH_TIMEOUT", "300")
        if name == "wandb" and (mode := wandb_mode()) is not None:
            options["mode"] = mode
        if name == "wandb" and group is not None and not spec.get("group"):
            options["group"] = group
        if name == "wandb" and group is not None:  # a job that is retried or goes on is still one run
            options |= {"id": hashlib.sha256(f"{group}/{run_dir.name}".encode()).hexdigest()[:12]}
            options |= {} if options.get("mode") == "offline" else {"resume": "allow"}
        logger = instantiate(spec, **options)
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
        loggers.append(logger)
    return loggers


def _given(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not null: `objectives.pairs=null` leaves one of several out."""
    return {name: one for name, one in named.items() if one is not None}


def _plain(value: Any) -> dict[str, Any]:
    """Return a config section with lists as tuples, as Python arguments are written."""
    return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}


def _quiet_known_noise() -> None:
    """Silence advice about settings that are what we mean: items load in-process, frozen towers are in eval mode."""
    settings = ("does not have many workers", "`log_every_n_steps`", "exists and is not empty", "in eval mode at the")
    for words in (*settings, "LeafSpec"):
        warnings.filterwarnings("ignore", message=f".*{words}.*")
    said = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    said.addFilter(lambda record: "Tip:" not in record.getMessage())
