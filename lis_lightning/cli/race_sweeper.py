"""The Hydra sweeper behind ``sweep=race``: train in rungs, and drop recipes that are clearly behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from typing_extensions import override

from lis_lightning.errors import ConfigError

# Hydra takes sweepers from the namespace `hydra_plugins` only; a package there would be loaded by every Hydra app.
_TARGET = "hydra_plugins.lis_lightning.RaceSweeper"


@dataclass
class RaceConf:
    """Options of the sweeper, as Hydra checks them."""

    _target_: str = _TARGET
    rungs: list[float] = field(default_factory=lambda: [0.125, 0.25, 0.5])
    params: dict[str, str] = field(default_factory=dict)


class RaceSweeper(Sweeper):
    """Run the jobs of a grid up to a rung, drop the recipes that are clearly behind, and continue the others.

    The jobs run on any launcher.

    Args:
        rungs: Shares of ``trainer.max_steps`` after which recipes are compared.
        params: Overrides to sweep over, in addition to those of the command line.
    """

    def __init__(self, rungs: Sequence[float], params: Mapping[str, str]) -> None:
        self.rungs = list(rungs)
        self.params = dict(params)
        self._launched = 0

    @override
    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    @override
    def sweep(self, arguments: list[str]) -> list[list[JobReturn]]:
        # Imported here because Hydra executes the module of a sweeper anew when it looks for plugins.
        from lis_lightning.align.training.console import rank_zero_print
        from lis_lightning.results.jobs import Job, by_recipe, runs_of
        from lis_lightning.results.race import cut, describe_cut

        remaining = self._grid(arguments)
        steps, max_steps = self._steps(remaining)
        self._save_config()
        jobs: dict[Path, Job] = {}
        grid_steps, returns = len(remaining) * max_steps, []
        for step in steps:
            returns.append(self._launch([[*overrides, f"stop_at={step}"] for overrides in remaining]))
            folders = [_folder(job_return) for job_return in returns[-1]]
            rung = _read_jobs(folders)
            jobs |= rung
            recipes = by_recipe(rung)
            decision = cut({name: runs_of(members, until=step) for name, members in recipes.items()}, len(steps))
            rank_zero_print(describe_cut(decision, step))
            # Jobs are identified by their folders, overrides by their position.
            surviving = {folder for name in decision.survivors for folder in recipes[name]}
            remaining = [overrides for overrides, folder in zip(remaining, folders, strict=True) if folder in surviving]
            if len(decision.survivors) <= 1:
                break  # no other recipe is left to compare it with
        returns.append(self._launch(remaining))
        jobs |= _read_jobs([_folder(job_return) for job_return in returns[-1]])
        spent = sum(job.steps for job in jobs.values())
        rank_zero_print(
            f"race: {spent:,} optimizer steps of the {grid_steps:,} of the full grid ({spent / grid_steps:.0%})"
        )
        return returns

    def _grid(self, arguments: Sequence[str]) -> list[Sequence[str]]:
        """Return the overrides of each job, as Hydra's own sweeper makes them."""
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        context: Any = self.hydra_context
        parser = OverridesParser.create(config_loader=context.config_loader)
        overrides = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        return list(BasicSweeper.split_arguments(overrides, None)[0])

    def _save_config(self) -> None:
        """Write the configuration into the folder of the sweep, as Hydra's own sweeper does."""
        config: Any = self.config
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / "multirun.yaml")

    def _launch(self, jobs: Sequence[Sequence[str]]) -> list[JobReturn]:
        """Run jobs, and return their results in the same order."""
        launcher: Any = self.launcher
        returns = list(launcher.launch(jobs, initial_job_idx=self._launched)) if jobs else []
        self._launched += len(jobs)
        for job_return in returns:
            _ = job_return.return_value  # raises what the job raised
        return returns

    def _steps(self, jobs: Sequence[Sequence[str]]) -> tuple[list[int], int]:
        """Return the steps of the rungs and of a whole run, which all jobs must have in common."""
        from lis_lightning.results.race import rung_steps

        context: Any = self.hydra_context
        config: Any = self.config
        load = context.config_loader.load_sweep_config
        lengths = {_run_length(load(master_config=config, sweep_overrides=list(job))) for job in jobs}
        if len(lengths) > 1:
            raise ConfigError(
                "sweep=race compares runs of one length at one step, but the jobs differ in (trainer.max_steps, "
                f"lis.every_n_steps): {sorted(lengths)}. Sweep over other settings, or without sweep=race."
            )
        ((max_steps, every_n_steps),) = lengths
        return rung_steps(max_steps, every_n_steps, self.rungs), max_steps


def register() -> None:
    """Make ``hydra/sweeper=race`` known to Hydra in this process."""
    Plugins.instance().class_name_to_class[_TARGET] = RaceSweeper
    ConfigStore.instance().store(group="hydra/sweeper", name="race", node=RaceConf, provider="lis-lightning")


def _run_length(config: Any) -> tuple[int, int]:
    """Return the optimizer steps of a job and those between its snapshots; raise if it cannot be part of a race."""
    max_steps, every_n_steps = config.trainer.max_steps, config.lis.every_n_steps
    if config.prune:
        raise ConfigError("sweep=race drops what is behind by itself; leave prune=true out.")
    if every_n_steps is None:
        raise ConfigError(
            "sweep=race compares recipes at every lis.every_n_steps-th optimizer step, but it is null; set it "
            "in addition to lis.schedule, as in lis.every_n_steps=50."
        )
    if not isinstance(max_steps, int) or not isinstance(every_n_steps, int):
        raise ConfigError(
            "sweep=race needs whole numbers of steps, but trainer.max_steps and lis.every_n_steps are "
            f"{max_steps!r} and {every_n_steps!r}."
        )
    return int(max_steps), int(every_n_steps)


def _read_jobs(folders: Sequence[Path]) -> dict[Path, Any]:
    from lis_lightning.results.jobs import Job

    jobs = {folder: Job.read(folder) for folder in folders}
    return {folder: job for folder, job in jobs.items() if job is not None}


def _folder(job_return: JobReturn) -> Path:
    hydra: Any = job_return.hydra_cfg
    return Path(hydra.hydra.runtime.output_dir)
