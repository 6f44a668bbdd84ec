"""The run's own record: one JSON line a snapshot, on disk before training goes on.

Loggers may lose their last rows when a job is killed, and a curve that cost GPU hours must not depend on them. A record
is append-only: each line carries the CRC-32 of its payload and is flushed to the disk before :meth:`Record.append`
returns, so a kill loses at most the line in progress. Its lines::

    header    format, run, split, versions, configuration
    ceilings  the ceilings that following results refer to by id; they are the same at every snapshot
    result    one Snapshot; NaN is null, arrays are base64 of little-endian float32
    failure   a snapshot, a logger or this record that failed, with its step and error
    rewind    the run was resumed from a checkpoint of that step: later results belong to abandoned weights
    end       best step and last verdict

Arrays lose digits below float32; every other number comes back bit for bit.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from lis_lightning.errors import RecordError
from lis_lightning.results.packing import ceilings_of, dumps, pack_one, snapshot_of
from lis_lightning.results.result import Ceiling
from lis_lightning.results.snapshot import Snapshot

FORMAT = 2
FILENAME = "record.jsonl"
_LINE = re.compile(rb'\{"crc32":"([0-9a-f]{8})","payload":(\{.*\})\}')
_PACKAGES = ("lis-lightning", "torch", "pytorch-lightning", "lightning", "transformers", "numpy", "scipy")


class Record:
    """A run's record on disk. Make one with :meth:`create` or :meth:`open`; read any with :meth:`read`.

    Attributes:
        path: The file.
        header: Its first line: ``format``, ``run_id``, ``split_hash``, ``split``, ``config``, ``versions``, ``time``.

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

    def __init__(self, path: Path, contents: _Contents) -> None:
        self.path = path
        self.header = contents.header
        self._size = contents.size
        self._unsure = False  # whether a write of ours failed, and may have left something
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
        """Start a record in a new file; folders above it are made.

        Args:
            path: The file; must not exist.
            run_id: Names the run, so that a resumed run finds its own record again.
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
        record = cls(path, _Contents(header=header, results=[], ceilings={}, statuses=[], times={}, size=0))
        record._write([dumps(header)])
        return record

    @classmethod
    def open(cls, path: str | Path, *, split_hash: str | None = None) -> Self:
        """Continue a record; a line that a kill left torn at its end is cut off by the next append.

        Args:
            path: An existing record.
            split_hash: Hash of the split that new results will be measured on; None does not check it.

        Raises:
            RecordError: If it is no record, is damaged before its last line, or was measured on another split.
        """
        path = Path(path)
        contents = _read(path)
        found = contents.header["split_hash"]
        if split_hash is not None and found != split_hash:
            raise RecordError(
                f"{path} was measured on split {found!r}, this run uses split {split_hash!r}: their points cannot "
                "share a curve. Use the same split, or another `dirpath`."
            )
        return cls(path, contents)

    @staticmethod
    def read(path: str | Path) -> tuple[dict[str, Any], list[Snapshot]]:
        """Return the header and the results of a record, in the order of their steps.

        Results that a later resume abandoned are left out. Reads the record of a killed run too: a torn last line is
        passed over.

        Raises:
            RecordError: If the file is missing, is no record, or is damaged before its last line.
        """
        contents = _read(Path(path))
        return contents.header, contents.results

    @staticmethod
    def statuses(path: str | Path) -> list[dict[str, Any]]:
        """Return what else happened: the payloads of the ``failure``, ``rewind`` and ``end`` lines, in file order.

        Raises:
            RecordError: As :meth:`read`.
        """
        return _read(Path(path)).statuses

    @staticmethod
    def contents(path: str | Path) -> _Contents:
        """Return all of a record from one reading: header, results, statuses, and the time each step was written.

        Raises:
            RecordError: As :meth:`read`.
        """
        return _read(Path(path))

    @staticmethod
    def find(folder: str | Path, run_id: str) -> Path | None:
        """Return the record of a run in a folder, or None; damaged files are passed over."""
        for path in sorted(Path(folder).glob("record*.jsonl")):
            with contextlib.suppress(RecordError):
                if _read(path).header["run_id"] == run_id:
                    return path
        return None

    @property
    def steps(self) -> list[int]:
        """Steps of the results that count, ascending."""
        return sorted(self._steps)

    def append(self, result: Snapshot) -> None:
        """Add a result; it is on the disk when this returns.

        Raises:
            RecordError: If its step is recorded already, or the disk refuses.
        """
        if result.step in self._steps:
            raise RecordError(f"Step {result.step} is in {self.path} already; a step is recorded once.")
        lines, ceilings = pack_one(result, self._ceilings)
        self._write(lines)
        self._steps.add(result.step)
        self._ceilings |= ceilings

    def status(self, kind: str, **values: Any) -> None:
        """Add a line that is no result: ``failure`` or ``end``, with plain values.

        Raises:
            RecordError: If the disk refuses.
        """
        self._write([dumps({"kind": kind, **values})])

    def rewind(self, step: int) -> None:
        """Give up the results after `step`: the run goes on from a checkpoint taken there. No-op without any.

        Raises:
            RecordError: If the disk refuses.
        """
        if any(later > step for later in self.steps):
            self._write([dumps({"kind": "rewind", "step": step})])
            self._steps = {kept for kept in self.steps if kept <= step}

    def _write(self, payloads: Iterable[str]) -> None:
        """Put lines at the end of the intact part, and on the disk."""
        data = b"".join(_line(payload) for payload in payloads)
        try:
            # Not mode "ab": what an earlier failed write left behind the intact part has to be overwritten.
            with self.path.open("r+b") as file:
                self._refuse_others(file)
                self._unsure = True
                file.truncate(self._size)
                file.seek(self._size)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RecordError(f"The record {self.path} cannot be written: {error}.") from error
        self._size += len(data)
        self._unsure = False

    def _refuse_others(self, file: BinaryIO) -> None:
        """Raise where another process has written since: a run that was resumed twice."""
        file.seek(self._size)
        line = file.readline()
        if not self._unsure and line.endswith(b"\n") and _intact(line[:-1]) is not None:
            raise RecordError(
                f"Another process writes to {self.path} too: a run was resumed twice. Give one of them another "
                "`dirpath`."
            )


def pack(results: Iterable[Snapshot]) -> list[str]:
    """Return results as JSON payloads, in the record's own form; :func:`unpack` is the inverse."""
    lines: list[str] = []
    known: set[str] = set()
    for result in results:
        new, ceilings = pack_one(result, known)
        lines += new
        known |= ceilings
    return lines


def unpack(payloads: Iterable[str]) -> list[Snapshot]:
    """Return the results that :func:`pack` wrote."""
    return _gather([json.loads(payload) for payload in payloads]).results


def as_recorded(result: Snapshot) -> Snapshot:
    """Return a result as the record gives it back: its arrays rounded to float32."""
    return unpack(pack([result]))[0]


class _Contents(NamedTuple):
    """A record as read."""

    header: dict[str, Any]
    results: list[Snapshot]
    ceilings: dict[str, dict[str, Ceiling]]
    statuses: list[dict[str, Any]]
    times: dict[int, datetime]
    size: int  # bytes up to the end of the last intact line


def _read(path: Path) -> _Contents:
    """Read a record up to its last intact line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"The record {path} cannot be read: {error}.") from error
    *complete, tail = data.split(b"\n")
    payloads, size = [], 0
    for number, line in enumerate(complete, start=1):
        payload = _intact(line)
        if payload is None:
            if number == len(complete) and not tail:
                break
            raise RecordError(
                f"{path}, line {number} of {len(complete)} is damaged (its checksum does not match its text). Only a "
                "torn last line can be passed over; restore the file from a copy, or delete the line by hand."
            )
        payloads.append(payload)
        size += len(line) + 1
    if not payloads or payloads[0].get("kind") != "header":
        raise RecordError(f"{path} is no record of lis-lightning: its first line is not an intact header.")
    if payloads[0]["format"] != FORMAT:
        raise RecordError(f"{path} has record format {payloads[0]['format']}, this version reads {FORMAT}; update it.")
    return _gather(payloads)._replace(size=size)


def _gather(payloads: list[dict[str, Any]]) -> _Contents:
    """Sort payloads by kind, with later lines overruling earlier ones where a run was rewound."""
    contents = _Contents(header={}, results=[], ceilings={}, statuses=[], times={}, size=0)
    for payload in payloads:
        kind = payload["kind"]
        if kind == "header":
            contents.header.update(payload)
        elif kind == "ceilings":
            contents.ceilings[payload["id"]] = ceilings_of(payload)
        elif kind == "result":
            contents.results.append(snapshot_of(payload["result"], contents.ceilings))
            if "time" in payload:  # not in a checkpoint's
                contents.times[contents.results[-1].step] = datetime.fromisoformat(payload["time"])
        else:
            contents.statuses.append(payload)
            if kind == "rewind":
                contents.results[:] = [r for r in contents.results if r.step <= payload["step"]]
    return contents


def _line(payload: str) -> bytes:
    """Wrap a payload with its checksum; the line is JSON itself."""
    data = payload.encode()
    return b'{"crc32":"%08x","payload":%s}\n' % (zlib.crc32(data), data)


def _intact(line: bytes) -> dict[str, Any] | None:
    """Return the payload of a line, or None if the line is damaged."""
    match = _LINE.fullmatch(line)
    if match is None or int(match[1], 16) != zlib.crc32(match[2]):
        return None
    payload: dict[str, Any] = json.loads(match[2])
    return payload


@functools.cache  # asking takes longer than writing a record
def versions() -> Mapping[str, str]:
    """Return the versions of the packages that can change a number."""
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
