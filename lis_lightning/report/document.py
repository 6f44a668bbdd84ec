"""Self-contained HTML document: no network, light and dark mode, and a compressed plotly for its figures."""

from __future__ import annotations

import base64
import functools
import gzip
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any


def document(title: str, *, figures: Mapping[str, Any], template: str = "base.html", **values: Any) -> str:
    """Return an HTML document; values are escaped unless the template marks them as HTML.

    Args:
        title: Heading of the document.
        figures: Plotly figures by name; each is drawn in the element with ``data-figure="name"``.
        template: File in ``templates/``.
        values: Variables of the template, such as ``body`` (HTML) of base.html.
    """
    import jinja2

    folder = files("lis_lightning.report") / "templates"
    figures_json = {name: _json(figure) for name, figure in figures.items()}
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8"))
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(template).render(
        title=title,
        css=(folder / "page.css").read_text("utf-8"),
        javascript=(folder / "page.js").read_text("utf-8"),
        figures=figures_json,
        plotly=_plotly() if figures else "",
        **{"body": "", "footer": "", "reload_seconds": None} | values,
    )


def write(path: str | Path, text: str) -> Path:
    """Write a page atomically, so that a browser that reloads it never reads a partial file.

    Args:
        path: The file; folders above it are created.
        text: The contents.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return path


def _json(figure: Any) -> str:
    # A script element ends at the first "</", which titles of items or names of runs may contain.
    return str(figure.to_json()).replace("<", "\\u003c")


@functools.cache
def _plotly() -> str:
    """Return plotly's script, compressed from 4.8 to 1.9 MB."""
    import plotly.offline

    return base64.b64encode(gzip.compress(plotly.offline.get_plotlyjs().encode(), mtime=0)).decode()
