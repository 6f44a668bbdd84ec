"""Which of several recipes moves the ranker most, and which of them cannot be told apart.

Recipes are compared paired, on the test events of one split. With several seeds a recipe's gain is the mean over them,
and its error holds how much they differ: users and seeds are both drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.stats import norm

from lis_lightning.errors import ConfigError
from lis_lightning.functional.intervals import Z95, Estimate, cluster_interval
from lis_lightning.results.format import format_bounds, format_gain, format_share, render_plain
from lis_lightning.results.snapshot import Snapshot

SURE = 0.05  # of the probability, after correction, that two recipes as good as each other are told apart


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of one recipe, one a seed.

    Attributes:
        best: The best snapshot of each run; its gain is a little too high for having been picked.
        seconds: What all of them took, training included; NaN where nobody knows.
        failed: Runs that ended in an error.
        pruned: Runs that were ended for being behind; what they had reached is among `best`.
    """

    best: Sequence[Snapshot]
    seconds: float = math.nan
    failed: int = 0
    pruned: int = 0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A line of the leaderboard.

    Attributes:
        recipe: Its name.
        ais: Mean best AIS over seeds, with its interval; NaN where every run failed.
        realised: Mean of the shares of the ceiling aligned to; NaN where there is none.
        step: Optimizer step of the best snapshot of the best run.
        verdict: Its verdict.
        seeds: Runs that came to an end.
        failed: Runs that did not.
        pruned: Of `seeds`, those that were ended for being behind.
        seconds: What all of them took.
        behind: What the leader gains more, paired by user; NaN for the leader.
        p: Probability of so large a difference between two recipes that are equally good, corrected for all pairs
            that could have been compared (Holm 1979); NaN for the leader.
    """

    recipe: str
    ais: Estimate
    realised: float
    step: int | None
    verdict: str
    seeds: int
    failed: int
    seconds: float
    behind: Estimate
    p: float
    pruned: int = 0

    @property
    def tied(self) -> bool:
        """Whether it cannot be told from the leader."""
        return not self.p < SURE and bool(self.seeds)


_NOTHING = Estimate(value=math.nan, se=math.nan, low=math.nan, high=math.nan)


def rank_recipes(runs: Mapping[str, Runs]) -> list[Standing]:
    """Rank recipes by their best AIS, and say how sure the order is.

    Args:
        runs: By name of the recipe.

    Returns:
        Standings, the best first; recipes without a finished run last.

    Raises:
        ConfigError: If the runs were scored on different splits.
    """
    hashes = {result.split_hash for one in runs.values() for result in one.best}
    if len(hashes) > 1:
        raise ConfigError(
            f"The runs were scored on {len(hashes)} different splits ({', '.join(sorted(hashes))}); only runs on one "
            "split can be compared. Give all of them one log and the same lis.split options."
        )
    ranked = sorted(runs, key=lambda name: _gains(runs[name]).mean() if runs[name].best else -math.inf, reverse=True)
    finished = [name for name in ranked if runs[name].best]
    gaps = {name: _difference(runs[finished[0]], runs[name]) for name in finished[1:]}
    chances = _holm({name: 2 * float(norm.sf(abs(gap.z))) for name, gap in gaps.items()}, len(finished))
    return [_standing(name, runs[name], gaps.get(name, _NOTHING), chances.get(name, math.nan)) for name in ranked]


def _standing(name: str, runs: Runs, behind: Estimate, p: float) -> Standing:
    best = max(runs.best, key=lambda result: result.ais, default=None)
    shares = [result.realised for result in runs.best if not math.isnan(result.realised)]
    return Standing(
        recipe=name,
        ais=_combined(_gains(runs), _influence(runs)) if runs.best else _NOTHING,
        realised=float(np.mean(shares)) if shares else math.nan,
        step=None if best is None else best.step,
        verdict="failed" if best is None else best.verdict,
        seeds=len(runs.best),
        failed=runs.failed,
        seconds=runs.seconds,
        behind=behind,
        p=p,
        pruned=runs.pruned,
    )


def _gains(runs: Runs) -> np.ndarray:
    return np.array([result.ais for result in runs.best])


def _influence(runs: Runs) -> np.ndarray:
    return np.asarray(np.mean([result.influence for result in runs.best], axis=0))


def _combined(values: np.ndarray, influence: np.ndarray, *others: np.ndarray) -> Estimate:
    """Return the mean of the values with the error of drawing users, and of drawing the seeds of all that enter."""
    mean, of_users = float(values.mean()), cluster_interval(0.0, influence).se
    of_seeds = [one.var(ddof=1) / one.size for one in (values, *others) if one.size > 1]
    se = math.sqrt(of_users**2 + sum(of_seeds))
    return Estimate(value=mean, se=se, low=mean - Z95 * se, high=mean + Z95 * se)


def _difference(first: Runs, second: Runs) -> Estimate:
    one, other = _gains(first), _gains(second)
    return _combined(one - other.mean(), _influence(first) - _influence(second), other)


def _holm(chances: Mapping[str, float], number: int) -> dict[str, float]:
    """Return probabilities corrected for all pairs of `number` recipes: the leader was picked among them."""
    corrected, highest, pairs = {}, 0.0, number * (number - 1) // 2
    for rank, name in enumerate(sorted(chances, key=lambda name: chances[name])):
        highest = max(highest, min(1.0, (pairs - rank) * chances[name]))
        corrected[name] = highest
    return corrected


def conclusion(standings: Sequence[Standing]) -> str:
    """Say in a sentence which recipe to take."""
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
    """Return the leaderboard as a table, a row a recipe, numbers as they are."""
    rows = [
        {
            "recipe": standing.recipe,
            "ais": standing.ais.value,
            "ais_low": standing.ais.low,
            "ais_high": standing.ais.high,
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
    """Return the leaderboard as a table for a terminal; recipes that cannot be told from the leader bear an =."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, header_style="bold")
    for heading in ("", "recipe", "best AIS", "95 % interval", "realised", "step", "seeds", "minutes", "behind", "p"):
        table.add_column(heading, justify="left" if heading in {"", "recipe"} else "right", no_wrap=True)
    table.add_column("verdict")
    for number, standing in enumerate(standings, start=1):
        known, lost = bool(standing.seeds), ((standing.pruned, "pruned"), (standing.failed, "failed"))
        table.add_row(
            f"{number}{' =' if number > 1 and standing.tied else ''}",
            standing.recipe,
            format_gain(standing.ais.value),
            format_bounds(standing.ais.low, standing.ais.high) if known else "-",
            format_share(standing.realised),
            "-" if standing.step is None else str(standing.step),
            ", ".join([str(standing.seeds), *(f"{n} {what}" for n, what in lost if n)]),
            "-" if math.isnan(standing.seconds) else f"{standing.seconds / 60:.1f}",
            "" if math.isnan(standing.p) else format_gain(standing.behind.value),
            "" if math.isnan(standing.p) else f"{standing.p:.2g}",
            standing.verdict,
        )
    names = max((len(standing.recipe) for standing in standings), default=0)
    return render_plain(table, width=130 + names)
