"""Plotly figures of the report page; the ``meta`` of a trace names its run and its layer, for the page's toggles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lis_lightning.errors import ShapeError
from lis_lightning.functional.intervals import Estimate
from lis_lightning.report.curve import BLUE, GAIN, GREEN, GREY, ORANGE, STEPS, new_figure, rows_height, wrapped
from lis_lightning.report.runs import RecordedRun, same_split
from lis_lightning.results.selection import simultaneous_band
from lis_lightning.results.snapshot import Snapshot

VERMILION, PURPLE, SKY, YELLOW = "#D55E00", "#CC79A7", "#56B4E9", "#C9B900"  # Okabe and Ito, too
_LINES = (BLUE, VERMILION, GREEN, PURPLE, SKY, YELLOW)
_DASHES = ("solid", "dot", "dashdot", "longdash")


def colours(runs: Sequence[RecordedRun]) -> list[tuple[str, str]]:
    """Return a colour and a dash for each run: one pair per recipe; after six recipes the colours repeat, dashed."""
    recipes = list(dict.fromkeys(run.recipe for run in runs))
    styles = {recipe: (_LINES[index % 6], _DASHES[index // 6 % 4]) for index, recipe in enumerate(recipes)}
    return [styles[run.recipe] for run in runs]


def curves(runs: Sequence[RecordedRun], references: Mapping[str, float]) -> Any:
    """Return AIS over steps with its 95 % bands for each run, LIS of the first run, and reference gains.

    Args:
        runs: The runs, the best first.
        references: Gains to draw as dotted lines, by name.
    """
    figure = new_figure()
    steps = [step for run in runs for step in _steps(run.results)]
    ends = [min(steps), max(steps)]
    _draw_ceilings(figure, runs[0].best, ends)
    for name, value in references.items():
        _line(figure, ends, [value] * 2, GREY, "dot", name, {"layer": "ceiling"})
    for number, (run, (colour, dash)) in enumerate(zip(runs, colours(runs), strict=True)):
        _draw_run(figure, run, colour, dash, {"run": number})
    return _with_layout(figure, STEPS, GAIN, height=440)


def _draw_ceilings(figure: Any, best: Snapshot, ends: list[int]) -> None:
    """Draw at most three ceilings with their bands, the one that the module is aligned to first."""
    ceilings = sorted(best.ceilings.items(), key=lambda pair: pair[0] != best.aligned_to)
    for colour, (name, ceiling) in zip((ORANGE, GREY, PURPLE), ceilings, strict=False):
        meta = {"layer": "ceiling" if name == best.aligned_to else "ceilings"}
        if math.isfinite(ceiling.low):
            _band(figure, ends, [ceiling.low] * 2, [ceiling.high] * 2, colour, meta)
        _line(figure, ends, [ceiling.value] * 2, colour, "dash", f"LIS of {name} (estimate)", meta)


def _draw_run(figure: Any, run: RecordedRun, colour: str, dash: str, meta: dict[str, Any]) -> None:
    """Draw the curve of a run with its bands, its geometry-only gain, and a star at the best snapshot."""
    results, steps = run.results, _steps(run.results)
    _simultaneous_band(figure, results, colour, meta | {"layer": "simultaneous"})
    _band(figure, steps, _column(results, "ais_low"), _column(results, "ais_high"), colour, meta)
    _line(
        figure, steps, _column(results, "ais_geometry"), colour, "dot", f"{run.name}: cosines only",
        meta | {"layer": "geometry"}, width=1,
    )  # fmt: skip
    sizes, symbols = [6] * len(steps), ["circle"] * len(steps)
    sizes[run.judgement.best], symbols[run.judgement.best] = 13, "star"
    figure.add_scatter(
        x=steps, y=_column(results, "ais"), mode="lines+markers", name=run.name, meta=meta,
        line={"color": colour, "width": 3, "dash": dash}, marker={"size": sizes, "symbol": symbols},
        customdata=[[result.ais_low, result.ais_high, result.verdict] for result in results],
        hovertemplate="%{fullData.name}<br>step %{x}: %{y:+.4f} [%{customdata[0]:+.4f}, %{customdata[1]:+.4f}]"
        "<br>%{customdata[2]}<extra></extra>",
    )  # fmt: skip


def _simultaneous_band(figure: Any, results: Sequence[Snapshot], colour: str, meta: dict[str, Any]) -> None:
    """Draw the band that holds all snapshots at once, if there are several with per-user values."""
    band = zip(_steps(results), simultaneous_band(results), strict=True)
    ends = [(step, estimate.low, estimate.high) for step, estimate in band if math.isfinite(estimate.se)]
    if len(ends) > 1:
        steps, low, high = map(list, zip(*ends, strict=True))
        _band(figure, steps, low, high, colour, meta)


def forest(rows: Mapping[str, Mapping[str, Estimate]], title: str) -> Any:
    """Return a forest plot: estimates as dots with their intervals, one line per label.

    Args:
        rows: Estimates by label, by name of the series; NaN values are left out.
        title: Title of the x-axis, with unit and direction.
    """
    figure = new_figure()
    for (name, points), colour in zip(rows.items(), (BLUE, GREY, ORANGE), strict=False):
        finite = {wrapped(label): estimate for label, estimate in points.items() if math.isfinite(estimate.value)}
        estimates = list(finite.values())
        values = _column(estimates, "value")
        figure.add_scatter(
            x=values, y=list(finite), mode="markers", name=name, marker={"size": 10, "color": colour},
            error_x=_error_bars(values, _column(estimates, "low"), _column(estimates, "high"), thickness=2),
            hovertemplate="%{y}: %{x:+.4f}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line_width=1, line_color=GREY)
    figure.update_yaxes(autorange="reversed", automargin=True)
    labels = {wrapped(label) for points in rows.values() for label in points}
    return _with_layout(figure, title, "", height=130 + rows_height(labels)).update_layout(showlegend=len(rows) > 1)


def slices(run: RecordedRun) -> Any:
    """Return a forest plot of the gain in each slice, at the first snapshot and at the best."""
    first, best = run.results[0], run.best
    series = {f"best, step {best.step}": best.slices}
    if first is not best:
        series[f"first, step {first.step}"] = first.slices
    return forest(series, GAIN)


def companion(run: RecordedRun, name: str) -> Any:
    """Return AIS against a companion metric, the snapshots joined in the order of their steps."""
    figure, results = new_figure(), run.results
    # More labels would overlap.
    labels = {result.step: f"step {result.step}" for result in (results[0], run.best, results[-1])}
    values = [result.companions.get(name, math.nan) for result in results]
    gains = _column(results, "ais")
    figure.add_scatter(
        x=values, y=gains, mode="lines+markers+text",
        text=[labels.get(result.step, "") for result in results],
        textposition=_towards_the_middle(values, run.judgement.best),
        cliponaxis=False, customdata=_steps(results),
        line={"color": GREY, "width": 1}, marker={"size": 8, "color": BLUE}, name=name,
        error_y=_error_bars(
            gains, _column(results, "ais_low"), _column(results, "ais_high"), thickness=1, color=BLUE
        ),
        hovertemplate="step %{customdata}: %{x:.4g}, AIS %{y:+.4f}<extra></extra>",
    )  # fmt: skip
    return _with_layout(figure, name, "AIS (AUC gain, higher is better)", height=320)


def _towards_the_middle(values: Sequence[float], best: int) -> list[str]:
    """Return positions of labels that stay in the figure: that of the best above its point, the others below."""
    finite = [value for value in values if math.isfinite(value)]
    middle = (min(finite) + max(finite)) / 2 if finite else math.nan
    sides = ["left" if value > middle else "right" for value in values]
    return [f"{'top' if index == best else 'bottom'} {side}" for index, side in enumerate(sides)]


def cost(run: RecordedRun) -> Any:
    """Return the seconds that each snapshot took."""
    figure, steps = new_figure(), list(map(str, _steps(run.results)))
    encode, score = _column(run.results, "encode_seconds"), _column(run.results, "score_seconds")
    for name, seconds, colour in (("encoding the items", encode, SKY), ("scoring them", score, BLUE)):
        figure.add_bar(x=steps, y=seconds, name=name, marker_color=colour, hovertemplate="step %{x}: %{y:.2f} s")
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category")
    return _with_layout(figure, STEPS, "seconds (lower is better)", height=280)


def differences(runs: Sequence[RecordedRun]) -> dict[str, Estimate]:
    """Return the difference of each run's best snapshot to the leader's, paired by user, the smallest loss first.

    Args:
        runs: The runs; those that cannot be paired are left out.
    """
    comparable = same_split(runs)
    if len(comparable) < 2:
        return {}
    leader = max(comparable, key=lambda run: run.best.ais)
    behind = {}
    for run in comparable:
        try:
            behind[run.name] = run.best.compare(leader.best)
        except ShapeError:  # a result without its per-user values
            continue
    del behind[leader.name]
    return dict(sorted(behind.items(), key=lambda pair: -pair[1].value))


def _steps(results: Sequence[Snapshot]) -> list[int]:
    return [result.step for result in results]


def _column(rows: Sequence[Any], name: str) -> list[float]:
    """Return one attribute of each row."""
    return [getattr(row, name) for row in rows]


def _error_bars(
    values: Sequence[float], low: Sequence[float], high: Sequence[float], **style: float | str
) -> dict[str, Any]:
    """Return the error bars of intervals around values."""
    above = [upper - value for upper, value in zip(high, values, strict=True)]
    below = [value - lower for value, lower in zip(values, low, strict=True)]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **style}


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


def _with_layout(figure: Any, x: str, y: str, *, height: int) -> Any:
    figure.update_layout(
        height=height, xaxis_title=x, yaxis_title=y, hovermode="closest", showlegend=len(figure.data) > 1,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        margin={"l": 70, "r": 20, "t": 40, "b": 55}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    return figure
