"""How curves agree with gold: within runs, across recipes, and in what they select and when they stop."""

from __future__ import annotations

from typing import Any

import numpy as np
from arithmetic import chosen, halves_agree, judged_stop, regret, share, shown, spearman, stock_stop

Run = dict[str, Any]


def within(runs: list[Run]) -> list[Run]:
    """Compare the snapshots of a run: where gold moves, and wherever anything was trained."""
    trained = [run for run in runs if np.ptp(run["gold"]) > 0]
    known = np.array([run["moves"] for run in trained])
    found = {name: [spearman(run["curves"][name], run["gold"]) for run in trained] for name in runs[0]["curves"]}
    # How well two halves of gold agree: a curve cannot be asked for much more.
    found["(one half of gold with the other)"] = [halves_agree(run["fits"]) for run in trained]
    rows = []
    for name, values in found.items():
        ranks, less = np.array(values), np.array(found["AIS"]) - np.array(values)
        row = {"curve": name, "Spearman, gold moves": shown(ranks[known]), "AIS less it": shown(less[known])}
        rows.append(row | {"Spearman, all trained": shown(ranks), "AIS less it, all": shown(less)})
    return rows


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
        rows.append({"curve": name, "worlds": len(values), "Spearman with gold": shown(values)})
    return rows


def selection(runs: list[Run]) -> list[Run]:
    moving = [run for run in runs if run["moves"]]
    rows = []
    for name in runs[0]["curves"]:
        values = [regret(run["gold"], chosen(run["curves"][name])) for run in moving]
        rows.append({"snapshot by": name, "regret": shown(values), "at most .1": share(np.array(values) <= 0.1)})
    for name, at in (("the first", 0), ("the last", -1)):
        values = [regret(run["gold"], at) for run in moving]
        rows.append({"snapshot by": name, "regret": shown(values), "at most .1": share(np.array(values) <= 0.1)})
    return rows


def stopping(runs: list[Run]) -> list[Run]:
    rules: dict[str, Any] = {"lis_lightning.stopping": lambda run: judged_stop(run["snapshots"])}
    for patience in (1, 2, 3):
        rules[f"val loss, patience {patience}"] = lambda run, patience=patience: stock_stop(
            [-loss for loss in run["curves"]["- val loss"]], patience
        )
    rules["last step"] = lambda run: (len(run["snapshots"]) - 1,) * 2
    moving, rows = [run for run in runs if run["moves"]], []
    for name, rule in rules.items():
        ends = [rule(run) for run in moving]
        lost = [regret(run["gold"], best) for run, (_, best) in zip(moving, ends, strict=True)]
        steps = [[one["step"] for one in run["snapshots"]] for run in moving]
        saved = [1 - all_[last] / all_[-1] for all_, (last, _) in zip(steps, ends, strict=True)]
        both = share((np.array(saved) >= 0.4) & (np.array(lost) <= 0.05))
        rows.append({"rule": name, "regret": shown(lost), "steps saved": shown(saved), ".4 saved at .05 lost": both})
    return rows
