"""Racing: train several recipes in rungs, and drop those that are significantly worse than the leader.

As in successive halving (Jamieson and Talwalkar 2016), all recipes begin with a small budget and few receive all of it.
Unlike there, the lower half is not dropped: a recipe is dropped where its paired difference to the leader is
significant after correction. Recipes that tie go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lis_lightning.errors import ConfigError
from lis_lightning.results.leaderboard import SIGNIFICANCE, Runs, Standing, rank_recipes


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The decision at one rung of a race.

    Attributes:
        leader: The best recipe so far; None if every run failed.
        survivors: Recipes that continue, the best first.
        dropped: Standings of the recipes that are significantly worse than the leader.
        failed: Recipes all of whose runs failed.
    """

    leader: str | None
    survivors: Sequence[str]
    dropped: Sequence[Standing]
    failed: Sequence[str]


def rung_steps(max_steps: int, every_n_steps: int, shares: Sequence[float]) -> list[int]:
    """Return the optimizer steps at which recipes are compared, each rounded to a step with a snapshot.

    Args:
        max_steps: Optimizer steps of a whole run.
        every_n_steps: Optimizer steps between snapshots.
        shares: The rungs as shares of a whole run, each above 0 and below 1.

    Raises:
        ConfigError: If a share is out of range, `max_steps` or `every_n_steps` is below 1, or no rung comes before the
            last step.

    Example:
        >>> rung_steps(200, 25, [0.1, 0.25, 0.5])
        [25, 50, 100]
    """
    if not shares or not all(0.0 < share < 1.0 for share in shares):
        raise ConfigError(f"`rungs` must be shares of a run, above 0 and below 1, got {list(shares)}.")
    if max_steps < 1:
        raise ConfigError(f"sweep=race shares out the steps of a run: give trainer.max_steps, got {max_steps}.")
    if every_n_steps < 1:
        raise ConfigError(f"lis.every_n_steps must be at least 1 optimizer step, got {every_n_steps}.")
    steps = {max(round(share * max_steps / every_n_steps), 1) * every_n_steps for share in shares}
    inside = sorted(step for step in steps if step < max_steps)
    if not inside:
        raise ConfigError(
            f"There is no snapshot before the last of {max_steps} steps to compare recipes at; "
            f"lis.every_n_steps={every_n_steps} must be smaller, {max(max_steps // 8, 1)} for example."
        )
    return inside


def cut(runs: Mapping[str, Runs], num_rungs: int) -> Cut:
    """Decide which recipes continue after a rung.

    The probability that a recipe as good as the leader is dropped anywhere in a race is at most 5 %: the level is
    divided among the rungs (Bonferroni), and p-values are corrected for all pairs in a rung (Holm). The test compares
    the runs at this step only, so a recipe that starts slowly and would overtake later may be dropped.

    Args:
        runs: Runs of the recipes still in the race, with their snapshots up to the rung.
        num_rungs: Number of rungs of the race.
    """
    standings = rank_recipes(runs)
    survivors: list[str] = []
    dropped: list[Standing] = []
    failed: list[str] = []
    for standing in standings:
        if not standing.seeds:
            failed.append(standing.recipe)
        elif standing.p < SIGNIFICANCE / num_rungs:
            dropped.append(standing)
        else:
            survivors.append(standing.recipe)  # the leader always: its p is NaN
    return Cut(leader=survivors[0] if survivors else None, survivors=survivors, dropped=dropped, failed=failed)


def describe_cut(decision: Cut, step: int) -> str:
    """Return one line with the recipes that continue, and one for each that does not with the reason."""
    lines = [f"race, step {step}: {len(decision.survivors)} go on, {', '.join(decision.survivors) or 'none'}"]
    lines += [
        f"  dropped {standing.recipe}: AIS {standing.behind.value:.4f} behind {decision.leader} (p {standing.p:.1g})"
        for standing in decision.dropped
    ]
    return "\n".join([*lines, *(f"  dropped {name}: failed" for name in decision.failed)])
