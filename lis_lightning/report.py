"""A run's results as one self-contained HTML page: the curve with its band, and the ceiling it works toward."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from lis_lightning.errors import ConfigError
from lis_lightning.figures import curve_figure
from lis_lightning.result import LISResult
from lis_lightning.stopping import judge


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
    figure = curve_figure(results, references).to_html(include_plotlyjs=True, full_html=False)
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
