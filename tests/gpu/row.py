"""One line of the table of the GPU script."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measured value.

    Attributes:
        section: The section that measured it.
        what: What was measured, with its sizes.
        value: The value; NaN if it could not be measured.
        unit: Unit of the value and the bar.
        bar: Largest value that is accepted; None if there is none.
        note: Further facts, such as what the value is compared with.
    """

    section: str
    what: str
    value: float
    unit: str = ""
    bar: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without a bar."""
        return None if self.bar is None else bool(self.value <= self.bar)
