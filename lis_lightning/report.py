"""A run's results as one self-contained HTML page: the curve with its band, and the ceiling it works toward."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lis_lightning.errors import ConfigError
from lis_lightning.result import LISResult
from lis_lightning.stopping import judge

# Okabe and Ito (2008): told apart by colour-blind readers, on light and on dark.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#7F7F7F"


def write_curve(
    results: Sequence[LISResult], path: str | Path, *, title: str, references: Mapping[str, float] | None = None
) -> Path:
    """Write the curve of AIS over steps as an HTML page that needs no network.

    Args:
        results: Snapshots in the order of their steps.
        path: The file to write; its folder is made.
        title: Heading of the page.
        references: Known gains to draw as dotted lines, by name (in the generated world, that of the revealed latents).

    Returns:
        The path.

    Raises:
        ConfigError: If there is no result, or plotly is not installed.
    """
    if not results:
        raise ConfigError("Nothing to draw: the list of results is empty.")
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    figure = _figure(results, references or {}).to_html(include_plotlyjs=True, full_html=False)
    last = judge(results)
    verdict = f"<p><b>{last.verdict}</b>: {html.escape(last.message)}</p>"
    place.write_text(page(title, verdict + figure), encoding="utf-8")
    return place


def page(title: str, body: str) -> str:
    """Return an HTML document.

    Args:
        title: Its heading, as text.
        body: What follows, as HTML.
    """
    style = (
        "body{font:16px system-ui;margin:2rem auto;max-width:70rem;padding:0 1rem}"
        "td,th{padding:.2rem .8rem;text-align:right}td:first-child,th:first-child{text-align:left}"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style></head><body><h1>{html.escape(title)}</h1>{body}</body></html>"
    )


def _figure(results: Sequence[LISResult], references: Mapping[str, float]) -> Any:
    """Return the plotly figure: band and curve of AIS, geometry, ceilings with their bands, references."""
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise ConfigError("The page needs plotly: pip install 'lis-lightning[report]'.") from error

    steps = [result.step if result.step is not None else index for index, result in enumerate(results)]
    figure = go.Figure()

    def band(x: list[Any], low: list[float], high: list[float], colour: str, name: str) -> None:
        figure.add_scatter(
            x=x + x[::-1], y=high + low[::-1], fill="toself", fillcolor=colour, opacity=0.2, line={"width": 0},
            hoverinfo="skip", name=name, mode="lines",
        )  # fmt: skip

    ends = [min(steps), max(steps)]
    for colour, (name, ceiling) in zip((ORANGE, GREY), results[-1].ceilings.items(), strict=False):
        if math.isfinite(ceiling.low):
            band(ends, [ceiling.low] * 2, [ceiling.high] * 2, colour, f"ceiling {name}, 95 %")
        figure.add_scatter(
            x=ends, y=[ceiling.value] * 2, mode="lines", name=f"ceiling {name}", line={"color": colour, "dash": "dash"}
        )
    for name, value in references.items():
        figure.add_scatter(x=ends, y=[value] * 2, mode="lines", name=name, line={"color": GREY, "dash": "dot"})
    band(steps, [r.ais_low for r in results], [r.ais_high for r in results], BLUE, "AIS, 95 %")
    figure.add_scatter(
        x=steps, y=[r.ais_geometry for r in results], name="AIS, geometry only", line={"color": GREEN, "width": 1}
    )
    figure.add_scatter(
        x=steps, y=[r.ais for r in results], mode="lines+markers", name="AIS", line={"color": BLUE, "width": 3},
        text=[r.verdict for r in results], hovertemplate="step %{x}: %{y:.4f} (%{text})",
    )  # fmt: skip
    figure.update_layout(
        template="plotly_white", height=560, legend={"orientation": "h", "y": -0.2}, hovermode="closest",
        xaxis_title="optimizer step", yaxis_title="AUC gain over the base (higher is better)",
    )  # fmt: skip
    figure.add_hline(y=0, line_width=1, line_color=GREY)
    return figure
