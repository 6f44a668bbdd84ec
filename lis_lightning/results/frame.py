"""The snapshots of a run as a data frame."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lis_lightning.results.keys import nest
from lis_lightning.results.snapshot import Snapshot


def snapshots_frame(results: Sequence[Snapshot]) -> pl.DataFrame:
    """Return a row for each snapshot: ``step``, ``verdict``, all numbers by name, and ``message``.

    The names are those of :meth:`LISResult.numbers`, the logged keys without ``lis/`` and ``more/``, and
    ``watched/<key>`` for metrics that were watched. Numbers that could not be computed are null.

    Args:
        results: The snapshots, by step.

    Example:
        >>> result = Snapshot(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703,
        ...                   step=200)
        >>> snapshots_frame([result])["step", "verdict", "ais"].rows()
        [(200, 'warming-up', 0.003)]
    """
    rows = [
        {"step": result.step, "verdict": result.verdict}
        | result.numbers()
        | nest("watched", result.watched)
        | {"message": result.message}
        for result in results
    ]
    frame = pl.from_dicts(rows, infer_schema_length=None)
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))
