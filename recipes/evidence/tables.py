"""The tables of the study from its runs, written as Markdown and CSV."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import numpy as np
import polars as pl
from agreement import Run, across, by_recipe, by_world, pooled, selection, within
from alignments import CONSTRUCTED, RECIPES
from arithmetic import gains, share, shown, spearman
from gold_noise import decidable, moves
from stops import stopping, verdicts
from worlds import ALL, KINDS

from lis_lightning.functional import paired_difference
from lis_lightning.results import Record


def slug(name: str) -> str:
    """Return a name as it is written in the names of folders."""
    return name.replace(" ", "_").replace(",", "")


def read(folder: Path) -> list[Run]:
    """Return the finished runs of a folder, in the order of their names.

    Raises:
        SystemExit: If there is none.
    """
    names = {slug(name): name for name in (*ALL, *RECIPES)}
    records = sorted(folder.glob("*/record.jsonl"))
    if not records:
        raise SystemExit(f"{folder} holds no finished run: give --out the folder of evidence.py, after it has run.")
    return [_run(path.parent, names) for path in records]


def _run(folder: Path, names: dict[str, str]) -> Run:
    kind, recipe, seed = folder.name.split("--")
    world, recipe, taken = names[kind], names[recipe], np.load(folder / "snapshots.npz")
    gains_of_rankers = {name: np.array(value) for name, value in json.loads((folder / "gold.json").read_text()).items()}
    results, extra = Record.read(folder / "record.jsonl")[1], json.loads((folder / "curves.json").read_text())
    gold, parts = gains(gains_of_rankers["gold"], gains_of_rankers["placebo"])
    curves = {"AIS": [one.ais for one in results], "geometry": [one.ais_geometry for one in results]}
    curves |= {"user AUC": [one.gauc_gain for one in results], "realised": [one.realised for one in results]}
    for name, key in (("pair AUC", "pair_auc"), ("CKA", "cka"), ("RankMe", "rankme")):
        curves[name] = [one.companions[key] for one in results]
    curves |= {name: [one[name] for one in extra["recall"]] for name in extra["recall"][0]}
    curves |= {f"- {name} loss": (-taken[f"{name}_loss"]).tolist() for name in ("val", "train")}
    made = world in KINDS
    return {
        "world": world, "recipe": recipe, "seed": int(seed), "truth": RECIPES[recipe].truth,
        # Splits of one real log are one world. Thresholds are chosen on worlds that were made first, never on others.
        "group": f"{world} {seed}" if made else world, "half": "first" if made and seed == "0" else "second",
        "steps": taken["step"].tolist(), "results": results, "curves": curves, "cost": extra,
        "place": folder, "gold": gold, "fits": gains_of_rankers["gold"][..., 0].T, "moves": moves(gold, parts),
        "placebo": float(gains_of_rankers["placebo"][..., 0].mean()), "base": float(gains_of_rankers["base"]),
    }  # fmt: skip


def what_ran(runs: list[Run]) -> list[Run]:
    rows = []
    for kind, group in groupby(sorted(runs, key=lambda run: run["world"]), lambda run: run["world"]):
        some = list(group)
        spans = [float(np.ptp(run["gold"])) for run in some if run["moves"]]
        span = f"{np.mean(spans):.4f}" if spans else "-"
        rows.append({"world": kind, "runs": len(some), "gold moves": len(spans), "its range": span})
    return rows


def ceilings(runs: list[Run]) -> list[Run]:
    """Say of healthy runs how often AIS stays below its ceiling, and below what was left above the first snapshot."""
    healthy, rows = [run for run in runs if not run["truth"]], []
    for kind, group in groupby(sorted(healthy, key=lambda run: run["world"]), lambda run: run["world"]):
        some = list(group)
        for name in ("trained", "pairs"):
            limits = [(one, one.ceilings[name]) for run in some for one in run["results"]]
            above = [paired_difference(one.ais, one.influence, top.value, top.influence).z for one, top in limits]
            value = np.mean([top.value for _, top in limits])
            row = {"world": kind, "ceiling": name, "value": f"{value:.4f}", "binds": share(np.array(above) < 2)}
            first = [run["results"][0].ais + run["results"][0].headroom for run in some]
            top = [max(run["curves"]["AIS"]) for run in some]
            row["best AIS"] = f"{np.mean(top):.4f}"
            rows.append(row | {"first headroom holds": share(np.array(first) >= np.array(top))})
    return rows


def cost(runs: list[Run]) -> list[Run]:
    spent = [run["cost"] for run in runs]
    seconds = shown([one["score"] for one in spent], [run["group"] for run in runs])
    return [{"score, CPU s": seconds, "events": int(np.median([one["scored events"] for one in spent]))}]


def gold_rankers(runs: list[Run]) -> list[Run]:
    """Compare gold with the score's own ranker on gold's users: one that ranks worse than the probe could not judge it.

    The probe is taken to gain on these users what it gains on those that it is scored on.
    """
    rows = []
    for kind, group in groupby(sorted(runs, key=lambda run: run["world"]), lambda run: run["world"]):
        some = list(group)
        best = [max(run["curves"]["AIS"]) for run in some]
        numbers = {"base": float(np.mean([run["base"] for run in some]))}
        numbers["base + AIS, best snapshots"] = numbers["base"] + float(np.mean(best))
        numbers["gold, rows traded"] = float(np.mean([run["placebo"] for run in some]))
        numbers["gold, best snapshots"] = float(np.mean([run["placebo"] + run["gold"].max() for run in some]))
        better = numbers["gold, best snapshots"] > numbers["base + AIS, best snapshots"]
        cells = {name: f"{value:.4f}" for name, value in numbers.items()}
        rows.append({"world": kind, **cells, "gold ranks better": "yes" if better else "no"})
    return rows


def cases(runs: list[Run]) -> list[Run]:
    """Say how often each curve orders two representations made by hand as gold does, where gold can tell them apart."""
    rows = []
    for run in runs:
        for name in ("AIS", "geometry", "pair AUC", "CKA", "RankMe", "recall@50"):
            right, pairs = decidable(run["curves"][name], run["fits"])
            rank = spearman(run["curves"][name], run["gold"])
            key = {"world": f"{run['world']} {run['seed']}", "curve": name}
            rows.append(key | {"decidable pairs": pairs, "ordered right": f"{right:.3f}", "Spearman": f"{rank:.2f}"})
    return rows


TABLES = [
    what_ran, gold_rankers, within, by_world, by_recipe, across, pooled, selection, stopping, verdicts, ceilings, cost,
]  # fmt: skip


def write_table(folder: Path, name: str, rows: list[Run]) -> str:
    """Write a table as CSV; return it as Markdown."""
    table = pl.DataFrame(rows)
    table.write_csv(folder / f"{name}.csv")
    plain = {"tbl_formatting": "MARKDOWN", "tbl_hide_column_data_types": True, "tbl_hide_dataframe_shape": True}
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=400, fmt_str_lengths=200, **plain):
        return f"## {name.replace('_', ' ')}\n\n{table}\n"


def write_tables(folder: Path) -> str:
    """Write each table as CSV and all of them as Markdown; return that."""
    runs = read(folder / "runs")
    trained = [run for run in runs if run["recipe"] != CONSTRUCTED]
    by_hand = [run for run in runs if run["recipe"] == CONSTRUCTED]
    tables = [write_table(folder, make.__name__, make(trained)) for make in TABLES if trained]
    tables += [write_table(folder, "cases", cases(by_hand))] if by_hand else []
    text = "\n".join(tables)
    (folder / "tables.md").write_text(text)
    return text
