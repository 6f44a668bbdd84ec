"""A leaderboard of recipes, with paired differences to the leader and Holm-corrected p-values.

Recipes are compared on the test events of one split, paired by user. With several seeds, the gain of a recipe is the
mean over its seeds, and its standard error includes the variance between seeds as well as that between users. Few seeds
say little of their variance: intervals and p-values use the t distribution of Satterthwaite's (1946) approximation.

The best snapshot of a run, and the best of several recipes, are too high on average for having been picked. The raw
values are ranked; a corrected one stands beside each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy.special import stdtrit

from lis_lightning.errors import ConfigError
from lis_lightning.functional.intervals import Estimate, cluster_interval, effective_users
from lis_lightning.functional.multiple_comparisons import holm
from lis_lightning.functional.simultaneous import cross_fitted_maximum
from lis_lightning.results.format import format_bounds, format_estimate, format_gain, format_share, render_plain
from lis_lightning.results.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.table import Table

SIGNIFICANCE = 0.05  # corrected p-value below which a recipe counts as worse than the leader
_NO_ESTIMATE = Estimate(value=math.nan, se=math.nan, low=math.nan, high=math.nan)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of one recipe, one per seed.

    Attributes:
        best: The best snapshot of each run. Its gain is biased slightly upwards by that selection.
        start: The snapshot of each run before any training; empty unless all runs have one.
        corrected: AIS of each of these corrected for that, as
            :func:`lis_lightning.results.corrected_best` returns it; empty if unknown.
        seconds: Total duration, including training; NaN if unknown.
        failed: Number of runs that ended in an error.
        pruned: Number of runs that were stopped early because they were behind; their best snapshots are in `best`.

    Example:
        >>> runs = Runs(best=[], seconds=90.0, failed=2)
        >>> runs.failed, runs.pruned
        (2, 0)
    """

    best: Sequence[Snapshot]
    start: Sequence[Snapshot] = ()
    corrected: Sequence[float] = ()
    seconds: float = math.nan
    failed: int = 0
    pruned: int = 0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One row of the leaderboard.

    Attributes:
        recipe: Name of the recipe.
        ais: Mean best AIS over seeds, with its interval; NaN if every run failed.
        corrected: The same, corrected for the choice of the best snapshot of each run and, for the leader, for having
            been picked among the recipes; NaN if unknown.
        start: Mean AIS before any training, which the pre-trained model brings; NaN if unknown.
        trained: Mean gain of the best snapshots over those, paired by user, which the recipe brings; NaN if unknown.
        headroom: Mean AUC gain that the preference data of the recipe would still add; NaN if unknown.
        realised: Mean realised share of LIS, an estimate of what that data carries; NaN if unknown.
        step: Optimizer step of the best snapshot of the best run.
        verdict: Verdict of that snapshot.
        seeds: Number of runs with a result.
        failed: Number of failed runs.
        pruned: Number of the `seeds` runs that were stopped early because they were behind.
        seconds: Total duration of the runs.
        behind: Gain of the leader minus that of this recipe, paired by user, in AUC units; NaN for the leader.
        p: Two-sided p-value of that difference, corrected for all pairs of recipes (Holm 1979); NaN for the leader.

    Example:
        >>> standing = rank_recipes({"mine": Runs(best=[], failed=2)})[0]
        >>> standing.recipe, standing.verdict, standing.failed, standing.tied
        ('mine', 'failed', 2, False)
    """

    recipe: str
    ais: Estimate
    corrected: Estimate
    headroom: float
    realised: float
    step: int | None
    verdict: str
    seeds: int
    failed: int
    seconds: float
    behind: Estimate
    p: float
    pruned: int = 0
    start: Estimate = _NO_ESTIMATE
    trained: Estimate = _NO_ESTIMATE

    @property
    def tied(self) -> bool:
        """Whether the difference to the leader is not significant."""
        return not self.p < SIGNIFICANCE and bool(self.seeds)


def rank_recipes(runs: Mapping[str, Runs]) -> list[Standing]:
    """Rank recipes by their mean best AIS, with the significance of each difference to the leader.

    Args:
        runs: The runs, by name of the recipe.

    Returns:
        Standings, the best first; recipes without a finished run last.

    Raises:
        ConfigError: If the runs were scored on different splits.

    Example:
        >>> import numpy as np
        >>> def snapshot(ais: float) -> Snapshot:
        ...     return Snapshot(ais=ais, ais_low=ais - 0.001, ais_high=ais + 0.001, ais_geometry=ais, auc_base=0.7,
        ...                     auc=0.7 + ais, influence=np.array([1e-4, -1e-4, 2e-4]), step=100)
        >>> standings = rank_recipes({"a": Runs(best=[snapshot(0.010)]), "b": Runs(best=[snapshot(0.012)])})
        >>> [(standing.recipe, standing.ais.value) for standing in standings]
        [('b', 0.012), ('a', 0.01)]
    """
    hashes = {result.split_hash for recipe_runs in runs.values() for result in recipe_runs.best}
    if len(hashes) > 1:
        raise ConfigError(
            f"The runs were scored on {len(hashes)} different splits ({', '.join(sorted(hashes))}); only runs on one "
            "split can be compared. Give all of them one log and the same lis.split options."
        )
    mean_gains = {name: _gains(runs[name]).mean() for name in runs if runs[name].best}
    ranked = sorted(runs, key=lambda name: mean_gains.get(name, -math.inf), reverse=True)
    finished = [name for name in ranked if name in mean_gains]
    gaps = {name: _difference(runs[finished[0]], runs[name]) for name in finished[1:]}
    # For all pairs of recipes, because the leader was selected among them.
    corrected = holm([gap.p for gap in gaps.values()], math.comb(len(finished), 2))
    p_values = dict(zip(gaps, corrected, strict=True))
    standings = [
        _standing(name, runs[name], gaps.get(name, _NO_ESTIMATE), p_values.get(name, math.nan)) for name in ranked
    ]
    if len(finished) > 1:
        bias = _leader_bias([runs[name] for name in finished])
        standings[0] = replace(standings[0], corrected=_shifted(standings[0].corrected, -bias))
    return standings


def _leader_bias(finished: Sequence[Runs]) -> float:
    """Return by how much the best of several recipes is too high on average for having been picked."""
    gains = np.array([_gains(runs).mean() for runs in finished])
    influence = np.array([_influence(runs) for runs in finished])
    return float(gains.max()) - cross_fitted_maximum(gains, influence).value


def _shifted(estimate: Estimate, by: float) -> Estimate:
    return replace(estimate, value=estimate.value + by, low=estimate.low + by, high=estimate.high + by)


def _standing(name: str, runs: Runs, behind: Estimate, p: float) -> Standing:
    ais, corrected, step, verdict = _NO_ESTIMATE, _NO_ESTIMATE, None, "failed"
    if runs.best:
        best = max(runs.best, key=lambda result: result.ais)
        ais, step, verdict = _combined(_gains(runs), _influence(runs)), best.step, best.verdict
    start, trained = _start_and_gain(runs)
    if runs.corrected:
        corrected = _shifted(ais, float(np.mean(runs.corrected)) - ais.value)
    return Standing(
        recipe=name,
        ais=ais,
        corrected=corrected,
        headroom=_finite_mean([result.headroom for result in runs.best]),
        realised=_finite_mean([result.realised for result in runs.best]),
        step=step,
        verdict=verdict,
        seeds=len(runs.best),
        failed=runs.failed,
        seconds=runs.seconds,
        behind=behind,
        p=p,
        pruned=runs.pruned,
        start=start,
        trained=trained,
    )


def _start_and_gain(runs: Runs) -> tuple[Estimate, Estimate]:
    """Return the mean AIS before training, and the mean gain of the best snapshots over it, paired by user."""
    if not runs.best or len(runs.start) != len(runs.best):
        return _NO_ESTIMATE, _NO_ESTIMATE
    before = np.array([result.ais for result in runs.start])
    influence = np.asarray(np.mean([result.influence for result in runs.start], axis=0))
    gained = _combined(_gains(runs) - before, _influence(runs) - influence)
    return _combined(before, influence), gained


def _finite_mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are known; NaN if none is."""
    finite = [value for value in values if not math.isnan(value)]
    return float(np.mean(finite)) if finite else math.nan


def _gains(runs: Runs) -> np.ndarray:
    return np.array([result.ais for result in runs.best])


def _influence(runs: Runs) -> np.ndarray:
    return np.asarray(np.mean([result.influence for result in runs.best], axis=0))


def _combined(values: np.ndarray, influence: np.ndarray, *subtracted: np.ndarray) -> Estimate:
    """Return the mean over seeds, with the variance between users plus the variance between seeds.

    The degrees of freedom are those of Satterthwaite: each variance counts with the number of users or seeds behind it.

    Args:
        values: Gain of each seed.
        influence: Per-user sums of influence values, averaged over seeds.
        *subtracted: Gains by seed whose mean was subtracted from `values`; their variance between seeds is added.
    """
    mean, user_se = float(values.mean()), cluster_interval(0.0, influence).se
    seeds = [gains for gains in (values, *subtracted) if gains.size > 1]
    parts = [(user_se**2, effective_users(influence))]
    parts += [(gains.var(ddof=1) / gains.size, gains.size - 1) for gains in seeds]
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / degrees for part, degrees in parts)
    degrees = variance**2 / spread if spread > 0 else math.inf
    se = math.sqrt(variance)
    margin = float(stdtrit(degrees, 0.975)) * se
    return Estimate(value=mean, se=se, low=mean - margin, high=mean + margin, degrees=degrees)


def _difference(first: Runs, second: Runs) -> Estimate:
    """Return the paired difference of the mean gains of two recipes."""
    gains, subtracted = _gains(first), _gains(second)
    return _combined(gains - subtracted.mean(), _influence(first) - _influence(second), subtracted)


def conclusion(standings: Sequence[Standing]) -> str:
    """Return a sentence that names the best recipe, or the recipes that tie.

    Args:
        standings: The leaderboard, from :func:`rank_recipes`.

    Example:
        >>> import numpy as np
        >>> best = Snapshot(ais=0.01, ais_low=0.009, ais_high=0.011, ais_geometry=0.01, auc_base=0.7, auc=0.71,
        ...                 influence=np.array([1e-4, -1e-4, 2e-4]), step=100)
        >>> conclusion(rank_recipes({"mine": Runs(best=[best]), "theirs": Runs(best=[], failed=1)}))
        'mine leads with AIS +0.0100, clearly before all others. It is the only one.'
    """
    finished = [standing for standing in standings if standing.seeds]
    if not finished:
        return "Every run failed: there is nothing to compare."
    first, tied = finished[0], [standing.recipe for standing in finished[1:] if standing.tied]
    alone = "" if len(finished) > 1 else " It is the only one."
    if first.ais.low <= 0:
        return f"No recipe is clearly above 0; {first.recipe} is highest, {format_gain(first.ais.value)}.{alone}"
    if not tied:
        return f"{first.recipe} leads with AIS {format_gain(first.ais.value)}, clearly before all others.{alone}"
    others = "; the others are behind" if len(tied) + 1 < len(finished) else ""
    return f"{', '.join([first.recipe, *tied[:-1]])} and {tied[-1]} cannot be told apart{others}."


def standings_frame(standings: Sequence[Standing]) -> pl.DataFrame:
    """Return the leaderboard as a data frame with unrounded numbers, one row per recipe."""
    rows = [
        {
            "recipe": standing.recipe,
            "ais": standing.ais.value,
            "ais_low": standing.ais.low,
            "ais_high": standing.ais.high,
            "ais_corrected": standing.corrected.value,
            "ais_corrected_low": standing.corrected.low,
            "ais_corrected_high": standing.corrected.high,
            "start": standing.start.value,
            "start_low": standing.start.low,
            "start_high": standing.start.high,
            "trained": standing.trained.value,
            "trained_low": standing.trained.low,
            "trained_high": standing.trained.high,
            "headroom": standing.headroom,
            "realised": standing.realised,
            "best_step": standing.step,
            "verdict": standing.verdict,
            "seeds": standing.seeds,
            "failed": standing.failed,
            "pruned": standing.pruned,
            "seconds": standing.seconds,
            "behind": standing.behind.value,
            "behind_z": standing.behind.z,
            "p": standing.p,
            "tied": standing.tied,
        }
        for standing in standings
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def render_standings(standings: Sequence[Standing]) -> str:
    """Return the leaderboard as a plain-text table; ``=`` marks recipes that tie with the leader.

    Args:
        standings: The leaderboard, from :func:`rank_recipes`.

    Example:
        >>> table = render_standings(rank_recipes({"mine": Runs(best=[], failed=2)}))
        >>> table.splitlines()[-1].split()
        ['1', 'mine', '-', '-', '-', '-', '-', '-', '0,', '2', 'failed', '-', 'failed']
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, header_style="bold")
    headings = ("", "recipe", "best AIS", "95 % interval", "corrected", "headroom", "realised", "step", "seeds")
    for heading in (*headings, "minutes", "behind", "p"):
        table.add_column(heading, justify="left" if heading in {"", "recipe"} else "right", no_wrap=True)
    table.add_column("verdict")
    for number, standing in enumerate(standings, start=1):
        table.add_row(*_cells(number, standing))
    longest_name = max((len(standing.recipe) for standing in standings), default=0)
    return render_plain(table, *_start_table(standings), width=154 + longest_name)


def _start_table(standings: Sequence[Standing]) -> list[Table]:
    """Return a table of what each recipe started from and what training added; none where no start is known."""
    from rich import box
    from rich.table import Table

    known = [standing for standing in standings if not math.isnan(standing.start.value)]
    if not known:
        return []
    table = Table(box=box.SIMPLE, header_style="bold")
    for heading in ("recipe", "start: AIS before training", "training: paired gain of the best over the start"):
        table.add_column(heading, no_wrap=True)
    for standing in known:
        table.add_row(standing.recipe, format_estimate(standing.start), format_estimate(standing.trained))
    return [table]


def _cells(number: int, standing: Standing) -> list[str]:
    """Return the cells of a row of the table, from the rank to the verdict."""
    tie = " =" if number > 1 and standing.tied else ""
    interval = format_bounds(standing.ais.low, standing.ais.high) if standing.seeds else "-"
    step = "-" if standing.step is None else str(standing.step)
    seeds = str(standing.seeds)
    for count, fate in ((standing.pruned, "pruned"), (standing.failed, "failed")):
        seeds += f", {count} {fate}" if count else ""
    minutes = "-" if math.isnan(standing.seconds) else f"{standing.seconds / 60:.1f}"
    behind, p = format_gain(standing.behind.value), f"{standing.p:.2g}"
    if math.isnan(standing.p):  # the leader, and recipes without a finished run
        behind = p = ""
    return [
        f"{number}{tie}",
        standing.recipe,
        format_gain(standing.ais.value),
        interval,
        format_gain(standing.corrected.value),
        format_gain(standing.headroom),
        format_share(standing.realised),
        step,
        seeds,
        minutes,
        behind,
        p,
        standing.verdict,
    ]
