"""Tables as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def plain_console(file: TextIO, width: int) -> Console:
    """Return a console that writes plain text to a file, wherever that is.

    Left alone, rich shows tables in a notebook instead of writing them, and colours them where ``FORCE_COLOR`` is set.

    Args:
        file: Where to.
        width: Of a line, in characters.
    """
    from rich.console import Console

    return Console(file=file, force_jupyter=False, force_terminal=False, width=width, markup=False, highlight=False)
