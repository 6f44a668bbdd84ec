"""Curve of a run as a figure: AIS over optimizer steps and LIS of the preference data, with their 95 % bands."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lis_lightning.errors import ConfigError
from lis_lightning.results.selection import simultaneous_band
from lis_lightning.results.snapshot import Snapshot

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Palette of Okabe and Ito (2008), which colour-blind readers can distinguish.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#7F7F7F"
GAIN = "AUC gain over the base (higher is better)"
STEPS = "optimizer step"
LABEL_WIDTH = 22  # characters of a line in the label of a row


def new_figure() -> Figure:
    """Return an empty plotly figure."""
    import plotly.graph_objects as go

    # Without plotly's template a figure is 7 kB smaller and takes half the time.
    return go.Figure(layout={"template": "none"})


def wrapped(label: str) -> str:
    """Return a label of a row in several lines, so that on a phone it leaves half of the width to the figure.

    Example:
        >>> wrapped("AIS of the image tower, last layer")
        'AIS of the image<br>tower, last layer'
    """
    return "<br>".join(textwrap.wrap(label, LABEL_WIDTH)) or label


def rows_height(labels: Collection[str]) -> int:
    """Return the height in pixels of rows that have these labels, all as high as the highest."""
    lines = max((label.count("<br>") + 1 for label in labels), default=1)
    return len(labels) * (14 + 16 * lines)


def curve_figure(results: Sequence[Snapshot], references: Mapping[str, float] | None = None) -> Figure:
    """Return the curve of a run: AIS and its 95 % bands, the geometry-only gain, LIS, and the best snapshot.

    Args:
        results: Snapshots in the order of their steps, at least one.
        references: Gains to draw as dotted lines, by name (such as that of the true latents in the simulated world).

    Returns:
        A plotly figure; x in optimizer steps, y in AUC gain over the base ranker.

    Raises:
        ConfigError: If there is no result.

    Example:
        >>> from lis_lightning.results import LISResult, Snapshot
        >>> result = LISResult(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703)
        >>> curve_figure([Snapshot.of(result, step=200)]).data[-1].name
        'best: step 200'
    """
    if not results:
        raise ConfigError("Nothing to draw: the list of results is empty.")
    steps = [result.step for result in results]
    figure = new_figure()
    _ceilings(figure, results[-1], [min(steps), max(steps)], references or {})
    low = [result.ais_low for result in results]
    high = [result.ais_high for result in results]
    geometry = [result.ais_geometry for result in results]
    gains = [result.ais for result in results]
    verdicts = [result.verdict for result in results]
    band = [estimate for estimate in simultaneous_band(results) if math.isfinite(estimate.se)]
    if len(band) == len(results) > 1:
        low_all, high_all = [estimate.low for estimate in band], [estimate.high for estimate in band]
        _band(figure, steps, low_all, high_all, BLUE, "AIS, 95 % for all snapshots at once")
    _band(figure, steps, low, high, BLUE, "AIS, 95 %")
    figure.add_scatter(x=steps, y=geometry, name="AIS, geometry only", line={"color": GREEN, "width": 1})
    figure.add_scatter(
        x=steps, y=gains, mode="lines+markers", name="AIS", line={"color": BLUE, "width": 3},
        text=verdicts, hovertemplate="step %{x}: %{y:.4f} (%{text})",
    )  # fmt: skip
    _best(figure, results, steps)
    figure.update_layout(
        height=560, legend={"orientation": "h", "y": -0.2}, hovermode="closest", xaxis_title=STEPS, yaxis_title=GAIN,
    )  # fmt: skip
    figure.add_hline(y=0, line_width=1, line_color=GREY)
    return figure


def _ceilings(figure: Any, last: Snapshot, ends: list[int], references: Mapping[str, float]) -> None:
    """Draw the ceilings from end to end, dashed and with their bands, and the references, dotted."""
    for colour, (name, ceiling) in zip((ORANGE, GREY), last.ceilings.items(), strict=False):
        if math.isfinite(ceiling.low):
            _band(figure, ends, [ceiling.low] * 2, [ceiling.high] * 2, colour, f"LIS of {name}, 95 %")
        figure.add_scatter(
            x=ends, y=[ceiling.value] * 2, mode="lines", name=f"LIS of {name} (estimate)",
            line={"color": colour, "dash": "dash"},
        )  # fmt: skip
    for name, value in references.items():
        figure.add_scatter(x=ends, y=[value] * 2, mode="lines", name=name, line={"color": GREY, "dash": "dot"})


def _band(figure: Any, x: list[int], low: list[float], high: list[float], colour: str, name: str) -> None:
    figure.add_scatter(
        x=x + x[::-1], y=high + low[::-1], fill="toself", fillcolor=colour, opacity=0.2, line={"width": 0},
        hoverinfo="skip", name=name, mode="lines",
    )  # fmt: skip


def _best(figure: Any, results: Sequence[Snapshot], steps: list[int]) -> None:
    """Mark the snapshot with the highest AIS, if one has a score."""
    scored = [index for index, result in enumerate(results) if math.isfinite(result.ais)]
    if scored:
        best = max(scored, key=lambda index: results[index].ais)
        figure.add_scatter(
            x=[steps[best]], y=[results[best].ais], mode="markers", name=f"best: step {steps[best]}",
            marker={"symbol": "star", "size": 16, "color": BLUE, "line": {"color": "white", "width": 1}},
        )  # fmt: skip
