"""Folders that are built once and atomically and verified by checksums, and a lock for the process that builds one."""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MANIFEST = "manifest.json"
_CHUNK = 2**24  # bytes read at a time


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`; build it unless it exists and none of its files has changed.

    The files are written to a temporary folder that is renamed at the end. So an interrupted build leaves nothing that
    could be mistaken for a result, and if two processes build at once, both use the folder of the faster one.

    Args:
        folder: Named after its content (a hash), since an intact folder is never rebuilt.
        build: Writes the files into the folder that it is given.
    """
    if is_intact(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        build(draft)
        (draft / _MANIFEST).write_text(json.dumps(_checksums(draft), indent=1))
        if not is_intact(folder):  # another process may have been faster
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
    except OSError:
        if not is_intact(folder):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def is_intact(folder: Path) -> bool:
    """Return whether the folder was built completely and none of its files has changed since."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        return bool(manifest == _checksums(folder))
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, int]:
    """Return the CRC-32 of every file by its relative path; it finds damage, at a gigabyte a second."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST)
    return {path.relative_to(folder).as_posix(): _crc32(path) for path in paths}


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process at a time, of all that share a disk, build a folder; the others wait.

    Args:
        folder: What is built; the lock is a file beside it. A process that ends in any way releases it.
    """
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        yield
