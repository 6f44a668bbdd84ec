"""The tables of the study from its runs: Markdown and CSV."""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from arithmetic import chosen, gains, judged_stop, moves, regret, right, shown, spearman, stock_stop, truth_of

Run = dict[str, Any]


def read(folder: Path) -> list[Run]:
    """Return the finished runs, each with `gold` [snapshots], `moves`, and its curves as lists by name."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    for run in runs:
        run["gold"], parts = gains(run)
        run["moves"] = moves(run["gold"], parts)
        names = run["snapshots"][0]["curves"]
        run["curves"] = {name: [one["curves"][name] for one in run["snapshots"]] for name in names}
    return runs


def what_ran(runs: list[Run]) -> list[Run]:
    rows = []
    for kind, group in groupby(sorted(runs, key=lambda run: run["world"]), lambda run: run["world"]):
        some = list(group)
        spans = [float(np.ptp(run["gold"])) for run in some if run["moves"]]
        rows.append({"world": kind, "runs": len(some), "gold moves": len(spans), "its range": shown(spans, 4)})
    return rows


def within(runs: list[Run]) -> list[Run]:
    """Compare the snapshots of a run: where gold moves, and wherever anything was trained."""
    trained = [run for run in runs if np.ptp(run["gold"]) > 0]
    known = np.array([run["moves"] for run in trained])
    found = {name: [spearman(run["curves"][name], run["gold"]) for run in trained] for name in runs[0]["curves"]}
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
        rows.append({"snapshot by": name, "regret": shown(values), "at most .1": _share(np.array(values) <= 0.1)})
    for name, at in (("the first", 0), ("the last", -1)):
        values = [regret(run["gold"], at) for run in moving]
        rows.append({"snapshot by": name, "regret": shown(values), "at most .1": _share(np.array(values) <= 0.1)})
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
        both = _share((np.array(saved) >= 0.4) & (np.array(lost) <= 0.05))
        rows.append({"rule": name, "regret": shown(lost), "steps saved": shown(saved), ".4 saved at .05 lost": both})
    return rows


def verdicts(runs: list[Run]) -> list[Run]:
    rows: dict[str, Counter[str]] = {}
    for run in runs:
        rows.setdefault(truth_of(run), Counter())[run["snapshots"][-1]["verdict"]] += 1
    table = []
    for truth, seen in sorted(rows.items()):
        said = ", ".join(f"{name} {number}" for name, number in seen.most_common())
        good = sum(number for name, number in seen.items() if right(truth, name) and name != "underpowered")
        counts = {"runs": seen.total(), "right": good, "underpowered": seen["underpowered"]}
        table.append({"built in": truth or "(none of these)", **counts, "verdicts at the end": said})
    return table


def ceilings(runs: list[Run]) -> list[Run]:
    healthy, rows = [run for run in runs if not run["truth"]], []
    for kind, group in groupby(sorted(healthy, key=lambda run: run["world"]), lambda run: run["world"]):
        some = list(group)
        points = [one for run in some for one in run["snapshots"]]
        first = [run["snapshots"][0]["curves"]["AIS"] + run["snapshots"][0]["headroom"] for run in some]
        top = [max(run["curves"]["AIS"]) for run in some]
        binds = _share(np.array([one["above_z"] for one in points]) < 2)
        covered = _share(np.array(first) >= np.array(top))
        rows.append({"world": kind, "snapshots": len(points), "ceiling binds": binds, "first headroom holds": covered})
    return rows


def cost(runs: list[Run]) -> list[Run]:
    spent = [run["cost"] for run in runs]
    score = np.array([one["score"] / one["scored events"] for one in spent])
    gold = np.array([one["gold fit"] / one["gold events"] for one in spent])
    seconds = {"score, s": np.median([one["score"] for one in spent]), "events": spent[0]["scored events"]}
    seconds |= {"gold fit, s": np.median([one["gold fit"] for one in spent]), "its events": spent[0]["gold events"]}
    return [{**seconds, "score / fit at equal events": shown(score / gold)}]


def _share(hits: np.ndarray) -> str:
    return f"{int(hits.sum())} of {hits.size}"


TABLES = [what_ran, within, across, selection, stopping, verdicts, ceilings, cost]


def write_tables(folder: Path) -> str:
    """Write each table as CSV and all of them as Markdown; return that."""
    runs, parts = read(folder / "runs"), []
    plain = {"tbl_formatting": "MARKDOWN", "tbl_hide_column_data_types": True, "tbl_hide_dataframe_shape": True}
    for make in TABLES:
        table = pl.DataFrame(make(runs))
        table.write_csv(folder / f"{make.__name__}.csv")
        with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, fmt_str_lengths=150, float_precision=2, **plain):
            parts.append(f"## {make.__name__.replace('_', ' ')}\n\n{table}\n")
    text = "\n".join(parts)
    (folder / "tables.md").write_text(text)
    return text
