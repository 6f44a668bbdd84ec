"""The numbers of runs on disk as data frames, from their records or from W&B's offline files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from lis_lightning.report.runs import RecordedRun, find_run
from lis_lightning.results.frame import snapshots_frame
from lis_lightning.tracking.wandb_offline import OFFLINE_READERS


def read_run(path: str | Path) -> pl.DataFrame:
    """Return the snapshots of a run as a data frame, one row each.

    The columns are ``step``, ``verdict``, all numbers under their logged keys without ``lis/`` and ``more/``, such as
    ``ais``, ``ais_low``, ``best_ais``, ``auc_base`` or ``slice/head_items``, and ``message``. Numbers that could not be
    computed are null.

    Args:
        path: Folder of the run, which is searched; its ``record.jsonl``; or W&B's ``run-*.wandb``. A W&B run that was
            killed holds what was logged, the six keys of the default without ``log_more=True``.

    Raises:
        ConfigError: If there is no run, or more than one.
        RecordError: If the file cannot be read.

    Example:
        >>> import tempfile
        >>> from lis_lightning.results import Record, Snapshot
        >>> snapshot = Snapshot(
        ...     ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703, step=200
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Record.create(Path(folder) / "record.jsonl", run_id="a1", split_hash="c0ffee").append(snapshot)
        ...     read_run(folder)["step", "verdict", "ais", "auc_base"].rows()
        [(200, 'warming-up', 0.003, 0.7)]
    """
    return snapshots_frame(find_run(path, OFFLINE_READERS).results)


def runs_frame(runs: Sequence[RecordedRun]) -> pl.DataFrame:
    """Return the snapshots of several runs as one data frame, with the columns ``run`` and ``split`` (its hash).

    Only scores on one split can be compared.

    Args:
        runs: The runs, as :func:`lis_lightning.report.find_runs` returns them.
    """
    frames = [_named_frame(run) for run in runs]
    return pl.concat(frames, how="diagonal_relaxed")


def _named_frame(run: RecordedRun) -> pl.DataFrame:
    frame = snapshots_frame(run.results)
    return frame.select(pl.lit(run.name).alias("run"), pl.lit(run.split_hash).alias("split"), pl.all())
