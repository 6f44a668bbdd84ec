"""When rules would have stopped the runs, and what verdicts say of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from arithmetic import fair_regret, regret, share, shown

from lis_lightning.results import Snapshot, StopRule, judge

Run = dict[str, Any]
Rule = Callable[[Run], tuple[int, int]]  # where it stops, and the snapshot that it keeps
CHOICES = {
    "confidence": (0.975, 0.85, 0.7),
    "min_gain_share": (0.05, 0.1),
    "window": (1 / 3, 0.5),
}
FIRST_GUESSES = StopRule(confidence=0.975)
PATIENCE = (1, 2, 3, 5)
LOST = 0.05  # share of the gain that a rule may lose
BROKEN = {"data-bound", "collapsed", "placebo-failed"}
RIGHT = {  # other truths are met by their own name alone
    "data-bound": {"data-bound", "ceiling-not-binding"},  # the second where content gains by itself
    "done": {"at-ceiling", "ceiling-not-binding", "plateau"},
    "overfitting": {"overfitting", "past-its-best"},
}


def stock_stop(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """Return where stock EarlyStopping (mode min, min_delta 0) stops, and the best snapshot by then."""
    best, waited = math.inf, 0
    at = 0
    for number, loss in enumerate(losses):
        if loss < best:
            best, at, waited = loss, number, 0
        else:
            waited += 1
            if waited >= patience:
                return number, at
    return len(losses) - 1, at


def judged_stop(results: Sequence[Snapshot], rule: StopRule | None = None) -> tuple[int, int]:
    """Return where the rule of `lis_lightning.results.stopping` stops, and the best snapshot by then."""
    for last in range(len(results)):
        judgement = judge(results[: last + 1], rule, max_steps=results[-1].step)
        if judgement.stop:
            break
    return last, judgement.best


def truth_of(world: str, truth: str) -> str:
    """Return the bottleneck that was built in: a world without taste binds whatever is not collapsed."""
    return "data-bound" if world == "no taste" and truth != "collapsed" else truth


def right(truth: str, verdict: str) -> bool:
    """Return whether a verdict is the truth; of a healthy run, whether it is not called broken."""
    return verdict in RIGHT.get(truth, {truth}) if truth else verdict not in BROKEN


def replay(runs: list[Run], rule: Rule) -> dict[str, Any]:
    """Return what a rule loses and saves in each run."""
    outcomes: dict[str, Any] = {"lost": [], "fair": [], "saved": []}
    for run in runs:
        last, best = rule(run)
        outcomes["lost"].append(regret(run["gold"], best))
        outcomes["fair"].append(fair_regret(run["fits"], best))
        outcomes["saved"].append(1 - run["steps"][last] / run["steps"][-1])
    return {name: np.array(values) for name, values in outcomes.items()}


def _ours(run: Run, rule: StopRule | None = None) -> tuple[int, int]:
    return judged_stop(run["results"], rule)


def _stock(run: Run, patience: int) -> tuple[int, int]:
    return stock_stop([-loss for loss in run["curves"]["- val loss"]], patience)


def _last(run: Run) -> tuple[int, int]:
    return (len(run["steps"]) - 1,) * 2


def _hindsight(run: Run) -> tuple[int, int]:
    """Return the earliest snapshot that loses no more than a rule may: nobody can know it at the time."""
    near = run["gold"].max() - run["gold"] <= LOST * np.ptp(run["gold"])
    return (int(near.argmax()),) * 2


def chosen_rule(runs: list[Run]) -> StopRule:
    """Return the thresholds that save most at no more than 5 % of the gain, on the mean; else those that lose least."""

    def merit(rule: StopRule) -> tuple[bool, float, float]:
        outcomes = replay(runs, partial(_ours, rule=rule))
        lost, saved = outcomes["fair"].mean(), outcomes["saved"].mean()
        return (True, saved, -lost) if lost <= LOST else (False, -lost, saved)

    rules = [StopRule(**dict(zip(CHOICES, values, strict=True))) for values in product(*CHOICES.values())]
    return max(rules, key=merit)


def stopping(runs: list[Run]) -> list[Run]:
    """Replay stop rules where gold moves: those whose thresholds were chosen, and those with none to choose."""
    moving = [run for run in runs if run["moves"]]
    halves = {name: [run for run in moving if run["half"] == name] for name in ("first", "second")}
    rules: dict[str, Rule] = {"ours, default": _ours, "ours, first guesses": partial(_ours, rule=FIRST_GUESSES)}
    if halves["first"] and halves["second"]:
        rule = chosen_rule(halves["first"])
        values = ", ".join(f"{name} {getattr(rule, name)}" for name in CHOICES)
        rules[f"ours, chosen on the first half: {values}"] = partial(_ours, rule=rule)
    rules |= {f"val loss, patience {patience}": partial(_stock, patience=patience) for patience in PATIENCE}
    rules |= {"last step": _last, "(hindsight)": _hindsight}
    rows = []
    for name, rule in rules.items():
        row = {"rule": name}
        for half, some in halves.items():
            if some:
                outcomes, worlds = replay(some, rule), [run["group"] for run in some]
                row |= {f"{half}: {key}": shown(value, worlds) for key, value in outcomes.items()}
                row[f"{half}: .4 saved at .05"] = share((outcomes["saved"] >= 0.4) & (outcomes["fair"] <= LOST))
        rows.append(row)
    return rows


def verdicts(runs: list[Run]) -> list[Run]:
    """Count verdicts at the end of a run by what was built into it."""
    seen: dict[tuple[str, str], Counter[str]] = {}
    for run in runs:
        key = truth_of(run["world"], run["truth"]), run["half"]
        seen.setdefault(key, Counter())[judge(run["results"], ended=True).verdict] += 1
    table = []
    for (truth, half), said in sorted(seen.items()):
        good = sum(number for name, number in said.items() if right(truth, name) and name != "underpowered")
        counts = {"runs": said.total(), "right": good, "underpowered": said["underpowered"]}
        words = ", ".join(f"{name} {number}" for name, number in said.most_common())
        table.append({"built in": truth or "(none of these)", "half": half, **counts, "verdicts at the end": words})
    return table
