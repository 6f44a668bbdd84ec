"""The command ``lis-audit``: score preference data and files of item vectors before any training.

Modules that load torch are imported inside the functions that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lis_lightning.cli.config_check import check_config
from lis_lightning.cli.config_values import drop_null, lists_as_tuples
from lis_lightning.cli.hydra_command import run_hydra_command
from lis_lightning.cli.resources import resource_dir
from lis_lightning.errors import ConfigError, ItemError, LisError, LisWarning
from lis_lightning.results.format import format_path

if TYPE_CHECKING:
    from rich.status import Status

    from lis_lightning.align.data.alignment_data import AlignmentData
    from lis_lightning.data.split import PreferenceSplit
    from lis_lightning.results.audit import Audit

OTHER_ORDER_Z = 4.0  # a gain of the rows in another order that is this many standard errors above 0 is no chance
INTERVAL_WIDTH_Z = 3.92  # width of a 95 % interval in standard errors


def main() -> None:
    """Run ``lis-audit``."""
    run_hydra_command("lis-audit", _audit)


@hydra.main(version_base="1.3", config_path=str(resource_dir("conf")), config_name="audit")
def _audit(config: DictConfig) -> None:
    """Run one audit."""
    audit_config(config, Path(HydraConfig.get().runtime.output_dir))


def audit_config(config: DictConfig, folder: Path) -> Audit:
    """Audit what a configuration names.

    Args:
        config: As composed from ``conf/audit.yaml``.
        folder: Where the files go.
    """
    check_config(config, "audit")
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return audit_data(
        instantiate(config.data),
        split_options=lists_as_tuples(plain["lis"]["split"]),
        preferences=instantiate(config.preferences, _convert_="all"),
        embeddings=plain["embeddings"],
        codes=plain["codes"],
        reads=instantiate(config.lis.reads, _convert_="all"),
        row_ids=config.row_ids,
        id_column=config.id_column,
        aligned_to=config.aligned_to,
        missing=config.missing,
        folder=folder,
    )


def audit_data(
    data: AlignmentData,
    *,
    split_options: Mapping[str, Any],
    folder: Path,
    preferences: Sequence[str] | Mapping[str, Any] | None = None,
    embeddings: Mapping[str, str | Path] | None = None,
    codes: Mapping[str, str | Path] | None = None,
    reads: Any = None,
    row_ids: str | Path | None = None,
    id_column: str = "item_id",
    aligned_to: str | None = None,
    missing: str = "raise",
) -> Audit:
    """Audit a log, print the result, and write it to files.

    Args:
        data: The log; of the items, only the ids are needed.
        split_options: Further arguments of the split.
        folder: Where ``audit.csv``, ``audit.json`` and ``audit.html`` go.
        preferences: Preference data, as :func:`lis_lightning.scoring.audit` takes them; None for pairs and ids.
        embeddings: Files of item vectors by name, as :func:`~lis_lightning.align.data.read_vectors` reads them.
        codes: Tables of semantic IDs by name, with a column of item ids and columns of codes, each scored as a
            representation is.
        reads: What else to score of each representation, as :func:`lis_lightning.scoring.audit` takes it.
        row_ids: Item ids for files without ids; None for those of the item table, in its order.
        id_column: Name of the id column in tables.
        aligned_to: The preference data that `realised` refers to; None for the first.
        missing: What to do about items without a vector in a file: ``"raise"``; ``"mean"`` to give them the mean of
            the others; or ``"drop"`` to leave out all events of items that a file lacks.

    Returns:
        The audit.

    Warns:
        LisWarning: The coverage where items are missing; and if rows of a file without ids seem to be in another order.

    Raises:
        LisError: If a file cannot be read or its content cannot be scored.
    """
    from rich.console import Console

    from lis_lightning.align.training.console import rank_zero_print
    from lis_lightning.align.training.run import prepare_split
    from lis_lightning.report.audit_report import render
    from lis_lightning.scoring.auditing import audit
    from lis_lightning.scoring.reads.code_table import CodeTable
    from lis_lightning.scoring.reads.naming import reads_by_name

    began = time.perf_counter()
    files, tables = _files(embeddings, "embeddings"), _files(codes, "codes")
    if both := sorted(files.keys() & tables.keys()):
        raise ConfigError(f"embeddings and codes are both named {both[0]!r}; give one of them another name.")
    readers = reads_by_name(reads or ())
    code_tables = {name: CodeTable(path, item=id_column) for name, path in tables.items()}
    if missing not in {"raise", "mean", "drop"}:
        raise ConfigError(f"Expected `missing` to be raise, mean or drop, got {missing!r}.")
    ids = row_ids if row_ids is not None or data.items is None else data.items.ids
    if missing == "drop":
        data = _with_vectors(data, files, ids, id_column)
    if not sys.stderr.isatty():
        _print_progress("lis-audit: cutting the log")
    split = prepare_split(data, split_options).split
    file_vectors = _vectors_of_files(files, split, ids, id_column, "mean" if missing == "mean" else "raise")
    vectors = _true_vectors(data, split) | file_vectors | code_tables
    chosen = ("pairs", "ids") if preferences is None else preferences
    if isinstance(chosen, Mapping):
        chosen = drop_null(chosen)
    # Progress goes to standard error, so that standard output holds the result alone.
    with Console(stderr=True).status("reading") as status:
        result = audit(split, chosen, vectors, aligned_to=aligned_to, reads=readers, progress=_progress(status))
    _warn_of_other_orders(result, files, split, ids, id_column)
    rank_zero_print(render(result))
    written = _write(result, folder, f"Audit of {data.name}")
    rank_zero_print(f"\ntook {time.perf_counter() - began:.0f} s\n{written}")
    return result


def _files(given: Any, option: str) -> dict[str, str | Path]:
    """Return the file of each name that an option gives."""
    files = {} if given is None else given
    if not isinstance(files, Mapping) or not all(isinstance(path, str | Path) for path in files.values()):
        raise ConfigError(f"Expected {option}={{name: file}}, as in {option}={{text: text.parquet}}, got {given!r}.")
    return {str(name): path for name, path in files.items()}


def _true_vectors(data: AlignmentData, split: PreferenceSplit) -> dict[str, Any]:
    """Return the known item latents of a generated world: the part that content reveals, and the whole."""
    if data.truth is None or data.items is None:
        return {}
    rows = data.items.rows(split.item_ids)
    return {"content (truth)": data.truth.content_latents[rows], "items (truth)": data.truth.item_latents[rows]}


def _with_vectors(data: AlignmentData, files: Mapping[str, str | Path], ids: Any, id_column: str) -> AlignmentData:
    """Return the data without the events of items that have no vector in one of the files."""
    from lis_lightning.align.data.vector_files import are_among, ids_with_vectors
    from lis_lightning.data.split_folder import is_saved_split
    from lis_lightning.data.tables import InputTable, id_codes

    if is_saved_split(data.log):
        raise ConfigError("missing=drop needs the whole log, and data.log is a saved split; use missing=mean.")
    columns = dict(data.columns)
    log = InputTable(data.log, names=columns.pop("columns", None)).read(ids=[columns["user"], columns["item"]])
    item_ids, item = id_codes(log, columns["item"])
    has_vector = np.ones(item_ids.size, bool)
    for name, path in files.items():
        row_ids = ids_with_vectors(path, ids=ids, id_column=id_column)
        in_file = are_among(item_ids, row_ids)
        if not in_file.any():
            raise ItemError(
                f"embeddings {name!r}: no item of the log has a vector: its ids are such as {row_ids.tolist()[0]!r}, "
                f"those of the log such as {item_ids.tolist()[0]!r}. Write both with one type."
            )
        has_vector &= in_file
    keep = has_vector[item]
    if keep.all():
        return data
    warnings.warn(
        f"{int(has_vector.sum())} of {has_vector.size} items ({has_vector.mean():.1%}) have a vector in every file; "
        f"the events of the others are left out, {keep.mean():.1%} of the events remain.",
        LisWarning,
        stacklevel=3,
    )
    return replace(data, log=log.filter(keep), columns=columns)


def _vectors_of_files(
    files: Mapping[str, str | Path],
    split: PreferenceSplit,
    ids: Any,
    id_column: str,
    missing: Literal["raise", "mean"],
) -> dict[str, Any]:
    from lis_lightning.align.data.vector_files import read_vectors

    vectors = {}
    for name, path in files.items():
        try:
            vectors[name] = read_vectors(path, split.item_ids, ids=ids, id_column=id_column, missing=missing)
        except LisError as error:
            raise type(error)(f"embeddings {name!r}: {error}") from error
    return vectors


def _warn_of_other_orders(
    result: Audit, files: Mapping[str, str | Path], split: PreferenceSplit, ids: Any, id_column: str
) -> None:
    """Warn of files without ids whose vectors gain nothing as they are, but do if their rows are in another order."""
    from lis_lightning.align.data.vector_files import other_orders, read_vectors

    for name, path in files.items():
        assumed = result.parts[0].results[name]
        if assumed.ais_low > 0:
            continue
        for order, row_ids in other_orders(path, ids, id_column=id_column).items():
            vectors = read_vectors(path, split.item_ids, ids=row_ids, missing="mean")
            score = split.score(vectors, ceilings=(), placebo=False)
            if score.ais > OTHER_ORDER_Z * (score.ais_high - score.ais_low) / INTERVAL_WIDTH_Z:
                warnings.warn(
                    f"embeddings {name!r}: AIS is {assumed.ais:+.4f} as the rows are taken, and {score.ais:+.4f} if "
                    f"they are in the order of the {order}. Check the order, and give the ids with row_ids=FILE.",
                    LisWarning,
                    stacklevel=3,
                )
                break


def _progress(status: Status) -> Any:
    """Return what shows the progress: the line of the terminal or, where there is none, lines with an estimate."""
    if not status.console.is_terminal:
        from lis_lightning.monitor.step_progress import StepProgress

        return StepProgress("lis-audit", _print_progress, patience=0.0, interval=2.0)

    def show(step: str, number: int, total: int) -> None:
        status.update(f"{step} ({number + 1} of {total})")

    return show


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _write(result: Audit, folder: Path, title: str) -> str:
    """Write the files; return where they are."""
    from lis_lightning.report.audit_page import write_audit
    from lis_lightning.report.audit_report import write_numbers

    numbers = ", ".join(map(format_path, write_numbers(result, folder)))
    page = write_audit(result, folder / "audit.html", title=title)
    return f"numbers: {numbers}\nreport: {format_path(page)}"
