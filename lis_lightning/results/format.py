"""Plain-text format of estimates and tables: signed gains, percentages and intervals; a dash for NaN."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Interval(Protocol):
    """An object with a value and a 95 % interval, such as an `Estimate`, a `Ceiling` or a `SliceEstimate`."""

    @property
    def value(self) -> float:
        """The point estimate."""

    @property
    def low(self) -> float:
        """Lower bound."""

    @property
    def high(self) -> float:
        """Upper bound."""


def format_gain(value: float) -> str:
    """Format an AUC difference with its sign and four decimals; NaN is a dash.

    Args:
        value: In AUC units.

    Example:
        >>> format_gain(0.01234), format_gain(float("nan"))
        ('+0.0123', '-')
    """
    return "-" if math.isnan(value) else f"{value:+.4f}"


def format_share(value: float) -> str:
    """Format a share in percent; NaN is a dash.

    Args:
        value: The share; 1 is 100 %.

    Example:
        >>> format_share(0.5), format_share(float("nan"))
        ('50%', '-')
    """
    return "-" if math.isnan(value) else f"{value:.0%}"


def format_bounds(low: float, high: float, *, percent: bool = False) -> str:
    """Format the bounds of an interval, in AUC units or in percent.

    Args:
        low: Lower bound.
        high: Upper bound.
        percent: Whether the bounds are shares.

    Example:
        >>> format_bounds(0.01, 0.0146), format_bounds(0.42, 0.58, percent=True)
        ('[+0.0100, +0.0146]', '[42%, 58%]')
    """
    return f"[{low:.0%}, {high:.0%}]" if percent else f"[{low:+.4f}, {high:+.4f}]"


def format_interval(value: float, low: float, high: float, *, percent: bool = False) -> str:
    """Format a value with its 95 % interval, in AUC units or in percent; a dash if the value is NaN.

    Args:
        value: The point estimate.
        low: Lower bound.
        high: Upper bound.
        percent: Whether the value and the bounds are shares.

    Example:
        >>> format_interval(0.0123, 0.01, 0.0146)
        '+0.0123 [+0.0100, +0.0146]'
        >>> format_interval(0.5, 0.42, 0.58, percent=True)
        '50% [42%, 58%]'
    """
    if math.isnan(value):
        return "-"
    number = format_share(value) if percent else format_gain(value)
    return f"{number} {format_bounds(low, high, percent=percent)}"


def format_estimate(estimate: Interval) -> str:
    """Format an estimate with its 95 % interval, in AUC units.

    Args:
        estimate: The estimate.

    Example:
        >>> from lis_lightning.functional import Estimate
        >>> format_estimate(Estimate(value=0.02, se=0.005, low=0.01, high=0.03))
        '+0.0200 [+0.0100, +0.0300]'
    """
    return format_interval(estimate.value, estimate.low, estimate.high)


def estimate_name(name: str) -> str:
    """Return the name of a ceiling for a reader: what it estimates, since content can exceed it.

    Args:
        name: Name of the preference data.

    Example:
        >>> estimate_name("pairs")
        'LIS of pairs (an estimate of what this preference data carries)'
    """
    return f"LIS of {name} (an estimate of what this preference data carries)"


def format_path(path: Path) -> str:
    """Return a path relative to the current folder if it lies below it, else as it is.

    Args:
        path: The file or folder.

    Example:
        >>> format_path(Path.cwd() / "runs" / "record.jsonl"), format_path(Path("/elsewhere/record.jsonl"))
        ('runs/record.jsonl', '/elsewhere/record.jsonl')
    """
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path)


def plain_console(file: TextIO, width: int) -> Console:
    """Return a rich console that writes plain text to a file in every environment.

    By default, rich displays tables in a notebook instead of writing them, and colours them under ``FORCE_COLOR``.

    Args:
        file: The file to write to.
        width: Width of a line, in characters.
    """
    from rich.console import Console

    return Console(file=file, force_jupyter=False, force_terminal=False, width=width, markup=False, highlight=False)


def render_plain(*parts: RenderableType, width: int) -> str:
    """Render rich tables and texts as plain text, one below the other.

    Args:
        *parts: Tables or texts.
        width: Width of a line, in characters.

    Example:
        >>> print(render_plain("a line", "another", width=80))
        a line
        another
    """
    console = plain_console(output := io.StringIO(), width)
    for part in parts:
        console.print(part)
    return output.getvalue().rstrip()
