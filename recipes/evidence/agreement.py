"""How curves agree with gold: within runs, across recipes, and in the snapshots that they select."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
from arithmetic import (
    bootstrap,
    chosen,
    fair_regret,
    one_agrees,
    regret,
    share,
    shown,
    spearman,
)
from gold_noise import fit_noise, perfect_agrees

Run = dict[str, Any]
PERFECT, ONE_AGREES = "(a perfect curve)", "(one ranker, refitted, with the others)"


def _ranks(runs: list[Run]) -> dict[str, list[float]]:
    """Return the rank correlation of each curve with gold in each run, and of gold with itself."""
    correlations = {name: [spearman(run["curves"][name], run["gold"]) for run in runs] for name in runs[0]["curves"]}
    correlations[PERFECT] = [perfect_agrees(run["gold"], fit_noise(run["fits"])) for run in runs]
    correlations[ONE_AGREES] = [one_agrees(run["fits"]) for run in runs]
    return correlations


def within(runs: list[Run]) -> list[Run]:
    """Compare the snapshots of a run: where gold moves, and wherever anything was trained."""
    trained = [run for run in runs if np.ptp(run["gold"]) > 0]
    moving = np.array([run["moves"] for run in trained])
    worlds = np.array([run["group"] for run in trained])
    correlations, rows = _ranks(trained), []
    for name, values in correlations.items():
        ranks, less = np.array(values), np.array(correlations["AIS"]) - np.array(values)
        row = {"curve": name, "gold moves": shown(ranks[moving], worlds[moving])}
        row |= {"AIS less it": shown(less[moving], worlds[moving]), "at least .9": share(ranks[moving] >= 0.9)}
        rows.append(row | {"all trained": shown(ranks, worlds), "AIS less it, all": shown(less, worlds)})
    return rows


def _by(runs: list[Run], key: str) -> list[Run]:
    """Return the mean rank correlations of the runs that have something in common, where gold moves."""
    moving, rows = sorted((run for run in runs if run["moves"]), key=lambda run: run[key]), []
    for name, group in groupby(moving, lambda run: run[key]):
        some = list(group)
        correlations = {
            curve: f"{bootstrap(values, range(len(some)))[0]:.2f}" for curve, values in _ranks(some).items()
        }
        rows.append({key: name, "runs": len(some), **correlations})
    return rows


def by_world(runs: list[Run]) -> list[Run]:
    return _by(runs, "world")


def by_recipe(runs: list[Run]) -> list[Run]:
    return _by(runs, "recipe")


def across(runs: list[Run]) -> list[Run]:
    """Compare the last snapshots of all recipes of a world."""
    worlds: dict[Any, list[Run]] = {}
    for run in runs:
        worlds.setdefault((run["world"], run["seed"]), []).append(run)
    rows = []
    for name in runs[0]["curves"]:
        values = []
        for some in worlds.values():
            last = np.array([run["gold"][-1] for run in some])
            values.append(spearman([run["curves"][name][-1] for run in some], last))
        known = int(np.isfinite(values).sum())
        groups = [some[0]["group"] for some in worlds.values()]
        rows.append({"curve": name, "worlds": known, "Spearman with gold": shown(values, groups)})
    return rows


def pooled(runs: list[Run]) -> list[Run]:
    """Compare all snapshots of all recipes of a world, as the leaderboard of a sweep does."""
    worlds: dict[str, list[Run]] = {}
    for run in runs:
        worlds.setdefault(f"{run['world']} {run['seed']}", []).append(run)
    rows = []
    for name, some in worlds.items():
        gold = np.concatenate([run["gold"] for run in some])
        fits = np.concatenate([run["fits"] for run in some], axis=1)
        row: Run = {"world": name, "snapshots": gold.size, PERFECT: f"{perfect_agrees(gold, fit_noise(fits)):.2f}"}
        for curve in some[0]["curves"]:
            row[curve] = f"{spearman(np.concatenate([run['curves'][curve] for run in some]), gold):.2f}"
        rows.append(row)
    return rows


def selection(runs: list[Run]) -> list[Run]:
    """Compare the snapshots that curves select, as shares of gold's range, where gold moves."""
    moving = [run for run in runs if run["moves"]]
    worlds = [run["group"] for run in moving]
    picks = {name: [chosen(run["curves"][name]) for run in moving] for name in runs[0]["curves"]}
    picks |= {"the first": [0] * len(moving), "the last": [-1] * len(moving)}
    picks["(one ranker, refitted)"] = [int(run["fits"][0].argmax()) for run in moving]
    rows = []
    for name, at in picks.items():
        lost = [regret(run["gold"], one) for run, one in zip(moving, at, strict=True)]
        fair = [fair_regret(run["fits"], one) for run, one in zip(moving, at, strict=True)]
        row = {"snapshot by": name, "regret": shown(lost, worlds), "fair regret": shown(fair, worlds)}
        rows.append(row | {"fair, at most .1": share(np.array(fair) <= 0.1)})
    return rows
