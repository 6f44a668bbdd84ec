"""Cache of the values computed once for a split: in memory for the life of the split, on disk by content.

The folder is the argument `cache_dir`, else ``$LIS_CACHE``, else ``~/.cache/lis-lightning``; files are in its
``scores/``. ``LIS_CACHE=off`` (or empty) turns the disk cache off. A file is written atomically, so processes may share
a folder. Its name is a digest of the content of the split and of the preference data, the versions of the numeric
libraries, and the source text of the rooms data, functional and scoring: changed code never reads an old number. A file
that cannot be read or written is computed again, with one warning a folder. A base ranker takes about 150 bytes a
scored event, a ceiling 8 bytes for each number of its item vectors, and its cross-fitted vectors six times that. Above
4 GiB the least recently used files are deleted. The folder may be emptied at any time.
"""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
import warnings
import weakref
import zlib
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lis_lightning.data.digest import digest
from lis_lightning.data.split import MEMO, PreferenceSplit
from lis_lightning.errors import LisWarning

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")

DEFAULT_FOLDER = "~/.cache/lis-lightning"

MAX_BYTES = 4 * 2**30

_alive: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_warned: set[Path] = set()


def cache_folder(cache_dir: str | Path | None = None) -> Path | None:
    """Return the cache folder, None if the disk cache is off.

    Args:
        cache_dir: The folder, or ``"off"``; None means ``$LIS_CACHE``, else ``~/.cache/lis-lightning``.
    """
    chosen = os.environ.get("LIS_CACHE", DEFAULT_FOLDER) if cache_dir is None else cache_dir
    if str(chosen).strip().lower() in {"", "off"}:
        return None
    try:
        return Path(chosen).expanduser()
    except RuntimeError:  # the user has no home directory, as in some containers
        return None


class SplitCache:
    """Cache of one split: values are shared by equal splits in memory, arrays are also stored on disk.

    Args:
        split: The split.
        cache_dir: See :func:`cache_folder`.

    Attributes:
        split: The split.
        folder: Folder of the arrays; None if the disk cache is off.
    """

    def __init__(self, split: PreferenceSplit, cache_dir: str | Path | None = None) -> None:
        self.split = split
        self.folder = cache_folder(cache_dir)

    @property
    def cache_dir(self) -> str | Path:
        """The folder as an argument that :func:`cache_folder` takes."""
        return "off" if self.folder is None else self.folder

    def of(self, split: PreferenceSplit) -> SplitCache:
        """Return the cache of another split in the same folder."""
        return self if split is self.split else SplitCache(split, self.cache_dir)

    def value(self, handle: Hashable, compute: Callable[[], T], content: Callable[[], str | None]) -> T:
        """Return a value memoised for this split and folder, or for an equal split that is still alive.

        Args:
            handle: Identifies the value among those of the split.
            compute: Computes the value.
            content: Returns a digest of everything that the value depends on, or None if that is unknown.
        """

        def in_folder() -> str | None:
            key = content()
            return None if key is None else digest(key, str(self.folder))

        return memoised(self.split, (handle, self.folder), compute, content=in_folder)

    def arrays(self, key: str, compute: Callable[[], Arrays], about: str = "") -> Arrays:
        """Return arrays from disk or from memory, or compute them; afterwards they are in the folder.

        Args:
            key: Digest of everything that the arrays depend on.
            compute: Computes the arrays.
            about: Description, written into the file's metadata.
        """
        alive = _alive.get(f"arrays {key}")
        arrays = load_or_compute(
            key, compute if alive is None else lambda: dict(alive), cache_dir=self.cache_dir, about=about
        )
        shared = _SharedArrays(arrays)
        self.split.__dict__.setdefault(MEMO, {})["arrays", key, self.folder] = shared
        _alive[f"arrays {key}"] = shared
        return arrays


class _SharedArrays(dict[str, Any]):
    """Arrays that a weak reference can point to."""


def memoised(owner: Any, handle: Hashable, compute: Callable[[], T], *, content: Callable[[], str | None]) -> T:
    """Return a value memoised for this owner, or for another owner of the same content that is still alive.

    Args:
        owner: A split; its memoised values are freed with it.
        handle: Identifies the value among those of the owner.
        compute: Computes the value.
        content: Returns a digest that is equal for two owners if their values are equal, or None if that is unknown.
    """
    values: dict[Hashable, Any] = owner.__dict__.setdefault(MEMO, {})
    if handle not in values:
        key = content()
        value = None if key is None else _alive.get(key)
        values[handle] = compute() if value is None else value
        if key is not None:
            _alive[key] = values[handle]
    return cast(T, values[handle])


def load_or_compute(
    key: str, compute: Callable[[], Arrays], *, cache_dir: str | Path | None = None, about: str = ""
) -> Arrays:
    """Return arrays from disk, bit for bit as they were computed; if they are not there, compute and write them.

    Args:
        key: Digest of everything that the arrays depend on, except code and library versions, which are added here.
        compute: Computes the arrays.
        cache_dir: See :func:`cache_folder`.
        about: Description, written into the file's metadata.
    """
    folder = cache_folder(cache_dir)
    if folder is None:
        return compute()
    path = folder / "scores" / f"{digest(key, _code_digest())}.safetensors"
    arrays = _read(path)
    if arrays is None:
        arrays = compute()
        _write(path, arrays, about)
    return arrays


def hashed_sources() -> list[Path]:
    """Return the source files on which scores depend; edits of other files do not invalidate the cache."""
    package = Path(__file__).parents[1]
    rooms = [package / name for name in ("data", "functional", "scoring")]
    return [path for room in rooms for path in sorted(room.rglob("*.py"))]


@functools.cache
def _code_digest() -> str:
    """Return a digest of the source files on which scores depend, and of the versions of the numeric libraries."""
    sources = [path.read_bytes() for path in hashed_sources()]
    return digest(np.__version__, scipy.__version__, torch.__version__, *sources)


def _read(path: Path) -> Arrays | None:
    """Return the arrays of a file; None if it does not exist or, with a warning, if it is damaged."""
    try:
        if not path.exists():
            return None
        with safe_open(path, framework="np") as file:
            arrays: Arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            intact = (file.metadata() or {}).get("crc32") == _checksum(arrays)
        with contextlib.suppress(OSError):
            os.utime(path)  # most recently used
    except (SafetensorError, OSError) as error:
        _warn_once(path.parent, f"cannot be read ({error})")
        return None
    if not intact:
        _warn_once(path.parent, f"is damaged: the checksum of {path.name} does not match its content")
    return arrays if intact else None


def _write(path: Path, arrays: Arrays, about: str) -> None:
    """Write a file atomically."""
    data = save(arrays, metadata={"crc32": _checksum(arrays), "about": about})
    draft = path.with_name(f".{path.stem}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(data)
            os.replace(draft, path)  # noqa: PTH105  # tests make it fail where a full disk would
            _prune(path.parent)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        _warn_once(path.parent, f"cannot be written ({error})")


def _prune(folder: Path) -> None:
    """Delete the least recently used files beyond the size limit, never the newest one."""
    total = 0
    with contextlib.suppress(OSError):  # another process may delete them too
        newest_first = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for index, path in enumerate(newest_first):
            total += path.stat().st_size
            if index and total > MAX_BYTES:
                path.unlink(missing_ok=True)


def _checksum(arrays: Arrays) -> str:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes(), zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def _warn_once(folder: Path, what: str) -> None:
    if folder in _warned:
        return
    _warned.add(folder)
    warnings.warn(
        f"The cache in {folder} {what}. Scores are computed again and are correct; set another folder in LIS_CACHE, "
        "empty this one, or turn the cache off with LIS_CACHE=off.",
        LisWarning,
        stacklevel=2,
    )
