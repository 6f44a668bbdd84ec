"""Reading a record: checksummed JSON lines, checked one by one and gathered into the results that count.

Snapshots in a checkpoint or in a message between processes have the same payloads, without the lines around them.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lis_lightning.errors import RecordError
from lis_lightning.results.packing import ceilings_of, pack_snapshot, snapshot_of
from lis_lightning.results.result import Ceiling
from lis_lightning.results.snapshot import Snapshot

FORMAT = 2
_LINE = re.compile(rb'\{"crc32":"([0-9a-f]{8})","payload":(\{.*\})\}')


class RecordContents(NamedTuple):
    """The contents of a record, up to its last intact line.

    Attributes:
        header: Payload of the first line.
        results: Snapshots in file order, without those that a rewind abandoned.
        ceilings: Ceilings by the id that results refer to them by.
        statuses: Payloads of the ``failure``, ``rewind`` and ``end`` lines, in file order.
        times: Time at which each snapshot was written, by optimizer step.
        size: Bytes up to the end of the last intact line.
    """

    header: dict[str, Any]
    results: list[Snapshot]
    ceilings: dict[str, dict[str, Ceiling]]
    statuses: list[dict[str, Any]]
    times: dict[int, datetime]
    size: int


def read_contents(path: Path) -> RecordContents:
    """Return the contents of a record file; a torn last line is ignored.

    Raises:
        RecordError: If the file cannot be read, is not a record of this format, or is damaged before its last line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"The record {path} cannot be read: {error}.") from error
    payloads, size = _intact_payloads(data, path)
    if not payloads or payloads[0].get("kind") != "header":
        raise RecordError(f"{path} is no record of lis-lightning: its first line is not an intact header.")
    if payloads[0]["format"] != FORMAT:
        raise RecordError(f"{path} has record format {payloads[0]['format']}, this version reads {FORMAT}; update it.")
    return _gather(payloads)._replace(size=size)


def _intact_payloads(data: bytes, path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the payloads of all intact lines, and the bytes up to the end of the last one."""
    *complete, tail = data.split(b"\n")
    payloads, size = [], 0
    for number, line in enumerate(complete, start=1):
        payload = payload_of(line)
        if payload is None:
            if number == len(complete) and not tail:
                break
            raise RecordError(
                f"{path}, line {number} of {len(complete)} is damaged (its checksum does not match its text). Only a "
                "torn last line can be passed over; restore the file from a copy, or delete the line by hand."
            )
        payloads.append(payload)
        size += len(line) + 1
    return payloads, size


def _gather(payloads: list[dict[str, Any]]) -> RecordContents:
    """Sort payloads by kind; a rewind removes the results after its step."""
    contents = RecordContents(header={}, results=[], ceilings={}, statuses=[], times={}, size=0)
    for payload in payloads:
        kind = payload["kind"]
        if kind == "header":
            contents.header.update(payload)
        elif kind == "ceilings":
            contents.ceilings[payload["id"]] = ceilings_of(payload)
        elif kind == "result":
            result = snapshot_of(payload["result"], contents.ceilings)
            contents.results.append(result)
            if "time" in payload:  # checkpoints of earlier versions have none
                contents.times[result.step] = datetime.fromisoformat(payload["time"])
        elif kind == "watched":
            _add_watched(contents.results, payload)
        else:
            contents.statuses.append(payload)
            if kind == "rewind":
                contents.results[:] = [result for result in contents.results if result.step <= payload["step"]]
    return contents


def _add_watched(results: list[Snapshot], payload: dict[str, Any]) -> None:
    """Add the values of a ``watched`` line to the snapshot of its step."""
    for index, result in enumerate(results):
        if result.step == payload["step"]:
            results[index] = replace(result, watched={**result.watched, **payload["values"]})


def checked_line(payload: str) -> bytes:
    """Return the line of a payload: JSON that holds the payload and its CRC-32."""
    data = payload.encode()
    return b'{"crc32":"%08x","payload":%s}\n' % (zlib.crc32(data), data)


def payload_of(line: bytes) -> dict[str, Any] | None:
    """Return the payload of a line without its line feed; None if the line is damaged."""
    match = _LINE.fullmatch(line)
    if match is None or int(match[1], 16) != zlib.crc32(match[2]):
        return None
    payload: dict[str, Any] = json.loads(match[2])
    return payload


def pack(results: Iterable[Snapshot]) -> list[str]:
    """Return snapshots as JSON payloads, as a record stores them; :func:`unpack` is the inverse."""
    payloads: list[str] = []
    written: set[str] = set()
    for result in results:
        new, ceilings = pack_snapshot(result, written)
        payloads += new
        written |= ceilings
    return payloads


def unpack(payloads: Iterable[str]) -> list[Snapshot]:
    """Return the snapshots that :func:`pack` serialised."""
    return _gather([json.loads(payload) for payload in payloads]).results


def as_recorded(result: Snapshot) -> Snapshot:
    """Return a snapshot as a record returns it: its arrays rounded to float32."""
    return unpack(pack([result]))[0]
