"""W&B workspace (dashboard) with panels for the keys that a monitor logs.

Build it with :func:`build_workspace`, then upload it with :func:`save_workspace` or write it as JSON. It needs
wandb-workspaces: ``pip install 'lis-lightning[dashboard]'``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lis_lightning.errors import ConfigError
from lis_lightning.results.keys import name_parts
from lis_lightning.tracking.wandb_run import STEP, wandb_mode

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

SLICES = ("seen items", "unseen items", "head items", "tail items", "new items", "known users", "new users")
COMPANIONS = {"pair_auc": "pair AUC", "cka": "CKA with the preference data", "rankme": "effective rank"}
COST = {"encode_seconds": "seconds to encode", "score_seconds": "seconds to score"}
INPUTS = ("seed", "training.learning_rate")  # parameters of lis-align that sweeps vary most often
_INSTALL = "pip install 'lis-lightning[dashboard]'"


def build_workspace(
    entity: str,
    project: str,
    *,
    prefix: str = "lis",
    name: str = "LIS",
    num_runs: int = 20,
    slices: Sequence[str] = SLICES,
    inputs: Sequence[str] = INPUTS,
    watch: Sequence[str] = (),
) -> Workspace:
    """Return the dashboard of a project: curve, verdict, slices, sweep, and what ``log_more=True`` logs.

    Nothing is uploaded, and no key is needed.

    Args:
        entity: User or team that owns the project.
        project: The project.
        prefix: Prefix of the keys: ``"lis"``, or ``"lis/<name>"`` for a monitor with a name.
        name: Name of the view.
        num_runs: Maximum number of runs in a panel.
        slices: Names of the slices to draw, as in ``result.slices``.
        inputs: Configuration keys to plot against the best AIS, with dots for nested keys.
        watch: Watched metrics of which to show what 1 % more was worth in AIS, beside companions and training loss.

    Raises:
        ConfigError: If `entity` or `project` is empty, `num_runs` is below 1, or wandb-workspaces is not installed.

    Example:
        >>> try:
        ...     build_workspace("me", project="")
        ... except ConfigError as error:
        ...     print(str(error).partition(": ")[2])
        expected `project` to be a name, got ''.
    """
    _check(entity, project, num_runs)
    ws, _ = _packages()
    sections = [
        _curve(prefix), _verdict(prefix), _slices(prefix), _sweep(prefix, inputs), _worth(prefix, watch),
        _more(prefix, slices),
    ]  # fmt: skip
    settings = ws.WorkspaceSettings(x_axis=STEP, max_runs=num_runs)
    return ws.Workspace(entity=entity, project=project, name=name, sections=sections, settings=settings)  # type: ignore[no-any-return]


def workspace_json(workspace: Workspace) -> str:
    """Return a workspace as indented JSON, in W&B's format; panel ids differ in each build."""
    spec = workspace._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    return json.dumps(json.loads(spec), indent=1)


def save_workspace(workspace: Workspace) -> str:
    """Upload a workspace as a new view of its project, and return its address.

    Raises:
        ConfigError: If no key is configured, W&B is offline, or the server refuses; the message has its answer.
    """
    if wandb_mode() == "offline" or os.environ.get("WANDB_MODE", "online") not in {"online", "shared"}:
        raise ConfigError(
            "A workspace is uploaded to W&B's server, which needs a key: run `wandb login` or set WANDB_API_KEY (and "
            f"WANDB_BASE_URL for your own server), got WANDB_MODE={os.environ.get('WANDB_MODE')!r}. Without a "
            "server, write it to a file."
        )
    try:
        return str(workspace.save_as_new_view().url)  # type: ignore[no-untyped-call]
    except Exception as error:
        project = f"{workspace.entity}/{workspace.project}"
        raise ConfigError(
            f"W&B refused the workspace of {project}: {type(error).__name__}: {error}. Check that the project exists "
            "and that your key can write to it."
        ) from error


def workspace_command(
    entity: str | None, project: str | None, json_path: str | Path | None = None, watch: Sequence[str] = ()
) -> str:
    """Build the dashboard and upload it, or write it to a file; return a message with its address.

    Args:
        entity: User or team.
        project: The project.
        json_path: File to write instead of uploading; its folder is created.
        watch: See :func:`build_workspace`.

    Raises:
        ConfigError: If `entity` or `project` is missing, wandb-workspaces is not installed, the upload fails, or the
            file cannot be written.
    """
    workspace = build_workspace(entity or "", project or "", watch=watch)
    if json_path is None:
        return f"Workspace: {save_workspace(workspace)}"
    file = Path(json_path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(workspace_json(workspace), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"The workspace cannot be written to {file}: {error}. Give a file in a folder that you can write to."
        ) from error
    return f"Workspace of {entity}/{project}: {file}"


def _check(entity: str, project: str, num_runs: int) -> None:
    for argument, value in (("entity", entity), ("project", project)):
        if not value.strip():
            raise ConfigError(
                f"A workspace belongs to an entity (user or team) and a project of W&B: expected `{argument}` to be a "
                f"name, got {value!r}."
            )
    if num_runs < 1:
        raise ConfigError(f"`num_runs` must be at least 1 run, got {num_runs}.")


def _packages() -> tuple[Any, Any]:
    """Return the modules for workspaces and for panels."""
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2
    except ImportError as error:
        raise ConfigError(f"The dashboard needs wandb-workspaces: {_INSTALL}.") from error
    return workspaces, v2


def _section(name: str, panels: Sequence[Any], *, columns: int = 3, is_open: bool = True) -> Section:
    ws, _ = _packages()
    layout, axis = ws.SectionLayoutSettings(columns=columns, rows=2), ws.SectionPanelSettings(x_axis=STEP)
    return ws.Section(  # type: ignore[no-any-return]
        name=name, panels=list(panels), is_open=is_open, layout_settings=layout, panel_settings=axis
    )


def _line(title: str, *keys: str) -> Any:
    """Return a line plot over the optimizer step of the snapshots."""
    return _packages()[1].LinePlot(title=title, x=STEP, y=list(keys))


def _band(title: str, key: str) -> Any:
    """Return a line plot of a value with the ends of its interval."""
    return _line(title, key, f"{key}_low", f"{key}_high")


def _number(title: str, key: str) -> Any:
    """Return a value of the summary as a number."""
    wr = _packages()[1]
    return wr.ScalarChart(title=title, metric=wr.SummaryMetric(key))


def _curve(prefix: str) -> Section:
    wr = _packages()[1]
    return _section(
        "Curve",
        [
            wr.MediaBrowser(title="AIS with its interval, against LIS", media_keys=[f"{prefix}/curve"], num_columns=1),
            _band("AIS with its interval", f"{prefix}/ais"),
            _line("headroom: what the data would still add", f"{prefix}/headroom"),
            _line("realised: AIS / LIS (LIS is an estimate)", f"{prefix}/realised"),
            _line("best AIS so far", f"{prefix}/best_ais"),
        ],
    )


def _verdict(prefix: str) -> Section:
    wr = _packages()[1]
    return _section(
        "Verdict",
        [
            _number("headroom at the best snapshot", f"{prefix}/best_headroom"),
            _number("best AIS", f"{prefix}/best_ais"),
            _number("best AIS, corrected for having been picked", f"{prefix}/best_ais_corrected"),
            _number("step of the best snapshot", f"{prefix}/best_step"),
            _number("best AIS / LIS (LIS is an estimate)", f"{prefix}/best_realised"),
            _number("LIS of pairs, an estimate", f"{prefix}/more/ceiling_pairs"),
            wr.WeavePanelSummaryTable(table_name=f"{prefix}/snapshots"),
        ],
    )


def _slices(prefix: str) -> Section:
    wr = _packages()[1]
    return _section(
        "Slices", [wr.WeavePanelSummaryTable(table_name=f"{prefix}/{name}") for name in ("slices", "movers")], columns=2
    )


def _more(prefix: str, names: Sequence[str]) -> Section:
    """Return the panels of the keys that are logged with ``log_more=True``."""
    prefix = f"{prefix}/more"
    panels = [
        _line("ends of the interval of headroom", f"{prefix}/headroom_low", f"{prefix}/headroom_high"),
        _line("ends of the interval of realised", f"{prefix}/realised_low", f"{prefix}/realised_high"),
        _line("AIS, geometry only", f"{prefix}/ais_geometry"),
        _line("AUC with the representation", f"{prefix}/auc"),
        _band("gain of the per-user AUC", f"{prefix}/gauc_gain"),
        _line("paired z against the best before", f"{prefix}/gain_z"),
        _line("AIS on seen and unseen items", f"{prefix}/ais_seen", f"{prefix}/ais_unseen"),
    ]
    parts = name_parts(names)
    panels += [_band(f"AIS, {name}", f"{prefix}/slice/{parts[name]}") for name in names]
    panels += [_line(title, f"{prefix}/companion/{key}") for key, title in COMPANIONS.items()]
    panels += [_line(title, f"{prefix}/{key}") for key, title in COST.items()]
    return _section("More, logged with log_more=True", panels, is_open=False)


def _worth(prefix: str, watch: Sequence[str]) -> Section:
    """Return the panel of what 1 % more of each watched metric was worth, which a run writes at its end."""
    wr = _packages()[1]
    worth = [wr.SummaryMetric(f"{prefix}/worth/{key}") for key in (*watch, *COMPANIONS, "train_loss")]
    return _section("Metrics", [wr.BarPlot(title="what 1 % more was worth in AIS", metrics=worth)])


def _sweep(prefix: str, inputs: Sequence[str]) -> Section:
    wr = _packages()[1]
    best = f"{prefix}/best_ais"
    column = wr.ParallelCoordinatesPlotColumn
    columns = [column(metric=wr.Config(key)) for key in inputs] + [column(metric=wr.SummaryMetric(best))]
    return _section(
        "Sweep",
        [
            wr.BarPlot(title="best AIS", metrics=[wr.SummaryMetric(best)]),
            wr.ParallelCoordinatesPlot(title="what led to the best AIS", columns=columns),
            wr.ParameterImportancePlot(with_respect_to=best),
        ],
    )
