"""The figures of the page, as plotly's JSON: what belongs to which run and layer stands in the ``meta`` of a trace."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lis_lightning.errors import ShapeError
from lis_lightning.functional.intervals import Estimate
from lis_lightning.report.curve import BLUE, GAIN, GREEN, GREY, ORANGE, STEPS, new_figure
from lis_lightning.report.runs import RecordedRun, same_split
from lis_lightning.results.result import Ceiling
from lis_lightning.results.snapshot import Snapshot

VERMILION, PURPLE, SKY, YELLOW = "#D55E00", "#CC79A7", "#56B4E9", "#C9B900"  # of the same palette
_LINES = (BLUE, VERMILION, GREEN, PURPLE, SKY, YELLOW)
_DASHES = ("solid", "dot", "dashdot", "longdash")


def colours(runs: Sequence[RecordedRun]) -> list[tuple[str, str]]:
    """Return a colour and a dash for each run: seeds of a recipe share the colour, recipes beyond six the dash."""
    recipes = list(dict.fromkeys(run.recipe for run in runs))
    place = {recipe: index for index, recipe in enumerate(recipes)}
    return [(_LINES[place[run.recipe] % 6], _DASHES[place[run.recipe] // 6 % 4]) for run in runs]


def curves(runs: Sequence[RecordedRun], references: Mapping[str, float]) -> Any:
    """Return AIS over steps, with its band, for each run; the ceilings of the first; and known gains.

    Args:
        runs: All of them.
        references: Known gains, by name.
    """
    figure = new_figure()
    steps = [step for run in runs for step in _steps(run.results)]
    ends = [min(steps), max(steps)]
    for colour, (name, limit) in zip((ORANGE, GREY, PURPLE), _ceilings(runs).items(), strict=False):
        shared = {"layer": "ceiling" if name == runs[0].best.aligned_to else "ceilings"}
        if math.isfinite(limit.low):
            _band(figure, ends, [limit.low] * 2, [limit.high] * 2, colour, shared)
        _line(figure, ends, [limit.value] * 2, colour, "dash", f"ceiling of {name}", shared)
    for name, value in references.items():
        _line(figure, ends, [value] * 2, GREY, "dot", name, {"layer": "ceiling"})
    for number, (run, (colour, dash)) in enumerate(zip(runs, colours(runs), strict=True)):
        meta: dict[str, Any] = {"run": number}
        x, results = _steps(run.results), run.results
        _band(figure, x, [one.ais_low for one in results], [one.ais_high for one in results], colour, meta)
        _line(
            figure, x, [one.ais_geometry for one in results], colour, "dot", f"{run.name}: cosines only",
            meta | {"layer": "geometry"}, width=1,
        )  # fmt: skip
        best = run.judgement.best
        figure.add_scatter(
            x=x, y=[one.ais for one in results], mode="lines+markers", name=run.name, meta=meta,
            line={"color": colour, "width": 3, "dash": dash},
            marker={"size": [13 if at == best else 6 for at in range(len(x))],
                    "symbol": ["star" if at == best else "circle" for at in range(len(x))]},
            customdata=[[one.ais_low, one.ais_high, one.verdict] for one in results],
            hovertemplate="%{fullData.name}<br>step %{x}: %{y:+.4f} [%{customdata[0]:+.4f}, %{customdata[1]:+.4f}]"
            "<br>%{customdata[2]}<extra></extra>",
        )  # fmt: skip
    return _dressed(figure, STEPS, GAIN, height=440)


def forest(rows: Mapping[str, Mapping[str, Estimate]], title: str) -> Any:
    """Return estimates as dots with their intervals, a line each.

    Args:
        rows: By the name of a series, its estimates by label; those that are NaN are left out.
        title: Of the x-axis, with unit and direction.
    """
    figure = new_figure()
    for (name, points), colour in zip(rows.items(), (BLUE, GREY, ORANGE), strict=False):
        known = {label: one for label, one in points.items() if math.isfinite(one.value)}
        figure.add_scatter(
            x=[one.value for one in known.values()], y=list(known), mode="markers", name=name,
            marker={"size": 10, "color": colour},
            error_x={"type": "data", "symmetric": False, "array": [one.high - one.value for one in known.values()],
                     "arrayminus": [one.value - one.low for one in known.values()], "thickness": 2},
            hovertemplate="%{y}: %{x:+.4f}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    num = len({label for points in rows.values() for label in points})
    figure.add_vline(x=0, line_width=1, line_color=GREY)
    figure.update_yaxes(autorange="reversed", automargin=True)
    return _dressed(figure, title, "", height=130 + 30 * num).update_layout(showlegend=len(rows) > 1)


def slices(run: RecordedRun) -> Any:
    """Return the gain in each slice, of the first snapshot and of the best."""
    first, best = run.results[0], run.best
    chosen = {f"best, step {best.step}": best} | ({} if first is best else {f"first, step {first.step}": first})
    return forest({name: one.slices for name, one in chosen.items()}, GAIN)


def companion(run: RecordedRun, name: str) -> Any:
    """Return AIS against a conventional curve, the snapshots joined in the order of their steps."""
    figure, results = new_figure(), run.results
    ends = (results[0], run.best, results[-1])  # more labels than these hide each other
    figure.add_scatter(
        x=[one.companions.get(name, math.nan) for one in results], y=[one.ais for one in results],
        mode="lines+markers+text", text=[f"step {one.step}" if one in ends else "" for one in results],
        textposition="top center", cliponaxis=False, customdata=[one.step for one in results],
        line={"color": GREY, "width": 1}, marker={"size": 8, "color": BLUE}, name=name,
        error_y={"type": "data", "symmetric": False, "array": [one.ais_high - one.ais for one in results],
                 "arrayminus": [one.ais - one.ais_low for one in results], "thickness": 1, "color": BLUE},
        hovertemplate="step %{customdata}: %{x:.4g}, AIS %{y:+.4f}<extra></extra>",
    )  # fmt: skip
    return _dressed(figure, name, "AIS (AUC gain, higher is better)", height=320)


def cost(run: RecordedRun) -> Any:
    """Return the seconds that each snapshot took."""
    figure, x = new_figure(), [str(one.step) for one in run.results]
    for name, values, colour in (
        ("encoding the items", [one.encode_seconds for one in run.results], SKY),
        ("scoring them", [one.score_seconds for one in run.results], BLUE),
    ):
        figure.add_bar(x=x, y=values, name=name, marker_color=colour, hovertemplate="step %{x}: %{y:.2f} s")
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category")
    return _dressed(figure, STEPS, "seconds (lower is better)", height=280)


def differences(runs: Sequence[RecordedRun]) -> dict[str, Estimate]:
    """Return by how much the best snapshot of each run is behind the leader's, paired by user, the nearest first.

    Args:
        runs: Runs; those that cannot be paired are left out.
    """
    able = same_split(runs)
    if len(able) < 2:
        return {}
    leader = max(able, key=lambda run: run.best.ais)
    behind = {}
    for run in able:
        try:
            behind[run.name] = run.best.compare(leader.best)
        except ShapeError:  # a result that lost what pairs it
            continue
    del behind[leader.name]
    return dict(sorted(behind.items(), key=lambda pair: -pair[1].value))


def _ceilings(runs: Sequence[RecordedRun]) -> dict[str, Ceiling]:
    """Return the ceilings that are drawn: of the first run, the one aligned to first, and each value once."""
    best = runs[0].best
    found = sorted(best.ceilings.items(), key=lambda pair: pair[0] != best.aligned_to)
    return dict(found[:3])


def _steps(results: Sequence[Snapshot]) -> list[int]:
    return [one.step for one in results]


def _band(figure: Any, x: list[Any], low: list[float], high: list[float], colour: str, meta: Mapping[str, Any]) -> None:
    figure.add_scatter(
        x=x + x[::-1], y=high + low[::-1], fill="toself", fillcolor=colour, opacity=0.18, line={"width": 0},
        hoverinfo="skip", mode="lines", showlegend=False, meta=dict(meta),
    )  # fmt: skip


def _line(
    figure: Any,
    x: list[Any],
    y: list[float],
    colour: str,
    dash: str,
    name: str,
    meta: Mapping[str, Any],
    width: int = 2,
) -> None:
    figure.add_scatter(
        x=x, y=y, mode="lines", name=name, meta=dict(meta), line={"color": colour, "dash": dash, "width": width},
        hovertemplate="%{fullData.name}: %{y:+.4f}<extra></extra>",
    )  # fmt: skip


def _dressed(figure: Any, x: str, y: str, *, height: int) -> Any:
    figure.update_layout(
        height=height, xaxis_title=x, yaxis_title=y, hovermode="closest", showlegend=len(figure.data) > 1,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        margin={"l": 70, "r": 20, "t": 40, "b": 55}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    return figure
