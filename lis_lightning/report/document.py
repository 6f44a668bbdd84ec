"""A self-contained HTML document: no network, light and dark, figures by a compressed plotly in the page."""

from __future__ import annotations

import base64
import functools
import gzip
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from lis_lightning.errors import ConfigError


def document(title: str, *, figures: Mapping[str, Any], template: str = "base.html", **values: Any) -> str:
    """Return an HTML document. Every value is text unless a template says otherwise: markup in it stays text.

    Args:
        title: Its heading.
        figures: Plotly figures by name; a template puts each where it says ``data-figure="name"``.
        template: File in ``templates/``.
        values: What the template names: ``body`` (HTML) of base.html.

    Raises:
        ConfigError: If jinja2 or plotly is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError("The page needs jinja2: pip install 'lis-lightning[report]'.") from error
    folder = files("lis_lightning.report") / "templates"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8"))
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(template).render(
        title=title,
        css=(folder / "page.css").read_text("utf-8"),
        javascript=(folder / "page.js").read_text("utf-8"),
        figures={name: _json(figure) for name, figure in figures.items()},
        plotly=_plotly() if figures else "",
        **{"body": "", "footer": "", "reload_seconds": None} | values,
    )


def write(path: str | Path, text: str) -> Path:
    """Write a page in one step: a browser that loads it anew never sees half of it.

    Args:
        path: The file; folders above it are made.
        text: Its contents.
    """
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(place)
    return place


def _json(figure: Any) -> str:
    # A script ends at the first "</": titles of items and names of runs must not end it.
    return str(figure.to_json()).replace("<", "\\u003c")


@functools.cache
def _plotly() -> str:
    """Return plotly's script, compressed: 1.9 MB in place of 4.8."""
    import plotly.offline

    return base64.b64encode(gzip.compress(plotly.offline.get_plotlyjs().encode(), mtime=0)).decode()
