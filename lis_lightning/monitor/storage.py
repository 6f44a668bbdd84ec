"""Snapshots on disk: one safetensors file per step, with the representations and the data to score them again.

A file holds the tensor ``embeddings`` [num_items, dim], the item ids of its rows, and in its metadata a manifest: step,
split hash, AIS, model class and package versions. It is written under a temporary name, flushed to disk and renamed, so
that a kill at any time leaves either the whole file or none.

``split.score(load_embeddings(path, split))`` scores a snapshot again. A float32 file gives the recorded numbers to the
bit, with the options of the monitor. Half precision rounds each coordinate by a relative error of at most 2^-11
(float16) or 2^-8 (bfloat16); over ten random representations with an AIS of 0.034, AIS changed by at most 0.00001 and
0.00007.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError, RecordError, SnapshotError
from lis_lightning.results.record import versions
from lis_lightning.results.snapshot import Snapshot

FORMAT = "1"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_NAME = re.compile(r"step-(\d+)\.safetensors")
_DRAFT = ".draft"


@dataclass(frozen=True)
class Retention:
    """Which snapshots stay on disk.

    Args:
        keep: ``"best"``, ``"last-3"`` (any number) or ``"all"``.
        dtype: ``"float16"``, ``"bfloat16"`` or ``"float32"``.

    Raises:
        ConfigError: If one of them is something else.

    Example:
        >>> Retention("last-3").dtype
        'float32'
    """

    keep: str
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.keep not in {"best", "all"} and not re.fullmatch(r"last-[1-9]\d*", self.keep):
            raise ConfigError(f"Expected `save` to be None, 'best', 'last-<number>' or 'all', got {self.keep!r}.")
        if self.dtype not in DTYPES:
            raise ConfigError(f"Expected `save_dtype` to be one of {list(DTYPES)}, got {self.dtype!r}.")

    def wanted(self, results: Iterable[Snapshot], best: int | None) -> set[int]:
        """Return the steps to keep.

        Args:
            results: The results so far, by step.
            best: Step of the best of them, None if there is none.
        """
        steps = [result.step for result in results]
        if self.keep == "best":
            return set() if best is None else {best}
        return set(steps if self.keep == "all" else steps[-int(self.keep.removeprefix("last-")) :])


class Store:
    """The folder of a run's snapshots.

    Args:
        folder: The folder; made when the first snapshot is written.
        retention: What stays in it.
    """

    def __init__(self, folder: Path, retention: Retention) -> None:
        self.folder = folder
        self.retention = retention

    @property
    def steps(self) -> list[int]:
        """Steps of the snapshots on disk, ascending."""
        names = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*.safetensors"))
        return sorted(int(name[1]) for name in names if name)

    def path(self, step: int) -> Path:
        """Return the file of a step, which need not exist."""
        return self.folder / f"step-{step:08d}.safetensors"

    def write(self, embeddings: Tensor, split: PreferenceSplit, result: Snapshot, about: Mapping[str, Any]) -> None:
        """Write a snapshot.

        Args:
            embeddings: [num_items, dim], rows as ``split.item_ids``.
            split: The split they were scored on.
            result: Their score, with its step.
            about: Further plain values for the manifest.

        Raises:
            OSError: If the file cannot be written; no partial file is left.
            ConfigError: If the precision cannot hold the representations.
        """
        manifest = {
            "format": FORMAT,
            "step": result.step,
            "split_hash": split.hash,
            "ais": result.ais,
            "ais_low": result.ais_low,
            "ais_high": result.ais_high,
            "dtype": self.retention.dtype,
            **about,
            "versions": versions(),
        }
        ids = np.frombuffer(json.dumps(split.item_ids.tolist()).encode(), dtype=np.uint8)
        stored = embeddings.detach().to("cpu", DTYPES[self.retention.dtype]).contiguous()
        if not stored.isfinite().all():
            raise ConfigError(
                f"{self.retention.dtype} cannot hold representations as large as {embeddings.abs().max():.3g}; set "
                "`save_dtype` to 'bfloat16' or 'float32'."
            )
        tensors = {"embeddings": stored, "item_ids": torch.from_numpy(ids.copy())}
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{uuid.uuid4().hex}{_DRAFT}"
        try:
            try:
                save_file(tensors, draft, metadata={"manifest": json.dumps(manifest, default=str)})
            except SafetensorError as error:  # raised by safetensors when the disk is full
                raise OSError(f"{self.path(result.step)} cannot be written: {error}") from error
            _flush(draft)
            draft.replace(self.path(result.step))
            _flush(self.folder)
        finally:
            draft.unlink(missing_ok=True)

    def prune(self, results: Iterable[Snapshot], best: int | None, also: Collection[int] = ()) -> None:
        """Delete snapshots that the retention does not keep, and files that a kill left half-written.

        Args:
            results: The results of the run so far, by step. Snapshots of other steps belong to abandoned weights.
            best: Step of the best one.
            also: More steps to keep: those kept when the last checkpoint was saved, from which a killed run resumes.
        """
        results = list(results)
        wanted = self.retention.wanted(results, best) | ({result.step for result in results} & set(also))
        for step in set(self.steps) - wanted:
            self.path(step).unlink(missing_ok=True)
        for draft in self.folder.glob(f"*{_DRAFT}"):
            draft.unlink(missing_ok=True)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Return the manifest of a snapshot file without reading its tensors.

    Args:
        path: File that a monitor with `save` has written.

    Returns:
        Step, split hash, AIS and its interval, precision, model class, run id and package versions.

    Raises:
        RecordError: If the file is missing or is not a snapshot.

    Example:
        >>> import json, tempfile
        >>> manifest = {"format": FORMAT, "step": 200}
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     save_file({"embeddings": torch.eye(2)}, file.name, metadata={"manifest": json.dumps(manifest)})
        ...     read_manifest(file.name)["step"]
        200
    """
    return _read(Path(path), tensors=False)[0]


def load_embeddings(path: str | Path, split: PreferenceSplit) -> Tensor:
    """Return the representations in a snapshot file, aligned with a split, for :meth:`PreferenceSplit.score`.

    The split can be any whose items the snapshot contains.

    Args:
        path: File that a monitor with `save` has written.
        split: The split to score on.

    Returns:
        float32 [num_items, dim], rows as ``split.item_ids``.

    Raises:
        RecordError: If the file is missing or is not a snapshot.
        SnapshotError: If it lacks items of the split; the message has their number and the first five.

    Example:
        >>> import polars, tempfile
        >>> from lis_lightning.results.snapshot import Snapshot
        >>> log = polars.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                         "timestamp": range(40), "label": [0, 1, 1, 0, 1] * 8})
        >>> split = PreferenceSplit.from_log(log)
        >>> result = Snapshot(ais=0.0, ais_low=0.0, ais_high=0.0, ais_geometry=0.0, auc_base=0.5, auc=0.5, step=200)
        >>> with tempfile.TemporaryDirectory() as folder:  # a monitor with `save` writes such files
        ...     store = Store(Path(folder), Retention("all"))
        ...     store.write(torch.eye(4), split, result, about={})
        ...     load_embeddings(store.path(200), split).shape
        torch.Size([4, 4])
    """
    manifest, ids, embeddings = _read(Path(path))
    rows = {item: row for row, item in enumerate(ids)}
    wanted = split.item_ids.tolist()
    missing = [item for item in wanted if item not in rows]
    if missing:
        raise SnapshotError(
            f"{path} lacks {len(missing)} of the {len(wanted)} items of split {split.hash!r}, first {missing[:5]}: it "
            f"was taken for split {manifest['split_hash']!r} with {len(ids)} items, first {ids[:5]}. Score it on that "
            "split, or encode the items of this one."
        )
    return embeddings.float()[torch.tensor([rows[item] for item in wanted])]


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, Any], list[Any], Tensor]:
    """Return manifest, ids and representations."""
    try:
        with safe_open(path, framework="pt") as file:
            manifest = json.loads((file.metadata() or {}).get("manifest", "null"))
            if not manifest or manifest.get("format") != FORMAT:
                raise RecordError(f"{path} is not a snapshot of this version of lis-lightning: it has no manifest.")
            if not tensors:
                return manifest, [], torch.empty(0)
            ids: NDArray[np.uint8] = file.get_tensor("item_ids").numpy()
            return manifest, json.loads(ids.tobytes()), file.get_tensor("embeddings")
    except (OSError, SafetensorError) as error:
        raise RecordError(f"The snapshot {path} cannot be read: {error}.") from error


def _flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
