"""Which way to align moves the ranker most, do the controls fail as they must, and what does a race save?"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

from lis_lightning.errors import ConfigError, LisError
from lis_lightning.results import (
    Runs,
    Standing,
    conclusion,
    jobs_in,
    rank_recipes,
    render_standings,
    results_of,
    runs_in,
)

RECIPES = (
    "infonce,hard_negatives,sessions,next_item,nested,mixed,distill,distill_contrastive,bpr,dpo,taxonomy,shuffled,"
    "attraction"
)
TOLD = [f"recipe={RECIPES}", "seed=1,2", "lis.every_n_steps=25"]
EXPECTED = {"shuffled": "data-bound", "attraction": "collapsed"}  # the controls, and what each must be found to be
RAW = "raw"  # a control that needs no run of its own: the encoder before its first step


def sweep(name: str, *overrides: str) -> None:
    """Run a sweep in a process of its own; one of the same name goes on where it stopped."""
    command = [sys.executable, "-c", "from lis_lightning.cli.align import main; main()", "-m", f"sweep_name={name}"]
    done = subprocess.run([*command, *overrides], check=False)  # noqa: S603  # our own command
    if done.returncode:
        raise ConfigError(f"The sweep {name!r} ended with code {done.returncode}; what it said stands above.")


def places_of(folder: Path) -> list[Standing]:
    """Return the leaderboard of a finished sweep, with the first snapshot of any of its runs as a further control."""
    runs = runs_in(folder)
    raw = next((results[0] for job_folder, job in jobs_in(folder) if (results := results_of(job_folder, job))), None)
    if raw is None:
        raise ConfigError(
            f"{folder} holds no run that came to an end; is it the folder of a sweep (outputs/sweeps/...)?"
        )
    return rank_recipes(runs | {RAW: Runs(best=[raw])})


def controls(places: list[Standing]) -> list[str]:
    """Say at which place each control came, and which recipe that is none came behind it."""
    ranks = {standing.recipe: rank for rank, standing in enumerate(places, start=1)}
    lines = []
    for name in [*EXPECTED, RAW]:
        if name not in ranks:
            continue
        last = (
            "the leader" if ranks[name] == 1 else "tied with the leader" if places[ranks[name] - 1].tied else "behind"
        )
        below = [standing.recipe for standing in places[ranks[name] :] if standing.recipe not in {*EXPECTED, RAW}]
        under = f", {', '.join(below)} below it" if below else ", no recipe below it"
        lines.append(f"  {name:20} place {ranks[name]} of {len(places)}, {last}{under}")
    return lines


def verdicts(folder: Path) -> list[str]:
    """Say what the evidence of each run said at its end, by recipe, and whether a control is what it must be."""
    verdicts_of: dict[str, list[str]] = {}
    for job_folder, job in jobs_in(folder):
        results = results_of(job_folder, job)
        verdicts_of.setdefault(job.recipe, []).append(results[-1].verdict if results else job.status)
    lines = []
    for recipe, of_recipe in verdicts_of.items():
        counted = ", ".join(f"{verdict} x{number}" for verdict, number in Counter(of_recipe).most_common())
        wanted = EXPECTED.get(recipe)
        as_wanted = f"   expected {wanted}: {of_recipe.count(str(wanted))} of {len(of_recipe)} runs"
        met = "" if wanted is None else as_wanted
        lines.append(f"  {recipe:20} {counted}{met}")
    return lines


def cost(grid: Path, race: Path) -> list[str]:
    """Say what a race spent of the grid's steps and minutes, and whether it ended with the same recipe."""
    jobs = {folder: [job for _, job in jobs_in(folder)] for folder in (grid, race)}
    if not jobs[race]:
        raise ConfigError(f"{race} holds no job; is it the folder of a race (lis-align sweep=race ...)?")
    runs = {folder: {(job.recipe, job.seed) for job in some} for folder, some in jobs.items()}
    if runs[grid] != runs[race]:
        raise ConfigError(
            f"Grid and race must have the same recipes and seeds, but {sorted(runs[grid] ^ runs[race])[:4]} are in one "
            "alone. Run both with the same words, but for sweep=race."
        )
    standings = {folder: rank_recipes(runs_in(folder)) for folder in jobs}
    first = {folder: standings[folder][0].recipe for folder in jobs}
    lost = next(standing.behind.value for standing in standings[grid] if standing.recipe == first[race])
    steps = {folder: sum(job.steps for job in some) for folder, some in jobs.items()}
    seconds = {folder: sum(job.seconds for job in some if not math.isnan(job.seconds)) for folder, some in jobs.items()}
    whole = sorted({job.recipe for job in jobs[race] if job.status == "finished"})
    return [
        f"  grid {steps[grid]:,} steps, {seconds[grid] / 60:.1f} minutes; race {steps[race]:,} steps "
        f"({steps[race] / steps[grid]:.0%}), {seconds[race] / 60:.1f} minutes ({seconds[race] / seconds[grid]:.0%})",
        f"  trained to the end in the race: {', '.join(whole) or 'none'}",
        f"  leader of the grid {first[grid]}, of the race {first[race]}"
        + ("" if math.isnan(lost) else f", which is {lost:.4f} behind it in the grid"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", default=TOLD, help="words for lis-align; default: all recipes, 2 seeds")
    parser.add_argument("--read", type=Path, metavar="DIR", help="a finished sweep; nothing is run")
    parser.add_argument("--race", type=Path, metavar="DIR", help="a finished race of the same jobs, for what it saved")
    args = parser.parse_args()
    grid, race = args.read, args.race
    try:
        if grid is None:
            sweep("all", *args.overrides)
            sweep("race", "sweep=race", *args.overrides)
            grid, race = Path("outputs/sweeps/all"), Path("outputs/sweeps/race")
        places = places_of(grid)
        lines = [
            "",
            render_standings(places),
            conclusion(places),
            "",
            "controls",
            *controls(places),
            "",
            "verdicts",
            *verdicts(grid),
        ]
        print("\n".join([*lines, *(["", "race against grid", *cost(grid, race)] if race else [])]))
    except LisError as error:
        raise SystemExit(f"compare.py: {error}") from None


if __name__ == "__main__":
    main()
