"""Lightning logger of Trackio, which has none of its own; it needs no server and no account."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override


class TrackioLogger(Logger):
    """Log a Lightning training to Trackio, on disk or in a Space: ``trackio show`` opens the dashboard.

    Trackio writes to its own folder, ``TRACKIO_DIR`` in the environment. It allows Pillow below 13 only.

    Args:
        project: Trackio project.
        run_name: Name of the run; Trackio chooses one if it is None.
        save_dir: Folder for checkpoints and the record of the run; None stands for the Trainer's `default_root_dir`.
        **options: Further arguments of ``trackio.init``, such as ``space_id``.

    Example:
        >>> logger = TrackioLogger("news", run_name="first")  # for Trainer(logger=...)
        >>> logger.name, logger.version
        ('news', 'first')
    """

    def __init__(
        self, project: str = "lightning_logs", run_name: str | None = None, save_dir: str | Path | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self._project = project
        self._run_name = run_name
        self._save_dir = None if save_dir is None else str(save_dir)
        self._options = options
        self._run: Any = None

    @property
    @override
    def name(self) -> str:
        return self._project

    @property
    @override
    def version(self) -> str | None:
        return self._run_name

    @property
    @override
    def save_dir(self) -> str | None:
        return self._save_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The Trackio run; it begins when it is first needed."""
        if self._run is None:
            import trackio

            self._run = trackio.init(self._project, name=self._run_name, resume="allow", **self._options)
            self._run_name = self._run.name
        return self._run

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log(dict(metrics), step=step)

    @override
    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self.experiment.config.update(vars(params) if isinstance(params, Namespace) else params)

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        # Metrics are written in batches. A later fit continues the run under its name.
        if self._run is not None:
            self._run.finish()
            self._run = None
