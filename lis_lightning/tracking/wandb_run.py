"""Logging that is specific to W&B: x-axis, config, summaries, panels, alerts and artifacts.

This module is always imported, but W&B itself only if there is a W&B logger. Each `run` is a
``WandbLogger.experiment``.
"""

from __future__ import annotations

import hashlib
import netrc
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lis_lightning.results.exchange_rate import exchange_rates
from lis_lightning.results.format import format_path
from lis_lightning.results.keys import nest
from lis_lightning.results.selection import corrected_best
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.verdict import Judgement
from lis_lightning.tracking import wandb_tables as tables

STEP = "trainer/global_step"  # Lightning's own x-axis in W&B
QUIET = frozenset({"", "warming-up", "improving", "undecided"})  # verdicts that call for no action
GOOD = frozenset({"plateau", "at-ceiling", "ceiling-not-binding"})  # good outcomes of a run
TITLE = 63  # characters that W&B accepts


@dataclass(frozen=True)
class Alert:
    """Message to the subscribers of the project's alerts.

    Attributes:
        title: Up to TITLE characters.
        text: The verdict and its reason.
        level: ``"INFO"`` or ``"WARN"``.
    """

    title: str
    text: str
    level: str


def is_wandb(logger: Any) -> bool:
    """Return whether a logger is a WandbLogger of pytorch_lightning or lightning.pytorch, importing neither."""
    return any(cls.__name__ == "WandbLogger" for cls in type(logger).__mro__)


def begin(run: Any, config: Mapping[str, Any], prefix: str) -> None:
    """Set the x-axis of the ``lis`` curves, and add the split to the run's config."""
    # A glob may set the x-axis only: a summary kind in it would be applied to tables too, and corrupt them.
    run.define_metric("lis/*", step_metric=STEP)
    run.config.update({prefix: dict(config)}, allow_val_change=True)


def summaries(last: Snapshot, best: Snapshot, prefix: str) -> dict[str, Any]:
    """Return the summary values of a run that are no curves, which W&B shows in the table of runs.

    Args:
        last: The newest snapshot.
        best: The best one.
        prefix: Prefix of the keys.
    """
    values: dict[str, Any] = {
        "verdict": last.verdict,
        "message": last.message,
        "best_step": best.step,
        "best_headroom": best.headroom,
        "best_realised": best.realised,
    }
    return nest(prefix, values | nest("more", last.constants()))


def corrected_summaries(results: Sequence[Snapshot], prefix: str) -> dict[str, float]:
    """Return the summary values of the best AIS, corrected for having been picked."""
    best, key = corrected_best(results), f"{prefix}/best_ais_corrected"
    return {key: best.value, f"{key}_low": best.low, f"{key}_high": best.high}


def worth_summaries(results: Sequence[Snapshot], prefix: str) -> dict[str, float]:
    """Return the summary values of what 1 % more of each metric was worth in AIS, as far as that is known.

    Args:
        results: The snapshots, by step.
        prefix: Prefix of the keys.
    """
    values: dict[str, float] = {}
    for found in exchange_rates(results):
        if found.reason:
            continue
        key = f"{prefix}/worth/{found.key}"
        values |= {key: found.rate.value, f"{key}_low": found.rate.low, f"{key}_high": found.rate.high}
        if found.broke_at is not None:
            values[f"{key}_broke_at"] = found.broke_at
    return values


def snapshot(run: Any, results: Sequence[Snapshot], best: Snapshot, prefix: str) -> None:
    """Update the summaries and the curve panel; neither waits for the server."""
    run.summary.update(summaries(results[-1], best, prefix))
    if tables.redrawn(len(results)):
        draw(run, results, prefix)


def draw(run: Any, results: Sequence[Snapshot], prefix: str) -> None:
    """Log what depends on all snapshots: the corrected best AIS and the curve as ``curve``."""
    run.summary.update(corrected_summaries(results, prefix))
    run.log({f"{prefix}/curve": tables.curve_panel(results), STEP: results[-1].step})


def end(run: Any, results: Sequence[Snapshot], best: Snapshot, artifact: Path | None, prefix: str) -> None:
    """Log the last curve, the tables and, if given, the best snapshot's file."""
    if not tables.redrawn(len(results)):
        draw(run, results, prefix)
    worth = worth_summaries(results, prefix)
    if worth:
        run.summary.update(worth)
    media = {"snapshots": tables.snapshots_table(results)}
    if best.slices or results[-1].slices:
        media["slices"] = tables.slices_table(best, results[-1])
    run.log({f"{prefix}/{name}": table for name, table in media.items()})  # at the current step of W&B
    if artifact is not None:
        log_artifact(run, artifact, best, prefix)


def log_artifact(run: Any, path: Path, best: Snapshot, prefix: str) -> None:
    """Log representations as an artifact of type "representations", one per monitor and run."""
    import wandb

    about = {"step": best.step, "ais": best.ais, "ais_low": best.ais_low, "ais_high": best.ais_high}
    artifact = wandb.Artifact(
        f"{prefix.replace('/', '-')}-{run.id}", "representations", metadata=about | {"split_hash": best.split_hash}
    )
    artifact.add_file(str(path))
    run.log_artifact(artifact, aliases=["best"])


def new_alert(previous: str, judgement: Judgement, *, step: int, stopped: bool, prefix: str) -> Alert | None:
    """Return the alert for a new verdict that calls for action, or for the end of the training; else None.

    Args:
        previous: The verdict before, empty if there was none.
        judgement: The newest judgement.
        step: Optimizer step of the judgement.
        stopped: Whether the training is stopped on it.
        prefix: Prefix of the monitor's keys, with which the title starts.
    """
    changed = judgement.verdict != previous and judgement.verdict not in QUIET
    if not changed and not stopped:
        return None
    title, text = f"{prefix}: {judgement.verdict}", f"Step {step}: {judgement.message}"
    if stopped:
        title = f"{prefix}: stopping, {judgement.verdict}"
        text += f" Stopping: {judgement.reason or 'another run is clearly ahead'}."
    level = "INFO" if judgement.verdict in GOOD | QUIET else "WARN"
    return Alert(title[:TITLE], text, level)


def send(run: Any, alert: Alert) -> None:
    """Send an alert; a run that is offline keeps it for later."""
    run.alert(alert.title, alert.text, level=alert.level, wait_duration=1)  # W&B replaces 0 by its default, a minute


def wandb_mode() -> str | None:
    """Return the `mode` for W&B: "offline" if no API key is configured, else None, which leaves it to W&B.

    A key counts as configured by ``WANDB_API_KEY``, ``WANDB_IDENTITY_TOKEN_FILE`` or a netrc entry for the host of
    ``WANDB_BASE_URL``. If ``WANDB_MODE`` is set, W&B reads it. Pass the result as ``WandbLogger(mode=wandb_mode())``;
    the logger's ``offline=True`` would set ``WANDB_MODE`` for the whole process.
    """
    if os.environ.get("WANDB_MODE") or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return None
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    netrc_file = os.environ.get("NETRC")
    files = [Path(netrc_file)] if netrc_file else [Path.home() / ".netrc", Path.home() / "_netrc"]
    configured = any(_has_entry(file.expanduser(), host) for file in files)
    return None if configured else "offline"


def sync_hint(loggers: Iterable[Any]) -> str | None:
    """Return how to upload the run of an offline W&B logger, in a sentence; None without such a logger."""
    for logger in loggers:
        if is_wandb(logger):
            settings = getattr(logger.experiment, "settings", None)
            if settings is not None and settings.mode in ("offline", "dryrun"):
                return f"W&B is offline; upload this run with `wandb sync {format_path(Path(settings.sync_dir))}`."
    return None


def within(seconds: float, action: Callable[[], Any]) -> None:
    """Call a function that may hang, with a timeout.

    Raises:
        TimeoutError: If it takes longer. Its daemon thread keeps running until the process ends.
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


def _has_entry(file: Path, host: str) -> bool:
    """Return whether a netrc file has an entry for a host; an unreadable file has none."""
    try:
        return host in netrc.netrc(file).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def leaderboard(table: Any, *, group: str, project: str | None, folder: Path, entity: str | None) -> None:
    """Write a sweep's leaderboard to a separate run; see :func:`lis_lightning.tracking.loggers.log_leaderboard`."""
    import wandb

    mode: Any = wandb_mode()
    online = mode is None and os.environ.get("WANDB_MODE", "online") == "online"
    number = hashlib.sha256(f"{group}/leaderboard".encode()).hexdigest()[:12]
    run = wandb.init(
        project=project, entity=entity, group=group, job_type="leaderboard", name=f"{group} leaderboard", id=number,
        dir=folder, mode=mode, resume="allow" if online else None, reinit="create_new",
    )  # fmt: skip
    run.log({"lis/leaderboard": tables.leaderboard_table(table)})
    run.finish()
