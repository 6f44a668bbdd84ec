"""Path of the record on its way from the process that trains to the one that launched it.

The strategies ``ddp_spawn``, ``ddp_fork`` and ``ddp_notebook`` train in new processes, which end with the training and
take the callbacks of the Trainer with them. The launching process finds the results in the record.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
from pathlib import Path
from typing import NamedTuple

import torch

from lis_lightning.errors import RecordError
from lis_lightning.results.record import Record
from lis_lightning.results.record_contents import RecordContents

SIZE = 8192  # bytes: a path, in JSON


class Handover:
    """Memory shared with the processes that a Trainer launches: the path of the record that the first of them writes.

    torch hands it over when a process is spawned; a forked one inherits it.

    Example:
        >>> handover = Handover()
        >>> handover.put(Path("record.jsonl"))
        >>> handover.received() is None  # this process wrote it
        True
    """

    def __init__(self) -> None:
        self._shared = torch.zeros(SIZE, dtype=torch.uint8)
        self._inside = 0  # process that this object was last used in for a fit
        self._read: tuple[str, int] | None = None
        with contextlib.suppress(RuntimeError):  # no shared memory here: nothing is received
            self._shared.share_memory_()  # type: ignore[no-untyped-call]

    def enter(self) -> None:
        """Note that a training starts in this process."""
        self._inside = os.getpid()

    def clear(self) -> None:
        """Forget the record of an earlier training, on the process that will write one."""
        self._shared.zero_()

    def put(self, path: Path) -> None:
        """Hand over the path of the record that this process writes."""
        data = json.dumps({"process": os.getpid(), "path": str(path.absolute())}).encode()
        if len(data) < SIZE:
            self._shared[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def received(self) -> Received | None:
        """Return the record that a launched process has written; None if there is none, or nothing new in it."""
        data = self._shared.numpy().tobytes().rstrip(b"\0")
        launched = self._inside == os.getpid() and multiprocessing.parent_process() is not None
        if not data or launched:
            return None
        written = json.loads(data)
        path = Path(written["path"])
        if written["process"] == os.getpid() or not path.is_file():
            return None
        version = (str(path), path.stat().st_mtime_ns)
        if version == self._read:
            return None
        with contextlib.suppress(RecordError):
            received = Received(Record.open(path), Record.contents(path))
            self._read = version
            return received
        return None


class Received(NamedTuple):
    """A record that another process has written, and its contents."""

    record: Record
    contents: RecordContents
