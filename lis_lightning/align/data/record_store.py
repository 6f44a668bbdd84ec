"""Append-only records on disk: named arrays under a key, found again by later processes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DATA, _INDEX = "records.bin", "index.bin"
# Of each record: its key, where it ends in the data (it starts where the one before it ends), how many numbers it
# holds, and how many of them count as tokens.
_ENTRY = np.dtype([("key", "<u8", 2), ("stop", "<i8"), ("numbers", "<i8"), ("tokens", "<i8")])
_LENGTH_BYTES = 4  # of the number at the start of a record: how long its description of the arrays is
KEY_BYTES = 16
_COMMIT_BYTES = 2**25  # data written between two updates of the index


class RecordStore:
    """Records in one folder. One process may append while others read what was there when they opened it.

    The index names only records that are completely written. So whatever ends the writer, all records up to the last
    update of the index can be read, and the next writer continues after them.

    Args:
        folder: Is created by the first writer.

    Example:
        >>> import tempfile
        >>> store = RecordStore(Path(tempfile.mkdtemp()))
        >>> with store.writer() as writer:
        ...     size = writer.append(b"0123456789abcdef", {"x": np.arange(3)}, numbers=3, tokens=0)
        >>> store.read(store.position(b"0123456789abcdef"))
        {'x': array([0, 1, 2])}
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open()

    def _open(self) -> None:
        data, index = self.folder / _DATA, self.folder / _INDEX
        raw = index.read_bytes() if index.is_file() else b""
        entries = np.frombuffer(raw[: len(raw) // _ENTRY.itemsize * _ENTRY.itemsize], dtype=_ENTRY)
        # Without the records that a damaged file no longer holds.
        size = data.stat().st_size if data.is_file() else 0
        self._entries = entries[: int(np.searchsorted(entries["stop"], size, side="right"))]
        self._positions = {entry["key"].tobytes(): position for position, entry in enumerate(self._entries)}
        # A file of no bytes cannot be mapped into memory.
        self._data = np.memmap(data, dtype=np.uint8, mode="r") if size else np.empty(0, np.uint8)

    def __getstate__(self) -> Path:
        return self.folder  # a pickled memory map would carry the whole file

    def __setstate__(self, folder: Path) -> None:
        self.folder = folder
        self._open()

    def position(self, *keys: bytes) -> int:
        """Return the position of the record under the first of the keys that has one; -1 if none has."""
        return next((self._positions[key] for key in keys if key in self._positions), -1)

    def numbers(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many numbers each of these records holds."""
        numbers: NDArray[np.int64] = self._entries["numbers"][positions]
        return numbers

    def read(self, position: int) -> dict[str, NDArray[Any]]:
        """Return the arrays of a record, which may be written to."""
        start = 0 if position == 0 else int(self._entries["stop"][position - 1])
        record = self._data[start : int(self._entries["stop"][position])]
        offset = _LENGTH_BYTES + int.from_bytes(record[:_LENGTH_BYTES].tobytes(), "little")
        arrays = {}
        for name, (dtype, shape) in json.loads(record[_LENGTH_BYTES:offset].tobytes()).items():
            array = np.frombuffer(record, np.dtype(dtype), count=math.prod(shape), offset=offset)
            arrays[name] = array.reshape(shape).copy()
            offset += array.nbytes
        return arrays

    @contextmanager
    def writer(self) -> Iterator[RecordWriter]:
        """Append records; what was appended can be read afterwards, also if an error ends the block."""
        writer = RecordWriter(self.folder, self._entries)
        try:
            yield writer
        finally:
            writer.close()
            self._open()


class RecordWriter:
    """Appends records to a folder, after those that are there.

    Args:
        folder: Of the store.
        entries: Of its intact records; what the files hold after them is cut off.
    """

    def __init__(self, folder: Path, entries: NDArray[Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._stop = int(entries["stop"][-1]) if len(entries) else 0
        (folder / _DATA).touch()
        os.truncate(folder / _DATA, self._stop)
        (folder / _INDEX).write_bytes(entries.tobytes())
        self._data = (folder / _DATA).open("ab")
        self._index = (folder / _INDEX).open("ab")
        self._pending: list[tuple[Any, ...]] = []
        self._committed = self._stop

    def append(self, key: bytes, arrays: Mapping[str, NDArray[Any]], *, numbers: int, tokens: int) -> int:
        """Append a record, and return how many bytes it takes on disk.

        Args:
            key: Of `KEY_BYTES` bytes.
            arrays: Of the record; none to keep the two counts alone.
            numbers: How many numbers the record stands for.
            tokens: How many of them are tokens.
        """
        fields = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
        header = json.dumps(fields).encode()
        start = self._stop
        for part in (len(header).to_bytes(_LENGTH_BYTES, "little"), header, *map(np.ndarray.tobytes, arrays.values())):
            self._stop += self._data.write(part)
        self._pending.append((np.frombuffer(key, "<u8"), self._stop, numbers, tokens))
        if self._stop - self._committed > _COMMIT_BYTES:
            self._commit()
        return self._stop - start + _ENTRY.itemsize

    def close(self) -> None:
        """Write what is pending to the disk."""
        try:
            self._commit()
        finally:
            self._data.close()
            self._index.close()

    def _commit(self) -> None:
        # The data first: an entry of the index must never name bytes that are not there.
        self._data.flush()
        os.fsync(self._data.fileno())
        self._index.write(np.array(self._pending, dtype=_ENTRY).tobytes())
        self._index.flush()
        self._pending.clear()
        self._committed = self._stop
