"""One audit from its parts: data, preference data, files of item vectors; tables, files and a picture."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from lis_lightning.align.data.sources import AlignmentData
from lis_lightning.align.data.vectors import read_vectors
from lis_lightning.align.training.messages import say
from lis_lightning.align.training.run import prepare_split
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, LisError
from lis_lightning.report.audit_page import write_audit
from lis_lightning.report.audit_report import render, write_numbers
from lis_lightning.scoring.audit import Audit, audit
from lis_lightning.scoring.preference import BUILT_IN


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
    """Audit a log, say what was found, and write it.

    Args:
        data: The log; of the items no more than their ids.
        split_options: Further arguments of the split.
        folder: Where ``audit.csv``, ``audit.json`` and ``audit.html`` go.
        preferences: Preference data, as :func:`lis_lightning.scoring.audit.audit` takes them; None for pairs and ids.
        embeddings: Files of item vectors by name, as :func:`lis_lightning.align.data.vectors.read_vectors` reads them.
        row_ids: The ids of rows that have none; None for those of the item table, in its order.
        id_column: Name of the column of ids in tables.
        aligned_to: The preference data that `realised` refers to; None for the first.

    Returns:
        The audit.

    Raises:
        LisError: If anything cannot be read or scored.
    """
    began = time.perf_counter()
    files = _files(embeddings)
    split = prepare_split(data, split_options)
    vectors = _known_vectors(data, split)
    ids = row_ids if row_ids is not None or data.items is None else data.items.ids
    for name, path in files.items():
        try:
            vectors[name] = read_vectors(path, split.item_ids, ids=ids, id_column=id_column)
        except LisError as error:
            raise type(error)(f"embeddings {name!r}: {error}") from error
    chosen = BUILT_IN if preferences is None else preferences
    with Console(stderr=True).status("reading") as status:
        found = audit(split, _without_none(chosen), vectors, aligned_to=aligned_to, progress=_teller(status))
    say(render(found))
    say(f"\n{_write(found, folder, f'Audit of {data.name}')}\ntook {time.perf_counter() - began:.0f} s")
    return found


def _files(embeddings: Any) -> dict[str, str | Path]:
    """Return the file of each representation, or say how to name them."""
    given = {} if embeddings is None else embeddings
    if not isinstance(given, Mapping) or not all(isinstance(path, str | Path) for path in given.values()):
        raise ConfigError(
            f"Expected embeddings={{name: file}}, as in embeddings={{text: text.parquet}}, got {embeddings!r}."
        )
    return {str(name): path for name, path in given.items()}


def _known_vectors(data: AlignmentData, split: PreferenceSplit) -> dict[str, Any]:
    """Return what is true of the items of a generated world: what content reveals, and all that users respond to."""
    if data.truth is None or data.items is None:
        return {}
    rows = data.items.rows(split.item_ids)
    return {"content (truth)": data.truth.content_latents[rows], "items (truth)": data.truth.item_latents[rows]}


def _without_none(preferences: Sequence[str] | Mapping[str, Any]) -> Sequence[str] | Mapping[str, Any]:
    if not isinstance(preferences, Mapping):
        return preferences
    return {name: preference for name, preference in preferences.items() if preference is not None}


def _teller(status: Status) -> Any:
    def tell(step: str, number: int, total: int) -> None:
        status.update(f"{step} ({number + 1} of {total})")

    return tell


def _write(found: Audit, folder: Path, title: str) -> str:
    """Write the files; return where they are."""
    numbers = ", ".join(str(path) for path in write_numbers(found, folder))
    try:
        return f"numbers: {numbers}\npicture: {write_audit(found, folder / 'audit.html', title=title)}"
    except ConfigError as error:
        return f"numbers: {numbers}\nno picture: {error}"
