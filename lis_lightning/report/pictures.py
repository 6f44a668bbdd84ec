"""Items that moved, with thumbnails small enough to travel in the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from lis_lightning.report.runs import RecordedRun
from lis_lightning.report.thumbnails import thumbnail
from lis_lightning.results.movers import Mover


def shown_movers(run: RecordedRun) -> dict[str, list[dict[str, Any]]] | None:
    """Return the items whose gain rose and fell most, as the page shows them; None where they are not known."""
    found = run.movers
    if not found:
        return None
    return {
        "rose": [_shown(one) for one in found if one.change.value > 0],
        "fell": [_shown(one) for one in found if one.change.value < 0],
    }


def _shown(one: Mover) -> dict[str, Any]:
    # In units of .0001: a single item moves the AUC by that much at most.
    change = f"{1e4 * one.change.value:+.2f} [{1e4 * one.change.low:+.2f}, {1e4 * one.change.high:+.2f}]"
    return {"title": one.title, "image": _embedded(one.image), "change": change}


def _embedded(path: Path | None) -> str | None:
    """Return a picture as a small JPEG in a data URL; None where there is none, or it cannot be read."""
    small = thumbnail(path)
    if small is None:
        return None
    small.save(output := io.BytesIO(), "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(output.getvalue()).decode()}"
