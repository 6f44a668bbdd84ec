"""Audit as a self-contained HTML page: forest plots of headroom, LIS and gains, then the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lis_lightning.functional.intervals import Estimate, cluster_interval
from lis_lightning.report.audit_report import LABELS, chapters
from lis_lightning.report.curve import BLUE, GAIN, GREEN, GREY, ORANGE, new_figure, rows_height, wrapped
from lis_lightning.report.document import document, write
from lis_lightning.results.audit import Audit, Part
from lis_lightning.results.result import LISResult

_COLOURS = (BLUE, ORANGE, GREEN, GREY)
_LEGEND = {
    "": "headroom: what the data would still add",
    "LIS of": "LIS: an estimate of what the data carries",
    "AIS of": "AIS: what the vectors gain",
}


def write_audit(audit: Audit, path: str | Path, *, title: str) -> Path:
    """Write the audit as an HTML page that needs no network.

    Args:
        audit: The audit.
        path: The file to write; its folder is created.
        title: Heading of the page.

    Returns:
        The path.
    """
    all_chapters = chapters(audit)
    figures = {}
    for number, chapter in enumerate(all_chapters):
        figures[f"chapter-{number}"] = _forest(*chapter.parts) if len(chapter.parts) == 1 else _over_time(chapter.parts)
    return write(path, document(title, figures=figures, template="audit.html", chapters=all_chapters))


def _error_bars(estimates: Sequence[Estimate]) -> dict[str, Any]:
    return {"type": "data", "array": [estimate.high - estimate.value for estimate in estimates]}


def _forest(part: Part) -> Any:
    """Return each gain as a dot with its interval: headroom first, then LIS, representations and random vectors."""
    ceilings = {name: cluster_interval(*gain) for (kind, name), gain in part.gains.items() if kind == "ceiling"}
    gains = {name: cluster_interval(*gain) for (kind, name), gain in part.gains.items() if kind == "ais"}
    gains = dict(sorted(gains.items(), key=lambda pair: -pair[1].value)) | {"random vectors": part.placebo}
    rooms = {f"{result.aligned_to} over {name}": _headroom(result) for name, result in part.results.items()}
    rooms = {name: estimate for name, estimate in rooms.items() if math.isfinite(estimate.value)}
    figure = new_figure()
    kinds = (("", GREEN, rooms), ("LIS of", ORANGE, ceilings), ("AIS of", BLUE, gains))
    rows: set[str] = set()
    for kind, colour, estimates in kinds:
        labels = [wrapped(f"{kind} {name}".lstrip()) for name in estimates]
        rows.update(labels)
        figure.add_scatter(
            x=[estimate.value for estimate in estimates.values()], y=labels, name=_LEGEND[kind], mode="markers",
            marker={"color": colour, "size": 10}, error_x=_error_bars(list(estimates.values())),
            hovertemplate="%{y}: %{x:.4f}<extra></extra>",
        )  # fmt: skip
    labels = [wrapped(f"LIS of {name}") for name in part.ceilings]
    figure.add_scatter(
        x=[ceiling.past for ceiling in part.ceilings.values()], y=labels,
        name="LIS without the future", mode="markers",
        marker={"color": ORANGE, "size": 10, "symbol": "circle-open"}, hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=0, line_width=1, line_color=GREY)
    figure.update_layout(
        height=220 + rows_height(rows),
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        xaxis_title=GAIN, margin={"l": 10, "r": 20},
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def _headroom(result: LISResult) -> Estimate:
    """Return what the preference data would still add to a representation."""
    return Estimate(value=result.headroom, se=math.nan, low=result.headroom_low, high=result.headroom_high)


def _over_time(periods: Sequence[Part]) -> Any:
    """Return the curve of each gain over the test windows, LIS dashed."""
    figure = new_figure()
    windows = [part.begins for part in periods]
    for index, (kind, name) in enumerate(periods[0].gains):
        gains = [cluster_interval(*part.gains[kind, name]) for part in periods]
        line = {"color": _COLOURS[index % len(_COLOURS)], "dash": "dash" if kind == "ceiling" else "solid"}
        figure.add_scatter(
            x=windows, y=[gain.value for gain in gains], error_y=_error_bars(gains), line=line,
            name=f"{LABELS[kind]} {name}", mode="lines+markers",
        )  # fmt: skip
    figure.add_hline(y=0, line_width=1, line_color=GREY)
    figure.update_layout(
        height=460, legend={"orientation": "h", "y": -0.2},
        xaxis_title="test window from", yaxis_title=GAIN,
    )  # fmt: skip
    return figure
