"""What only a W&B run has: its own x-axis, config, summaries, panels, alerts and artifacts.

Imported always, W&B itself only where a W&B logger is met. Each `run` here is what ``WandbLogger.experiment`` returns.
"""

from __future__ import annotations

import hashlib
import netrc
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pytorch_lightning.utilities import rank_zero_warn

from lis_lightning.errors import LisWarning
from lis_lightning.results.snapshot import Snapshot
from lis_lightning.results.stopping import Judgement
from lis_lightning.tracking import wandb_tables as tables

STEP = "trainer/global_step"  # Lightning's own x-axis in W&B
QUIET = frozenset({"", "warming-up", "improving"})  # verdicts that ask for nothing
GOOD = frozenset({"plateau", "at-ceiling", "ceiling-not-binding"})  # ends of a run that went well
TITLE = 63  # characters that W&B takes


@dataclass(frozen=True)
class Alert:
    """A message to whoever has subscribed to alerts of the project.

    Attributes:
        title: Up to TITLE characters.
        text: What to do, in a sentence.
        level: ``"INFO"`` or ``"WARN"``.
    """

    title: str
    text: str
    level: str


def is_wandb(logger: Any) -> bool:
    """Whether a logger is a WandbLogger, of pytorch_lightning or lightning.pytorch; asked without importing either."""
    return any(cls.__name__ == "WandbLogger" for cls in type(logger).__mro__)


def begin(run: Any, config: Mapping[str, Any], prefix: str) -> None:
    """Set the x-axis of our curves, and put the split into the run's config; keys of others stay as they are."""
    # A glob may set the x-axis only: a summary kind in it would be applied to tables too, and corrupt them.
    run.define_metric("lis/*", step_metric=STEP)
    run.config.update({prefix: dict(config)}, allow_val_change=True)
    if find_spec("plotly") is None:
        rank_zero_warn(
            f"W&B gets no panel `{prefix}/curve`, which needs plotly: pip install 'lis-lightning[report]'.",
            category=LisWarning,
        )


def summaries(last: Snapshot, best: Snapshot, prefix: str) -> dict[str, Any]:
    """Return what the runs table shows of a run.

    Args:
        last: The newest snapshot.
        best: The best one.
        prefix: What the keys start with.
    """
    values: dict[str, Any] = {
        "verdict": last.verdict,
        "message": last.message,
        "best_step": best.step,
        "best_ais": best.ais,
        "best_realised": best.realised,
        "final_realised": last.realised,
    }
    for name, ceiling in last.ceilings.items():
        key = f"ceiling_{name}"
        values |= {key: ceiling.value, f"{key}_low": ceiling.low, f"{key}_high": ceiling.high}
    return {f"{prefix}/{name}": value for name, value in values.items()}


def snapshot(run: Any, results: Sequence[Snapshot], best: Snapshot, prefix: str) -> None:
    """Bring summaries and the panel with the curve up to date; neither asks the server."""
    run.summary.update(summaries(results[-1], best, prefix))
    if tables.redrawn(len(results)):
        draw(run, results, prefix)


def draw(run: Any, results: Sequence[Snapshot], prefix: str) -> None:
    """Log the curve so far as ``curve``, where plotly is installed."""
    if find_spec("plotly") is not None:
        run.log({f"{prefix}/curve": tables.curve_panel(results), STEP: results[-1].step})


def end(run: Any, results: Sequence[Snapshot], best: Snapshot, artifact: Path | None, prefix: str) -> None:
    """Log what is shown once: the last curve, the tables, and the best snapshot's file if there is one to log."""
    if not tables.redrawn(len(results)):
        draw(run, results, prefix)
    shown = {"snapshots": tables.snapshots_table(results)}
    if best.slices or results[-1].slices:
        shown["slices"] = tables.slices_table(best, results[-1])
    run.log({f"{prefix}/{name}": table for name, table in shown.items()})  # at whatever step the training has come to
    if artifact is not None:
        log_artifact(run, artifact, best, prefix)


def log_artifact(run: Any, path: Path, best: Snapshot, prefix: str) -> None:
    """Log representations as an artifact of type "representations", one of each monitor and run."""
    import wandb

    about = {"step": best.step, "ais": best.ais, "ais_low": best.ais_low, "ais_high": best.ais_high}
    artifact = wandb.Artifact(
        f"{prefix.replace('/', '-')}-{run.id}", "representations", metadata=about | {"split_hash": best.split_hash}
    )
    artifact.add_file(str(path))
    run.log_artifact(artifact, aliases=["best"])


def news(before: str, judgement: Judgement, *, step: int, stopped: bool, prefix: str) -> Alert | None:
    """Return what to tell people at once: a verdict that is new and asks for something, or the end of the training.

    Args:
        before: The verdict before, empty if there was none.
        judgement: What is said now.
        step: Optimizer step of it.
        stopped: Whether the training was told to stop.
        prefix: Of the monitor's keys, which the title starts with.
    """
    changed = judgement.verdict != before and judgement.verdict not in QUIET
    if not changed and not stopped:
        return None
    title = f"{prefix}: {'stopping, ' if stopped else ''}{judgement.verdict}"
    why = f" Stopping: {judgement.reason or 'another run is clearly ahead'}." if stopped else ""
    level = "INFO" if judgement.verdict in GOOD | QUIET else "WARN"
    return Alert(title[:TITLE], f"Step {step}: {judgement.message}{why}", level)


def send(run: Any, alert: Alert) -> None:
    """Send an alert; a run that is offline keeps it for later."""
    run.alert(alert.title, alert.text, level=alert.level, wait_duration=1)  # 0 would be taken as W&B's own minute


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


def sync_hint(loggers: Iterable[Any]) -> str | None:
    """Return the sentence that says how to upload what W&B loggers kept offline; None where nothing was."""
    for logger in loggers:
        if is_wandb(logger):
            settings = getattr(logger.experiment, "settings", None)
            if settings is not None and settings.mode in ("offline", "dryrun"):
                return f"W&B is offline; upload this run with `wandb sync {settings.sync_dir}`."
    return None


def within(seconds: float, action: Callable[[], Any]) -> None:
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


def _has_entry(file: Path, host: str) -> bool:
    """Whether a netrc file names a host; an unreadable file names none."""
    try:
        return host in netrc.netrc(file).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def leaderboard(table: Any, *, group: str, project: str | None, folder: Path, entity: str | None) -> None:
    """Write a sweep's leaderboard into a run of its own; see :func:`lis_lightning.tracking.loggers.log_leaderboard`."""
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
