"""Results to experiment trackers: the same keys for every Lightning logger, and what W&B can show beyond curves.

The only file that knows W&B; it is imported when a W&B logger is met.

Curves, at the snapshot's own optimizer step: ``lis/ais``, ``lis/ais_low``, ``lis/ais_high``, ``lis/ais_geometry``,
``lis/auc_base``, ``lis/auc``, ``lis/gauc_gain``, ``lis/ceiling_pairs``, ``lis/ceiling_ids``, ``lis/realised`` and
``lis/headroom`` (these five with ``_low`` and ``_high``), ``lis/gain_z``, ``lis/ais_seen``, ``lis/ais_unseen``,
``lis/encode_seconds``, ``lis/score_seconds``, ``lis/slice/...``, ``lis/companion/...`` and ``lis/verdict`` (its place
in VERDICTS). A split with a weight adds ``lis/ais_weighted`` (with ``_low`` and ``_high``), one of several labels
``lis/task/<name>/...`` for those after the first, and one of rolling windows ``lis/period/<number>/...``.
A monitor with a name puts it after ``lis/`` in all of these.
W&B also gets the summaries ``lis/verdict`` (as text), ``lis/message``, ``lis/best_step``, ``lis/best_ais``,
``lis/best_realised``, the config ``lis`` (the split), and at the end the table ``lis/snapshots``.
"""

from __future__ import annotations

import hashlib
import io
import math
import netrc
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytorch_lightning as pl
import torch

from lis_lightning._text import plain_console
from lis_lightning.result import LISResult
from lis_lightning.stopping import VERDICTS

STEP = "trainer/global_step"  # Lightning's own x-axis in W&B
COLUMNS = (
    "step",
    "ais",
    "ais_low",
    "ais_high",
    "ais_geometry",
    "realised",
    "realised_low",
    "realised_high",
    "headroom",
    "headroom_low",
    "headroom_high",
    "gain_z",
    "ais_seen",
    "ais_unseen",
    "verdict",
    "message",
)

FINISH_SECONDS = 30.0  # that the end of a training waits for W&B's server

Loggers = Iterable[Any]


def metrics(result: LISResult, prefix: str = "lis") -> dict[str, float]:
    """Return what is logged of a result: every scalar under its key, the verdict as its place in VERDICTS.

    Example:
        >>> from lis_lightning.result import LISResult
        >>> result = LISResult(ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703)
        >>> metrics(result)["lis/ais"]
        0.003
    """
    values = result.scalars() | {"verdict": float(VERDICTS.index(result.verdict))}
    values |= {f"task/{name}/verdict": float(VERDICTS.index(task.verdict)) for name, task in result.tasks.items()}
    return {f"{prefix}/{name}": value for name, value in values.items()}


def start(loggers: Loggers, config: Mapping[str, Any], *, prefix: str = "lis") -> list[str]:
    """Tell W&B loggers the x-axis of our curves, and the split they are measured on.

    Args:
        loggers: The Trainer's loggers.
        config: Plain values, shown under `prefix` in the run's config.
        prefix: What the keys start with.

    Returns:
        What failed, a sentence for each logger.
    """

    def begin(logger: Any) -> None:
        if _is_wandb(logger):
            # A glob may set the x-axis only: a summary kind in it would be applied to tables too, and corrupt them.
            logger.experiment.define_metric("lis/*", step_metric=STEP)
            logger.experiment.config.update({prefix: dict(config)}, allow_val_change=True)

    return _each(loggers, begin)


def log_result(loggers: Loggers, result: LISResult, best: LISResult, *, prefix: str = "lis") -> list[str]:
    """Log a snapshot to every logger, at its own step.

    Args:
        loggers: The Trainer's loggers.
        result: The snapshot; its step is set.
        best: The best snapshot so far, for W&B's summary.
        prefix: What the keys start with.

    Returns:
        What failed, a sentence for each logger; a logger that raises keeps no other from being written.
    """

    def log(logger: Any) -> None:
        logger.log_metrics(metrics(result, prefix), step=result.step)
        logger.save()
        if _is_wandb(logger):
            logger.experiment.summary.update(
                {
                    f"{prefix}/verdict": result.verdict,
                    f"{prefix}/message": result.message,
                    f"{prefix}/best_step": best.step,
                    f"{prefix}/best_ais": best.ais,
                    f"{prefix}/best_realised": best.realised,
                }
            )

    return _each(loggers, log)


def finish(loggers: Loggers, results: Sequence[LISResult], *, prefix: str = "lis") -> list[str]:
    """Log the table ``lis/snapshots`` to W&B loggers; once, when the run ends.

    A table is a file, and W&B asks its server before it takes one: where that is dead, the training ends after
    FINISH_SECONDS at most, without the table. (The process ends when W&B says so: set ``WANDB_FINISH_TIMEOUT``.)

    Returns:
        What failed, a sentence for each logger.
    """

    def end(logger: Any) -> None:
        if _is_wandb(logger):
            import wandb

            rows = [[getattr(result, column) for column in COLUMNS] for result in results]
            table = {f"{prefix}/snapshots": wandb.Table(columns=list(COLUMNS), data=rows)}
            _within(FINISH_SECONDS, lambda: logger.experiment.log(table))

    return _each(loggers, end)


def close(loggers: Loggers, *, failed: bool = False) -> list[str]:
    """End the W&B runs, so that the next job of this process has one of its own; waits FINISH_SECONDS at most.

    Args:
        loggers: Lightning loggers of the job.
        failed: Whether the job failed; its run is marked so.

    Returns:
        What failed, a sentence for each logger.
    """

    def end(logger: Any) -> None:
        if _is_wandb(logger):
            _within(FINISH_SECONDS, lambda: logger.experiment.finish(exit_code=int(failed)))

    return _each(loggers, end)


def publish(trainer: pl.Trainer, result: LISResult, prefix: str = "lis") -> None:
    """Put a result where stock EarlyStopping and ModelCheckpoint look for what they monitor."""
    for name, value in metrics(result, prefix).items():
        trainer.callback_metrics[name] = torch.tensor(value, dtype=torch.float32)


def run_folder(trainer: pl.Trainer) -> Path:
    """Return the folder of the run: the one that ModelCheckpoint makes its ``checkpoints`` in."""
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version


def summary(results: Sequence[LISResult], best: LISResult, record: Path | None, loggers: Loggers) -> str:
    """Return what to print at the end of a run: all snapshots, the verdict, and where everything is kept."""
    last = results[-1]
    lines = [
        snapshot_table(results, best),
        f"Best snapshot: step {best.step}. Verdict: {last.verdict}{', ' if last.message else ''}{last.message}",
        "" if record is None else f"Record: {record}",
        sync_hint(loggers) or "",
    ]
    return "\n".join(["", *filter(None, lines)])


def snapshot_table(results: Sequence[LISResult], best: LISResult | None = None) -> str:
    """Return the snapshots as a table for a terminal, the best one marked by ``*``."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    others = [f"AIS {name}" for name in results[-1].tasks]
    for heading in ("step", "AIS", "95 % interval", "geometry", "realised", *others, "verdict"):
        table.add_column(heading, justify="left" if heading == "verdict" else "right", no_wrap=True)
    for result in results:
        table.add_row(
            f"{result.step}{'*' if result is best else ' '}",
            f"{result.ais:+.4f}",
            f"[{result.ais_low:+.4f}, {result.ais_high:+.4f}]",
            f"{result.ais_geometry:+.4f}",
            _share(result.realised),
            *(f"{task.ais:+.4f}" for task in result.tasks.values()),
            result.verdict,
        )
    plain_console(output := io.StringIO(), 100).print(table)
    return output.getvalue().rstrip()


def snapshot_line(result: LISResult) -> str:
    """Return a snapshot as one line of a log."""
    realised = "" if math.isnan(result.realised) else f", {_share(result.realised)} of the ceiling"
    return (
        f"LIS step {result.step}: AIS {result.ais:+.4f} [{result.ais_low:+.4f}, {result.ais_high:+.4f}]{realised}, "
        f"{result.verdict} ({result.encode_seconds:.1f} s to encode, {result.score_seconds:.1f} s to score)"
    )


def wandb_mode() -> str | None:
    """Return the `mode` for W&B: "offline" where nobody has configured a key, else None (W&B decides by itself).

    A key counts as configured by ``WANDB_API_KEY``, ``WANDB_IDENTITY_TOKEN_FILE`` or a netrc entry for the host of
    ``WANDB_BASE_URL``. ``WANDB_MODE`` is left to W&B. Pass it on as ``WandbLogger(mode=wandb_mode())``; the
    logger's own ``offline=True`` would set ``WANDB_MODE`` for the rest of the process.
    """
    if os.environ.get("WANDB_MODE") or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return None
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    named = os.environ.get("NETRC")
    files = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    return None if any(_has_entry(file.expanduser(), host) for file in files) else "offline"


def sync_hint(loggers: Loggers) -> str | None:
    """Return the sentence that says how to upload what W&B loggers kept offline; None where nothing was."""
    for logger in loggers:
        if _is_wandb(logger):
            settings = getattr(logger.experiment, "settings", None)
            if settings is not None and settings.mode in ("offline", "dryrun"):
                return f"W&B is offline; upload this run with `wandb sync {settings.sync_dir}`."
    return None


def _each(loggers: Loggers, action: Callable[[Any], None]) -> list[str]:
    """Do the same with every logger and return what failed; a tracker must not stop a training."""
    failures = []
    for logger in loggers:
        try:
            action(logger)
        except Exception as error:
            failures.append(f"{type(logger).__name__} raised {type(error).__name__}: {error}")
    return failures


def _within(seconds: float, action: Callable[[], Any]) -> None:
    """Do something that may hang, and go on without it after some time.

    Raises:
        TimeoutError: If it takes longer. It is left behind in a thread, and ends with the process.
    """
    raised: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    if raised:
        raise raised[0]


def _is_wandb(logger: Any) -> bool:
    """Whether a logger is a WandbLogger, of pytorch_lightning or lightning.pytorch; asked without importing either."""
    return any(cls.__name__ == "WandbLogger" for cls in type(logger).__mro__)


def _has_entry(file: Path, host: str) -> bool:
    """Whether a netrc file names a host; an unreadable file names none."""
    try:
        return host in netrc.netrc(file).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def _share(value: float) -> str:
    """Write a share in per cent; a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.0%}"


def log_leaderboard(
    table: Any, *, group: str, project: str | None, folder: Path, entity: str | None = None
) -> list[str]:
    """Log the leaderboard of a sweep as ``lis/leaderboard``, in a run of its own beside those of the jobs.

    The run's id follows from the group: a sweep that goes on writes the same run again.

    Args:
        table: Of polars, a row a recipe.
        group: The W&B group of the jobs.
        project: That of the jobs.
        folder: Of the sweep.
        entity: That of the jobs.

    Returns:
        What failed, in a sentence.
    """
    import wandb

    mode: Any = wandb_mode()
    online = mode is None and os.environ.get("WANDB_MODE", "online") == "online"
    number = hashlib.sha256(f"{group}/leaderboard".encode()).hexdigest()[:12]

    def log() -> None:
        run = wandb.init(
            project=project, entity=entity, group=group, job_type="leaderboard", name=f"{group} leaderboard", id=number,
            dir=folder, mode=mode, resume="allow" if online else None, reinit="create_new",
        )  # fmt: skip
        run.log({"lis/leaderboard": wandb.Table(columns=table.columns, data=[list(row) for row in table.rows()])})
        run.finish()

    try:
        _within(FINISH_SECONDS, log)
    except Exception as error:
        return [f"The leaderboard is not in W&B: {type(error).__name__}: {error}"]
    return []
