"""The command ``lis-audit``: score preference data and files of item vectors before any training.

Modules that load torch are imported inside the functions that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lis_lightning.cli.config_check import check_config
from lis_lightning.cli.config_values import drop_null, lists_as_tuples
from lis_lightning.cli.hydra_command import run_hydra_command
from lis_lightning.cli.resources import resource_dir
from lis_lightning.errors import ConfigError, LisError

if TYPE_CHECKING:
    from rich.status import Status

    from lis_lightning.align.data.alignment_data import AlignmentData
    from lis_lightning.data.split import PreferenceSplit
    from lis_lightning.results.audit import Audit


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
        row_ids=config.row_ids,
        id_column=config.id_column,
        aligned_to=config.aligned_to,
        folder=folder,
    )


def audit_data(
    data: AlignmentData,
    *,
    split_options: Mapping[str, Any],
    folder: Path,
    preferences: Sequence[str] | Mapping[str, Any] | None = None,
    embeddings: Mapping[str, str | Path] | None = None,
    row_ids: str | Path | None = None,
    id_column: str = "item_id",
    aligned_to: str | None = None,
) -> Audit:
    """Audit a log, print the result, and write it to files.

    Args:
        data: The log; of the items, only the ids are needed.
        split_options: Further arguments of the split.
        folder: Where ``audit.csv``, ``audit.json`` and ``audit.html`` go.
        preferences: Preference data, as :func:`lis_lightning.scoring.audit` takes them; None for pairs and ids.
        embeddings: Files of item vectors by name, as :func:`~lis_lightning.align.data.read_vectors` reads them.
        row_ids: Item ids for files without ids; None for those of the item table, in its order.
        id_column: Name of the id column in tables.
        aligned_to: The preference data that `realised` refers to; None for the first.

    Returns:
        The audit.

    Raises:
        LisError: If a file cannot be read or its content cannot be scored.
    """
    from rich.console import Console

    from lis_lightning.align.training.console import rank_zero_print
    from lis_lightning.align.training.run import prepare_split
    from lis_lightning.report.audit_report import render
    from lis_lightning.scoring.auditing import audit

    began = time.perf_counter()
    files = _files(embeddings)
    split = prepare_split(data, split_options).split
    vectors = _true_vectors(data, split) | _vectors_of_files(files, data, split, row_ids, id_column)
    chosen = ("pairs", "ids") if preferences is None else preferences
    if isinstance(chosen, Mapping):
        chosen = drop_null(chosen)
    # Progress goes to standard error, so that standard output holds the result alone.
    with Console(stderr=True).status("reading") as status:
        result = audit(split, chosen, vectors, aligned_to=aligned_to, progress=_progress(status))
    rank_zero_print(render(result))
    written = _write(result, folder, f"Audit of {data.name}")
    rank_zero_print(f"\n{written}\ntook {time.perf_counter() - began:.0f} s")
    return result


def _files(embeddings: Any) -> dict[str, str | Path]:
    """Return the file of each representation."""
    files = {} if embeddings is None else embeddings
    if not isinstance(files, Mapping) or not all(isinstance(path, str | Path) for path in files.values()):
        raise ConfigError(
            f"Expected embeddings={{name: file}}, as in embeddings={{text: text.parquet}}, got {embeddings!r}."
        )
    return {str(name): path for name, path in files.items()}


def _true_vectors(data: AlignmentData, split: PreferenceSplit) -> dict[str, Any]:
    """Return the known item latents of a generated world: the part that content reveals, and the whole."""
    if data.truth is None or data.items is None:
        return {}
    rows = data.items.rows(split.item_ids)
    return {"content (truth)": data.truth.content_latents[rows], "items (truth)": data.truth.item_latents[rows]}


def _vectors_of_files(
    files: Mapping[str, str | Path],
    data: AlignmentData,
    split: PreferenceSplit,
    row_ids: str | Path | None,
    id_column: str,
) -> dict[str, Any]:
    from lis_lightning.align.data.vector_files import read_vectors

    ids = row_ids if row_ids is not None or data.items is None else data.items.ids
    vectors = {}
    for name, path in files.items():
        try:
            vectors[name] = read_vectors(path, split.item_ids, ids=ids, id_column=id_column)
        except LisError as error:
            raise type(error)(f"embeddings {name!r}: {error}") from error
    return vectors


def _progress(status: Status) -> Any:
    def show(step: str, number: int, total: int) -> None:
        status.update(f"{step} ({number + 1} of {total})")

    return show


def _write(result: Audit, folder: Path, title: str) -> str:
    """Write the files; return where they are."""
    from lis_lightning.report.audit_page import write_audit
    from lis_lightning.report.audit_report import write_numbers

    numbers = ", ".join(str(path) for path in write_numbers(result, folder))
    try:
        return f"numbers: {numbers}\npicture: {write_audit(result, folder / 'audit.html', title=title)}"
    except ConfigError as error:
        return f"numbers: {numbers}\nno picture: {error}"
