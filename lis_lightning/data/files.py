"""Files of a table, scanned lazily: a path, a list, a glob, a folder with Hive keys, or a URL of an object store."""

from __future__ import annotations

import codecs
import gzip
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from lis_lightning.errors import ConfigError, LogError

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": ",", ".dat": "::", ".data": "\t", ".inter": "\t"}
_FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "ipc",
    ".arrow": "ipc",
    ".ipc": "ipc",
    ".jsonl": "json",
    ".ndjson": "json",
    **dict.fromkeys(_SEPARATORS, "text"),
}
TABLE_ENDINGS = tuple(_FORMATS)
_COMPRESSIONS = {".gz", ".zst"}
_CLOUD = {"s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl", "hf", "http", "https"}
_NO_SEPARATOR = "\x1f"  # reads a line as one field
FILE = "__file__"
_UTF16_MARKS = {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # what Hive and Spark write for a null key


@dataclass(frozen=True)
class Scan:
    """A table that has not been read yet.

    Attributes:
        frame: Its columns; those of text files are all text.
        text_columns: Columns that are text because of the kind of file, and need a type.
        decoded: Scans the same files as Latin-1 or UTF-16, for text files that are not UTF-8.
        parquet: The files, if they are parquet on a local or mounted disk and other programs take their names for names
            and not for patterns.
        keys: Path of each file and its Hive keys that the files do not have as columns, as text; None without keys.
    """

    frame: pl.LazyFrame
    text_columns: frozenset[str] = frozenset()
    decoded: Callable[[], pl.LazyFrame] | None = None
    parquet: tuple[str, ...] = ()
    keys: pl.DataFrame | None = None


def scan_files(source: str | Path | Sequence[str | Path], what: str, names: Sequence[str] | None = None) -> Scan:
    """Scan one file or several of one kind.

    Args:
        source: Path, list of paths, glob, folder or URL.
        what: Name of the table in error messages.
        names: Names of the columns of text files without a header.

    Raises:
        LogError: If no file matches, or files are of an unknown kind or of several kinds.
        ConfigError: If `names` are given for files that have names.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    paths = [path for given in sources for path in _expanded(str(given), what)]
    kinds = sorted({_FORMATS.get(file_ending(path), "parquet") for path in paths})
    if len(kinds) != 1:
        raise LogError(f"The {what} must be files of one kind, got {kinds or 'no file'}; name those of one kind.")
    if names is not None and kinds != ["text"]:
        raise ConfigError(f"`columns` names the columns of text files without a header; {paths[0]!r} has names.")
    is_single_file = len(paths) == 1 and Path(paths[0]) == Path(sources[0]).expanduser()
    keys = {} if is_single_file else _hive_keys(paths)
    file_column = FILE if keys else None
    is_text = kinds == ["text"]
    if is_text:
        scan = _scan_text(paths, names, file_column)
    else:
        plain = kinds == ["parquet"] and not any("://" in path or set("*?[") & set(path) for path in paths)
        parquet = tuple(paths) if plain else ()
        scan = Scan(_SCANNERS[kinds[0]](paths, file_column), parquet=parquet)
    return _with_keys(scan, paths, keys) if keys else scan


def _expanded(path: str, what: str) -> list[str]:
    """Return the files that a path, glob, folder or URL stands for."""
    scheme, separator, local = path.partition("://")
    if separator and scheme.lower() in _CLOUD:
        return [path]
    if separator and scheme.lower() != "file":
        raise LogError(
            f"The {what} {path!r} has the unknown scheme {scheme!r}; known are {', '.join(sorted(_CLOUD))} and file."
        )
    expanded = Path(local if separator else path).expanduser()
    if expanded.is_file():
        paths = [expanded]
    elif expanded.is_dir():
        paths = _files_of(expanded)
        if not paths:
            raise LogError(f"The folder {path!r} of the {what} holds no file that ends in {_endings()}.")
    elif any(mark in path for mark in "*?["):
        root = Path(expanded.anchor)
        matches = sorted(root.glob(str(expanded.relative_to(root))))
        files = [[match] if match.is_file() else _files_of(match) for match in matches]
        paths = [file for of_match in files for file in of_match]
        if not paths:
            raise LogError(f"The {what} {path!r} matches no file (working directory: {Path.cwd().name}/).")
    else:
        raise LogError(f"The {what} {path!r} does not exist (working directory: {Path.cwd().name}/).")
    for file in paths:
        if file_ending(str(file)) not in _FORMATS:
            raise LogError(f"Expected the {what} to end in {_endings()}, got {str(file)!r}.")
    return [str(file) for file in paths]


def _files_of(folder: Path) -> list[Path]:
    """Return the files of a known kind below a folder, without hidden ones and those of Spark (_SUCCESS)."""
    visible = []
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden and file_ending(str(file)) in _FORMATS:
            visible.append(file)
    return visible


def file_ending(path: str) -> str:
    """Return the ending that tells the kind of a file: that before ``.gz`` or ``.zst``."""
    endings = [ending.lower() for ending in Path(path).suffixes]
    if endings and endings[-1] in _COMPRESSIONS:
        endings.pop()
    return endings[-1] if endings else ""


def _endings() -> str:
    return f"{', '.join(_FORMATS)} (the text and JSON kinds also with {' or '.join(sorted(_COMPRESSIONS))})"


def _scan_parquet(paths: list[str], file_column: str | None) -> pl.LazyFrame:
    # A folder in an object store is listed by polars, with its Hive keys.
    is_remote = "://" in paths[0]
    if len(paths) == 1 and not file_ending(paths[0]):
        return pl.scan_parquet(paths[0].rstrip("/") + "/", hive_partitioning=True)
    return pl.scan_parquet(paths, glob=is_remote, hive_partitioning=is_remote, include_file_paths=file_column)


def _scan_ipc(paths: list[str], file_column: str | None) -> pl.LazyFrame:
    return pl.scan_ipc(paths, glob="://" in paths[0], hive_partitioning=False, include_file_paths=file_column)


def _scan_json(paths: list[str], file_column: str | None) -> pl.LazyFrame:
    return pl.scan_ndjson(paths, infer_schema_length=None, include_file_paths=file_column)


_SCANNERS: dict[str, Callable[[list[str], str | None], pl.LazyFrame]] = {
    "parquet": _scan_parquet,
    "ipc": _scan_ipc,
    "json": _scan_json,
}


def _scan_text(paths: list[str], names: Sequence[str] | None, file_column: str | None) -> Scan:
    """Scan text files with every column as text, so that types are decided on whole columns."""
    is_utf16 = _is_utf16(paths[0])
    lines = _first_lines(io.BytesIO(_as_utf8(paths[0])) if is_utf16 else paths[0])
    separator = _separator(lines, _SEPARATORS[file_ending(paths[0])])
    header = lines[0].split(separator) if lines else []

    def scan(sources: Any, file_column: str | None) -> pl.LazyFrame:
        if len(separator) == 1:
            return _renamed(_text_columns(sources, separator, names is None, file_column), names, file_column)
        return _renamed(_split_lines(sources, separator, header, names is None, file_column), names, file_column)

    def decoded() -> pl.LazyFrame:
        if file_column is None:
            return scan([io.BytesIO(_as_utf8(path)) for path in paths], None)
        # Files in memory have no path, so each gets its own.
        frames = {path: scan([io.BytesIO(_as_utf8(path))], None) for path in paths}
        return pl.concat([frame.with_columns(pl.lit(path).alias(file_column)) for path, frame in frames.items()])

    frame = decoded() if is_utf16 else scan(paths, file_column)
    return Scan(frame, frozenset(frame.collect_schema().names()) - {FILE}, decoded)


def _first_lines(source: Any) -> list[str]:
    lines = pl.scan_csv(
        source, separator=_NO_SEPARATOR, has_header=False, quote_char=None, infer_schema=False, encoding="utf8-lossy",
        n_rows=20,
    )  # fmt: skip
    try:
        return [line or "" for line in lines.collect().to_series()]
    except pl.exceptions.NoDataError:
        return []


def _separator(lines: Sequence[str], default: str) -> str:
    """Return the separator of the first lines: that of the file's ending if they have it, else the most frequent."""
    if not lines or default in lines[0]:
        return default
    candidates = ["::", "\t", ",", ";", "|"]
    frequency = {mark: min(line.count(mark) for line in lines if line) for mark in candidates}
    best = max(candidates, key=lambda mark: frequency[mark])
    return best if frequency[best] else default


def _text_columns(sources: Any, separator: str, has_header: bool, file_column: str | None) -> pl.LazyFrame:
    return pl.scan_csv(
        sources, separator=separator, has_header=has_header, infer_schema=False, include_file_paths=file_column
    )


def _split_lines(
    sources: Any, separator: str, header: Sequence[str], has_header: bool,
    file_column: str | None,
) -> pl.LazyFrame:  # fmt: skip
    """Scan files with a separator of several characters, which polars does not take, as lines, and split these."""
    lines = pl.scan_csv(
        sources, separator=_NO_SEPARATOR, has_header=False, quote_char=None, infer_schema=False,
        skip_rows=int(has_header), include_file_paths=file_column,
    )  # fmt: skip
    names = list(header) if has_header else [f"column_{index + 1}" for index in range(len(header))]
    fields = pl.nth(0).str.splitn(separator, len(names)).struct.rename_fields(names).alias("fields")
    return lines.select(fields, *([] if file_column is None else [file_column])).unnest("fields")


def _renamed(frame: pl.LazyFrame, names: Sequence[str] | None, file_column: str | None) -> pl.LazyFrame:
    """Name the columns as given; else without the type that RecBole writes behind a name, as in ``user_id:token``."""
    present = [name for name in frame.collect_schema().names() if name != file_column]
    if names is not None and len(names) != len(present):
        raise ConfigError(
            f"`columns` names {len(names)} columns, but the files have {len(present)}; name all, in their order."
        )
    plain = [re.sub(r":(token|float)(_seq)?$", "", name) for name in present]
    return frame.rename(dict(zip(present, plain if names is None else names, strict=True)))


def _is_utf16(path: str) -> bool:
    """Return whether a local file begins as UTF-16 text does, such as Excel writes."""
    if "://" in path:
        return False
    with Path(path).open("rb") as file:
        return file.read(2) in _UTF16_MARKS


def _as_utf8(path: str) -> bytes:
    """Return a text file that is not UTF-8 as UTF-8.

    Latin-1 gives every byte a character of its own, so two different ids stay different whatever the encoding was.
    """
    raw = Path(path).read_bytes()
    if path.lower().endswith(".gz"):
        raw = gzip.decompress(raw)
    encoding = "utf-16" if raw[:2] in _UTF16_MARKS else "latin-1"
    return raw.decode(encoding).encode()


def _hive_keys(paths: Sequence[str]) -> dict[str, list[str | None]]:
    """Return the values of each Hive key, as in ``date=2026-01-31/``, one for each path."""
    keys: dict[str, list[str | None]] = {}
    for index, path in enumerate(paths):
        for folder in Path(path).parts[:-1]:
            name, separator, value = folder.partition("=")
            if separator and name:
                values = keys.setdefault(unquote(name), [None] * len(paths))
                values[index] = None if value == _NO_VALUE else unquote(value)
    return keys


def _with_keys(scan: Scan, paths: Sequence[str], keys: dict[str, list[str | None]]) -> Scan:
    """Append Hive keys as columns of text; a column that the files have already stays as it is."""
    present = scan.frame.collect_schema().names()
    new = {name: values for name, values in keys.items() if name not in present}
    table = pl.LazyFrame({FILE: paths, **new}, schema=dict.fromkeys([FILE, *new], pl.String))

    def join(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame.join(table, on=FILE, how="left", maintain_order="left").drop(FILE)

    decoded = scan.decoded
    joined_decoded = decoded and (lambda: join(decoded()))
    return Scan(join(scan.frame), scan.text_columns | set(new), joined_decoded, scan.parquet, table.collect())
