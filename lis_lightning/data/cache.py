"""What is computed once for a split: in memory as long as the split lives, and on disk by the hash of its content.

The folder is the argument `cache_dir`, else ``$LIS_CACHE``, else ``~/.cache/lis-lightning``; scores lie in its
``scores/``. ``LIS_CACHE=off`` (or empty) keeps nothing on disk. A file is written whole or not at all, so processes may
share a folder, and it is named by the content of the split and of the preference data, by the versions of the numeric
libraries and by the source text of this package: a number never outlives the code that made it. Whatever cannot be read
or written is computed again, with one warning. A base takes about 150 bytes a scored event, a ceiling 8 bytes for each
number of its item vectors; beyond 4 GiB the files that were not used for longest are deleted. The folder may be emptied
at any time.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
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

from lis_lightning.errors import LisWarning

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")

DEFAULT_FOLDER = "~/.cache/lis-lightning"

MAX_BYTES = 4 * 2**30
KEPT = "_kept"  # attribute of a split: what was computed for it dies with it, and is not pickled

_alive: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_warned: set[Path] = set()


def cache_folder(cache_dir: str | Path | None = None) -> Path | None:
    """Return the folder that caches lie in, None where they are switched off.

    Args:
        cache_dir: The folder, or ``"off"``; None means ``$LIS_CACHE``, else ``~/.cache/lis-lightning``.
    """
    chosen = os.environ.get("LIS_CACHE", DEFAULT_FOLDER) if cache_dir is None else cache_dir
    if str(chosen).strip().lower() in {"", "off"}:
        return None
    try:
        return Path(chosen).expanduser()
    except RuntimeError:  # a process of a user without a home, as containers have
        return None


def digest(*parts: str | bytes | NDArray[Any]) -> str:
    """Return 32 hex digits that change with any part, or with where one part ends and the next begins."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            data = f"{part.dtype.str}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
        else:
            data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def digest_ids(ids: NDArray[Any]) -> str:
    """Return the digest of integer or text ids."""
    return digest(json.dumps(ids.tolist()))


def kept(owner: Any, handle: Hashable, compute: Callable[[], T], *, content: Callable[[], str | None]) -> T:
    """Return what was computed before for this owner, or for another one of the same content that is still alive.

    Args:
        owner: A split; what is kept for it is freed with it.
        handle: Names the value among those of the owner.
        compute: Makes the value.
        content: Makes a digest that two owners share if the value is the same for both, or None where nothing tells.
    """
    values: dict[Hashable, Any] = owner.__dict__.setdefault(KEPT, {})
    if handle not in values:
        key = content()
        value = None if key is None else _alive.get(key)
        values[handle] = compute() if value is None else value
        if key is not None:
            _alive[key] = values[handle]
    return cast(T, values[handle])


def stored(key: str, compute: Callable[[], Arrays], *, cache_dir: str | Path | None = None, about: str = "") -> Arrays:
    """Return arrays from disk, bit for bit as they were computed; compute and write them where there are none.

    Args:
        key: Digest of all that the arrays depend on, but for code and versions, which are added here.
        compute: Makes the arrays.
        cache_dir: See :func:`cache_folder`.
        about: Told in the file, for whoever finds it.
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


@functools.cache
def _code_digest() -> str:
    """Return a digest of this package's source and of the versions of what does its arithmetic."""
    package = Path(__file__).parents[1]
    rooms = [package / "data", package / "functional", package / "scoring"]
    sources = [path.read_bytes() for room in rooms for path in sorted(room.glob("*.py"))]
    return digest(np.__version__, scipy.__version__, torch.__version__, *sources)


def _read(path: Path) -> Arrays | None:
    """Return the arrays of a file; None if there is none, or (with a warning) if it is damaged."""
    try:
        if not path.exists():
            return None
        with safe_open(path, framework="np") as file:
            arrays: Arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            intact = (file.metadata() or {}).get("crc32") == _checksum(arrays)
        with contextlib.suppress(OSError):
            os.utime(path)  # used just now: the last to be deleted
    except (SafetensorError, OSError) as error:
        _warn_once(path.parent, f"cannot be read ({error})")
        return None
    if not intact:
        _warn_once(path.parent, f"is damaged: the checksum of {path.name} does not match its content")
    return arrays if intact else None


def _write(path: Path, arrays: Arrays, about: str) -> None:
    """Write a file whole or not at all."""
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
    """Delete the files that were not used for longest, until the rest is within the limit; the newest one stays."""
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
        f"The cache in {folder} {what}. Scores are computed again, and are right; name another folder in LIS_CACHE, "
        "empty this one, or switch it off with LIS_CACHE=off.",
        LisWarning,
        stacklevel=2,
    )
