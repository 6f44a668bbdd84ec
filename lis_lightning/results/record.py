"""The record of a run: an append-only file with one JSON line per snapshot, flushed to disk at every snapshot.

Loggers may lose their last rows when a job is killed; the record does not. Each line carries the CRC-32 of its payload
and is on disk before :meth:`Record.append` returns, so a kill loses at most the line being written. The kinds of lines
are::

    header    format, run, split, versions, configuration
    ceilings  the ceilings that later results refer to by id; they are the same at every snapshot
    result    one Snapshot; NaN is null, arrays are base64 of little-endian float32
    watched   values of watched metrics that were logged for the step of a snapshot after it was written
    failure   a failed snapshot, logger or write, with its step and error
    rewind    the run was resumed from a checkpoint at this step: results of later steps no longer count
    end       best step, its AIS corrected for having been picked, last verdict, and the simultaneous band of all steps

A run that was killed has no end line: :func:`lis_lightning.results.simultaneous_band` and
:func:`lis_lightning.results.corrected_best` compute both from its results.

Arrays are rounded to float32; all other numbers are restored exactly.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, Self

from lis_lightning.errors import RecordError
from lis_lightning.results.packing import dumps, pack_snapshot
from lis_lightning.results.record_contents import FORMAT, RecordContents, checked_line, payload_of, read_contents
from lis_lightning.results.snapshot import Snapshot

FILENAME = "record.jsonl"
_PACKAGES = ("lis-lightning", "torch", "pytorch-lightning", "lightning", "transformers", "numpy", "scipy")


class Record:
    """The record of a run on disk: :meth:`create` or :meth:`open` it for writing, :meth:`read` it for its results.

    Attributes:
        path: The file.
        header: Payload of its first line: ``format``, ``run_id``, ``split_hash``, ``split``, ``config``, ``versions``,
            ``time``.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lis_lightning.results.snapshot import Snapshot
        >>> result = Snapshot(
        ...     ais=0.003, ais_low=0.001, ais_high=0.005, ais_geometry=0.002, auc_base=0.7, auc=0.703, step=0
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record = Record.create(Path(folder) / "record.jsonl", run_id="a1", split_hash="c0ffee")
        ...     record.append(result)
        ...     header, results = Record.read(record.path)
        >>> header["run_id"], [(result.step, result.ais) for result in results]
        ('a1', [(0, 0.003)])
    """

    def __init__(self, path: Path, contents: RecordContents) -> None:
        self.path = path
        self.header = contents.header
        self._size = contents.size
        self._write_failed = False  # a failed write may have left part of a line in the file
        self._steps = {result.step for result in contents.results}
        self._ceilings = set(contents.ceilings)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        run_id: str,
        split_hash: str,
        split: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Self:
        """Create a record in a new file, with its parent folders.

        Args:
            path: The file; must not exist.
            run_id: Identifies the run, so that a resumed run finds its record.
            split_hash: Hash of the preference split that the results are measured on.
            split: Plain values that describe the split.
            config: Plain values that describe how the run is monitored.

        Raises:
            RecordError: If the file exists or cannot be written.
        """
        path = Path(path)
        identity = {"kind": "header", "format": FORMAT, "run_id": run_id, "split_hash": split_hash}
        header = {**identity, "split": dict(split or {}), "config": dict(config or {}), "versions": versions()}
        try:
            if path.exists():
                raise RecordError(f"{path} exists: open it to continue it, or write to another folder.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("xb").close()
        except OSError as error:
            raise RecordError(f"The record {path} cannot be created: {error}. Choose a writable `dirpath`.") from error
        record = cls(path, RecordContents(header=header, results=[], ceilings={}, statuses=[], times={}, size=0))
        record._write([dumps(header)])
        return record

    @classmethod
    def open(cls, path: str | Path, *, split_hash: str | None = None) -> Self:
        """Open a record to continue it; the next append overwrites a torn last line.

        Args:
            path: An existing record.
            split_hash: Hash of the split that new results will be measured on; None skips the check.

        Raises:
            RecordError: If the file is not a record, is damaged before its last line, or belongs to another split.
        """
        path = Path(path)
        contents = read_contents(path)
        recorded_hash = contents.header["split_hash"]
        if split_hash is not None and recorded_hash != split_hash:
            raise RecordError(
                f"{path} was measured on split {recorded_hash!r}, this run uses split {split_hash!r}: their points "
                "cannot share a curve. Use the same split, or another `dirpath`."
            )
        return cls(path, contents)

    @staticmethod
    def read(path: str | Path) -> tuple[dict[str, Any], list[Snapshot]]:
        """Return the header of a record and its results, in the order of their steps.

        Results that a later rewind abandoned are left out, and a torn last line, as a killed run leaves it, is ignored.

        Raises:
            RecordError: If the file is missing, is not a record, or is damaged before its last line.
        """
        contents = read_contents(Path(path))
        return contents.header, contents.results

    @staticmethod
    def statuses(path: str | Path) -> list[dict[str, Any]]:
        """Return the payloads of the ``failure``, ``rewind`` and ``end`` lines, in file order.

        Raises:
            RecordError: As :meth:`read`.
        """
        return read_contents(Path(path)).statuses

    @staticmethod
    def contents(path: str | Path) -> RecordContents:
        """Return all contents of a record, consistent with each other: the file is read once.

        Raises:
            RecordError: As :meth:`read`.
        """
        return read_contents(Path(path))

    @staticmethod
    def find(folder: str | Path, run_id: str) -> Path | None:
        """Return the path of a run's record in a folder, or None; damaged files are skipped."""
        for path in sorted(Path(folder).glob("record*.jsonl")):
            with contextlib.suppress(RecordError):
                if read_contents(path).header["run_id"] == run_id:
                    return path
        return None

    @property
    def steps(self) -> list[int]:
        """Steps of the recorded results that no rewind abandoned, ascending."""
        return sorted(self._steps)

    def append(self, result: Snapshot) -> None:
        """Append a result; it is on disk when this returns.

        Raises:
            RecordError: If its step is recorded already, or the file cannot be written.
        """
        if result.step in self._steps:
            raise RecordError(f"Step {result.step} is in {self.path} already; a step is recorded once.")
        lines, ceilings = pack_snapshot(result, self._ceilings)
        self._write(lines)
        self._steps.add(result.step)
        self._ceilings |= ceilings

    def add_watched(self, step: int, values: Mapping[str, float]) -> None:
        """Append values of watched metrics to the result of a step.

        Raises:
            RecordError: If there is no result of this step, or the file cannot be written.
        """
        if step not in self._steps:
            raise RecordError(f"{self.path} has no snapshot of step {step} that watched values could belong to.")
        self._write([dumps({"kind": "watched", "step": step, "values": values})])

    def status(self, kind: str, **values: Any) -> None:
        """Append a ``failure`` or ``end`` line with plain values.

        Raises:
            RecordError: If the file cannot be written.
        """
        self._write([dumps({"kind": kind, **values})])

    def rewind(self, step: int) -> None:
        """Abandon the results after `step`, because the run continues from a checkpoint taken there.

        Writes nothing if there are no later results.

        Raises:
            RecordError: If the file cannot be written.
        """
        if any(later > step for later in self.steps):
            self._write([dumps({"kind": "rewind", "step": step})])
            self._steps = {earlier for earlier in self.steps if earlier <= step}

    def _write(self, payloads: Iterable[str]) -> None:
        """Append payloads as lines after the last intact line, and flush them to disk."""
        data = b"".join(checked_line(payload) for payload in payloads)
        try:
            # Not mode "ab": the remains of a failed write after the last intact line must be overwritten.
            with self.path.open("r+b") as file:
                self._check_sole_writer(file)
                self._write_failed = True
                file.truncate(self._size)
                file.seek(self._size)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RecordError(f"The record {self.path} cannot be written: {error}.") from error
        self._size += len(data)
        self._write_failed = False

    def _check_sole_writer(self, file: BinaryIO) -> None:
        """Raise if another process has appended a line meanwhile, as when a run was resumed twice."""
        file.seek(self._size)
        line = file.readline()
        if not self._write_failed and line.endswith(b"\n") and payload_of(line[:-1]) is not None:
            raise RecordError(
                f"Another process writes to {self.path} too: a run was resumed twice. Give one of them another "
                "`dirpath`."
            )


@functools.cache  # looking up versions takes longer than writing a record
def versions() -> Mapping[str, str]:
    """Return the versions of the packages that can change a number."""
    installed = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed
