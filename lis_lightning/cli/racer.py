"""The sweeper behind ``sweep=race``: jobs in rungs, whatever launcher runs them."""

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
    """Run the jobs of a grid up to a rung, drop the recipes that are behind, and go on with the rest.

    Args:
        rungs: Shares of ``trainer.max_steps`` after which recipes are compared.
        params: Overrides to sweep over beside those of the command line.
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
        # Not above: Hydra runs the module of its sweeper anew when it looks for plugins.
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        from lis_lightning.align.training.messages import say
        from lis_lightning.results.jobs import Job, by_recipe, runs_of
        from lis_lightning.results.race import cut, described

        context: Any = self.hydra_context
        parser = OverridesParser.create(config_loader=context.config_loader)
        overrides = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        going = BasicSweeper.split_arguments(overrides, None)[0]
        steps, whole = self._steps(going)
        self._save_config()
        jobs: dict[Path, Job] = {}
        grid, returns = len(going) * whole, []
        for step in steps:
            returns.append(self._launch([[*job, f"stop_at={step}"] for job in going]))
            places = [_folder(one) for one in returns[-1]]
            found = {place: job for place in places if (job := Job.read(place)) is not None}
            jobs |= found
            named = by_recipe(found)
            decision = cut({name: runs_of(members, until=step) for name, members in named.items()}, len(steps))
            say(described(decision, step))
            kept = {place for name in decision.kept for place in named[name]}
            going = [job for job, place in zip(going, places, strict=True) if place in kept]
            if len(decision.kept) <= 1:
                break  # nobody is left to compare it with
        returns.append(self._launch(going))
        jobs |= {place: job for one in returns[-1] if (job := Job.read(place := _folder(one)))}
        spent = sum(job.steps for job in jobs.values())
        say(f"race: {spent:,} optimizer steps of the {grid:,} of the full grid ({spent / grid:.0%})")
        return returns

    def _save_config(self) -> None:
        """Write what the sweep was told into its folder, as Hydra's own sweeper does."""
        config: Any = self.config
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / "multirun.yaml")

    def _launch(self, jobs: Sequence[Sequence[str]]) -> list[JobReturn]:
        """Run jobs, and return what became of them, in their order."""
        launcher: Any = self.launcher
        done = list(launcher.launch(jobs, initial_job_idx=self._launched)) if jobs else []
        self._launched += len(jobs)
        for one in done:
            _ = one.return_value  # raises what the job raised
        return done

    def _steps(self, jobs: Sequence[Sequence[str]]) -> tuple[list[int], int]:
        """Return the steps of the rungs and of a whole run, which all jobs must have in common."""
        from lis_lightning.results.race import rung_steps

        context: Any = self.hydra_context
        config: Any = self.config
        load = context.config_loader.load_sweep_config
        composed = [load(master_config=config, sweep_overrides=list(job)) for job in jobs]
        if any(one.prune for one in composed):
            raise ConfigError("sweep=race drops what is behind by itself; leave prune=true out.")
        if any(one.lis.every_n_steps is None for one in composed):
            raise ConfigError(
                "sweep=race compares recipes at every lis.every_n_steps-th optimizer step, but it is null; give it "
                "besides lis.schedule, lis.every_n_steps=50 for example."
            )
        for one in composed:
            if not all(isinstance(value, int) for value in (one.trainer.max_steps, one.lis.every_n_steps)):
                raise ConfigError(
                    "sweep=race shares out whole steps, but trainer.max_steps and lis.every_n_steps are "
                    f"{one.trainer.max_steps!r} and {one.lis.every_n_steps!r}."
                )
        lengths = {(int(one.trainer.max_steps), int(one.lis.every_n_steps)) for one in composed}
        if len(lengths) > 1:
            raise ConfigError(
                "sweep=race compares runs of one length at one step, but the jobs differ in (trainer.max_steps, "
                f"lis.every_n_steps): {sorted(lengths)}. Sweep over other settings, or without sweep=race."
            )
        ((max_steps, every),) = lengths
        return rung_steps(max_steps, every, self.rungs), max_steps


def register() -> None:
    """Make ``hydra/sweeper=race`` known to Hydra, in this process."""
    Plugins.instance().class_name_to_class[_TARGET] = RaceSweeper
    ConfigStore.instance().store(group="hydra/sweeper", name="race", node=RaceConf, provider="lis-lightning")


def _folder(done: JobReturn) -> Path:
    hydra: Any = done.hydra_cfg
    return Path(hydra.hydra.runtime.output_dir)
