"""The tables of the study from its runs, written as Markdown and CSV."""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import polars as pl
from agreement import Run, across, selection, stopping, within
from arithmetic import gains, moves, right, share, shown, truth_of


def read(folder: Path) -> list[Run]:
    """Return the finished runs, each with `gold` [snapshots], `fits` of it, `moves`, and curves as lists by name."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    for run in runs:
        run["gold"], parts = gains(run)
        run["moves"] = moves(run["gold"], parts)
        run["fits"] = np.array([one["gold"] for one in run["snapshots"]])[..., 0].T
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
        binds = share(np.array([one["above_z"] for one in points]) < 2)
        covered = share(np.array(first) >= np.array(top))
        rows.append({"world": kind, "snapshots": len(points), "ceiling binds": binds, "first headroom holds": covered})
    return rows


def cost(runs: list[Run]) -> list[Run]:
    spent = [run["cost"] for run in runs]
    score = np.array([one["score"] / one["scored events"] for one in spent])
    gold = np.array([one["gold fit"] / one["gold events"] for one in spent])
    seconds = {"score, s": np.median([one["score"] for one in spent]), "events": spent[0]["scored events"]}
    seconds |= {"gold fit, s": np.median([one["gold fit"] for one in spent]), "its events": spent[0]["gold events"]}
    return [{**seconds, "score / fit at equal events": shown(score / gold)}]


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
