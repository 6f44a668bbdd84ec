"""Output of a monitored run: the Trainer's metrics, its loggers, alerts and the terminal."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from lis_lightning.errors import ConfigError
from lis_lightning.monitor.failures import Failures
from lis_lightning.monitor.run_history import RunHistory
from lis_lightning.monitor.training import Training
from lis_lightning.report import snapshot_text as terminal
from lis_lightning.results.keys import FAMILIES
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.verdict import Judgement
from lis_lightning.tracking import loggers as tracking


def check_logging(name: str | None, artifact: bool, save: str | None) -> None:
    """Check the arguments of a monitor that concern logging.

    Raises:
        ConfigError: If `name` cannot be part of a key, or `artifact` is set and `save` does not keep the best snapshot.
    """
    if name is not None and not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"`name` is part of keys and file names: letters, digits, - and _, got {name!r}.")
    if name in FAMILIES:
        raise ConfigError(
            f"`name` is part of keys, and {', '.join(f'lis/{family}' for family in FAMILIES)} are those of every "
            f"monitor: choose another name, got {name!r}."
        )
    if artifact and save not in {"best", "all"}:
        raise ConfigError(
            f"`artifact=True` logs the best snapshot, which `save` has to keep: expected `save` to be 'best' or 'all', "
            f"got {save!r}."
        )


class Announcer:
    """Publishes what happens in a run, from the first process; a logger that fails does not stop the training.

    Args:
        prefix: Start of every logged key.
        failures: Where failing loggers are recorded.
        alerts: Whether to send alerts through the loggers that can.
        log_more: Whether the loggers get the keys ``more/...`` too.
        progress: Whether to print to the terminal.

    Attributes:
        verdict: The last verdict on the run; empty before the first.
    """

    def __init__(self, prefix: str, failures: Failures, *, alerts: bool, log_more: bool, progress: bool) -> None:
        self.prefix = prefix
        self.verdict = ""
        self._failures = failures
        self._alerts = alerts
        self._log_more = log_more
        self._progress = progress

    def log_config(self, training: Training, config: Mapping[str, Any]) -> None:
        """Log the facts of the split that the run is scored on."""
        if training.is_first:
            failures = tracking.start(training.loggers, config, prefix=self.prefix)
            self._failures.add_logger_failures(failures)

    @contextlib.contextmanager
    def first_snapshot(self, num_items: int, ceilings: Iterable[str]) -> Iterator[None]:
        """Print a line before and after the first snapshot, which takes longest, also where no terminal shows it."""
        names = ", ".join(ceilings)
        once = f", and computing the ceilings of {names} once for this split" if names else ""
        began = time.perf_counter()
        if self._progress:
            rank_zero_info(f"LISMonitor: scoring {num_items} items before training{once} ...")
        yield
        if self._progress:
            rank_zero_info(f"LISMonitor: the first snapshot took {time.perf_counter() - began:.1f} s")

    def publish(self, training: Training, result: Snapshot) -> None:
        """Hand a result to what reads metrics (on every process) and print it."""
        training.publish(result, self.prefix)
        if self._progress:
            rank_zero_info(terminal.snapshot_line(result))

    def log_result(self, training: Training, results: Sequence[Snapshot], best: Snapshot) -> None:
        """Log the newest result."""
        if training.is_first:
            failures = tracking.log_result(training.loggers, results, best, prefix=self.prefix, more=self._log_more)
            self._failures.add_logger_failures(failures)

    def alert(self, training: Training, judgement: Judgement | None, *, stopped: bool = False) -> None:
        """Send an alert if the verdict is new and calls for action, or the training is stopped.

        An alert that cannot be sent raises nothing, not even in a strict run: the record, the curves and the terminal
        hold the same information.

        Args:
            training: The training in progress, with its step.
            judgement: The newest judgement; None if there is none.
            stopped: Whether a callback stops the training on it.
        """
        if judgement is None:
            return
        previous, self.verdict = self.verdict, judgement.verdict
        if self._alerts and training.is_first:
            failures = tracking.log_alert(
                training.loggers, judgement, previous=previous, step=training.step, stopped=stopped,
                prefix=self.prefix,
            )  # fmt: skip
            self._failures.add_logger_failures(failures, may_raise=False)

    def log_end(self, training: Training, history: RunHistory, artifact: bool) -> None:
        """Log what is logged once, at the end: tables, movers, failures and, if wanted, the best snapshot."""
        if not training.is_first:
            return
        failed, error = self._failures.num_snapshots, self._failures.last_snapshot
        logged = []
        if failed:
            logged += tracking.log_failures(training.loggers, len(history.results), failed, error, prefix=self.prefix)
        if history.best is not None:
            file = history.best_file if artifact else None
            logged += tracking.finish(training.loggers, history.results, history.best, file, prefix=self.prefix)
            logged += tracking.log_movers(training.loggers, history.movers, prefix=self.prefix)
        self._failures.add_logger_failures(logged)

    def print_summary(self, training: Training, history: RunHistory) -> None:
        """Print all snapshots as a table, with the verdict, the number of failures and the path of the record."""
        if self._progress and training.is_first:
            failed, error = self._failures.num_snapshots, self._failures.last_snapshot
            record = None if history.record is None else history.record.path
            with self._failures.tolerate("summary"):
                failures = terminal.failed_line(history.name, len(history.results), failed, error) if failed else ""
                hint = tracking.sync_hint(training.loggers)
                rank_zero_info(terminal.summary(history.results, history.best, record, failures, hint))
