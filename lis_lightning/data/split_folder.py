"""A preference split on disk: parquet files and a manifest, written by one job and read by many."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data.cutting import split_hash
from lis_lightning.data.events import Events, Log
from lis_lightning.data.slices import Slices
from lis_lightning.errors import ConfigError, LogError
from lis_lightning.functional.as_of_counts import AsOf
from lis_lightning.functional.sampling import is_withheld

if TYPE_CHECKING:
    from lis_lightning.data.split import PreferenceSplit

MANIFEST = "split.json"
FORMAT = 1  # of the files; another one cannot be read
_OWN = re.compile(r"split\.json|(items|users|alignment|histories)\.parquet|period_\d+")


def is_saved_split(source: Any) -> bool:
    """Return whether something is the path of a folder that :func:`save_split` wrote."""
    return isinstance(source, str | Path) and (Path(source).expanduser() / MANIFEST).is_file()


def checked_target(folder: str | Path) -> Path:
    """Return the absolute path of a folder to write to.

    Raises:
        ConfigError: If it holds anything but the files of a saved split, or cannot be made.
    """
    target = Path(folder).expanduser().resolve()
    ancestor = next(path for path in (target, *target.parents) if path.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise ConfigError(f"{str(folder)!r} cannot be written: {ancestor} is no folder that may be written to.")
    others = []
    if target.exists():
        others = sorted(path.name for path in target.iterdir() if not _OWN.fullmatch(path.name))
    if others:
        raise ConfigError(
            f"{str(folder)!r} exists and is not a saved split: it holds {', '.join(map(repr, others[:3]))}; choose an "
            "empty or new folder."
        )
    return target


def save_split(family: Mapping[str, Sequence[PreferenceSplit]], folder: str | Path) -> None:
    """Write the splits of all tasks and periods, all or nothing; an older saved split in the folder is replaced.

    Args:
        family: The splits of each task by period, the primary task first.
        folder: Where they go.

    Raises:
        ConfigError: If the folder holds other files.
    """
    target = checked_target(folder)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    periods = next(iter(family.values()))
    first = periods[0]
    pl.DataFrame({"id": first.log_item_ids}).write_parquet(partial / "items.parquet")
    pl.DataFrame({"id": first.log_user_ids}).write_parquet(partial / "users.parquet")
    first.alignment.write_parquet(partial / "alignment.parquet")
    history_labels = {f"label_{index}": splits[0].history_label for index, splits in enumerate(family.values())}
    pl.DataFrame({"item": first.history_item, **history_labels}).write_parquet(partial / "histories.parquet")
    for period in range(len(periods)):
        _write_period([splits[period] for splits in family.values()], partial / f"period_{period}")
    manifest = {
        "format": FORMAT,
        "settings": first.settings,
        "num_logged": first.num_logged,
        "num_sampled": first.num_sampled,
        "num_items": first.num_items,
        "num_users": first.num_users,
        "prior": {task: [split.prior for split in splits] for task, splits in family.items()},
        "hash": {task: [split.hash for split in splits] for task, splits in family.items()},
        "files": _checksums(partial),
    }
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2, default=_plain) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _write_period(splits: Sequence[PreferenceSplit], folder: Path) -> None:
    """Write the logs, scored events and slices of all tasks in one period."""
    folder.mkdir()
    log, events = splits[0].log, splits[0].events
    rows = {"user": log.user, "item": log.item, "time": log.time, "window": log.window}
    scored: dict[str, NDArray[Any]] = {
        "user": events.user,
        "item": events.item,
        "train": events.train,
        "start": events.start,
        "stop": events.stop,
        "unseen": events.unseen,
        "user_count": events.by_user.count,
        "item_count": events.by_item.count,
    }
    scored |= {} if events.weight is None else {"weight": events.weight}
    for index, split in enumerate(splits):
        rows[f"label_{index}"] = split.log.label
        scored |= {
            f"label_{index}": split.events.label,
            f"user_positives_{index}": split.events.by_user.positives,
            f"item_positives_{index}": split.events.by_item.positives,
        }
        scored |= {} if split.events.base_logit is None else {f"base_logit_{index}": split.events.base_logit}
    pl.DataFrame(rows).write_parquet(folder / "log.parquet")
    pl.DataFrame(scored).write_parquet(folder / "events.parquet")
    pl.DataFrame(dict(splits[0].slices)).write_parquet(folder / "slices.parquet")


def load_split(folder: str | Path, split_class: type[PreferenceSplit]) -> PreferenceSplit:
    """Return the split of the primary task in the first period; its `tasks` and `periods` lead to all others.

    Args:
        folder: As :func:`save_split` wrote it.
        split_class: The class of the splits.

    Raises:
        LogError: If it is no saved split, was written in another format, or has files that were lost or changed.
    """
    path = Path(folder).expanduser()
    if not is_saved_split(path):
        raise LogError(f"{str(folder)!r} is not a saved split: it has no {MANIFEST}. Cut one with `lis-cut`.")
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        saved_format, checksums = manifest["format"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LogError(f"{str(folder)!r} is not a saved split: its {MANIFEST} is of another kind.") from error
    if saved_format != FORMAT:
        raise LogError(
            f"{str(folder)!r} was saved in format {saved_format}, this version reads {FORMAT}; cut it again."
        )
    present = _checksums(path)
    changed = [name for name, checksum in checksums.items() if present.get(name) != checksum]
    if changed:
        raise LogError(f"The saved split {str(folder)!r} is damaged: {changed[0]} was lost or changed. Cut it again.")
    return _read(path, manifest, split_class)


def _read(path: Path, manifest: Mapping[str, Any], split_class: type[PreferenceSplit]) -> PreferenceSplit:
    settings = {name: _as_tuples(value) for name, value in manifest["settings"].items()}
    items = pl.read_parquet(path / "items.parquet")["id"].to_numpy(writable=True)
    users = pl.read_parquet(path / "users.parquet")["id"].to_numpy(writable=True)
    histories = pl.read_parquet(path / "histories.parquet")
    unseen = is_withheld(items, float(settings["unseen_items"]), settings["seed"])
    family: dict[str, tuple[PreferenceSplit, ...]] = {}
    shared = {
        "item_ids": items[: manifest["num_items"]],
        "user_ids": users[: manifest["num_users"]],
        "log_item_ids": items,
        "log_user_ids": users,
        "history_item": histories["item"].to_numpy(writable=True),
        "alignment": pl.read_parquet(path / "alignment.parquet"),
        "settings": settings,
        "num_logged": manifest["num_logged"],
        "num_sampled": manifest["num_sampled"],
        "_family": family,
    }
    num_periods = len(next(iter(manifest["hash"].values())))
    periods = [_SavedPeriod(path / f"period_{period}", users.size, items.size) for period in range(num_periods)]
    for index, (task, hashes) in enumerate(manifest["hash"].items()):
        labels = histories[f"label_{index}"].to_numpy(writable=True)
        splits = []
        for number, period in enumerate(periods):
            log, events = period.of_task(index)
            if split_hash(log, items, unseen, events, settings) != hashes[number]:
                raise LogError(
                    f"The saved split {str(path)!r} was cut by another version: its hash differs. Cut it again."
                )
            splits.append(
                split_class(
                    log=log,
                    events=events,
                    history_label=labels,
                    prior=manifest["prior"][task][number],
                    slices=period.slices,
                    task=task,
                    period=number,
                    hash=hashes[number],
                    **shared,
                )
            )
        family[task] = tuple(splits)
    return next(iter(family.values()))[0]


class _SavedPeriod:
    """The files of one period, whose arrays all tasks share except for what a label decides."""

    def __init__(self, folder: Path, num_users: int, num_items: int) -> None:
        self._rows = _arrays(folder / "log.parquet")
        self._scored = _arrays(folder / "events.parquet")
        self._num_users, self._num_items = num_users, num_items
        self.slices: Slices = _arrays(folder / "slices.parquet")

    def of_task(self, index: int) -> tuple[Log, Events]:
        """Return the log and the scored events of a task by its number."""
        rows, scored = self._rows, self._scored
        shared = {name: scored[name] for name in ("user", "item", "train", "start", "stop", "unseen")}
        log_columns = {name: rows[name] for name in ("user", "item", "time", "window")}
        events = Events(
            **shared,
            label=scored[f"label_{index}"],
            by_user=AsOf(scored["user_count"], scored[f"user_positives_{index}"]),
            by_item=AsOf(scored["item_count"], scored[f"item_positives_{index}"]),
            base_logit=scored.get(f"base_logit_{index}"),
            weight=scored.get("weight"),
        )
        label = rows[f"label_{index}"]
        log = Log(**log_columns, label=label, num_users=self._num_users, num_items=self._num_items)
        return log, events


def _checksums(folder: Path) -> dict[str, str]:
    """Return the checksum of each parquet file below a folder, by its path within it."""
    checksums = {}
    for path in sorted(folder.rglob("*.parquet")):
        with path.open("rb") as file:
            checksums[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return checksums


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    return {column.name: column.to_numpy(writable=True) for column in pl.read_parquet(path)}


def _plain(value: Any) -> Any:
    """Return a value of the settings that JSON does not have: a NumPy number, or a date as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _as_tuples(value: Any) -> Any:
    """Return lists as the tuples that the settings had, since JSON has no tuples."""
    if isinstance(value, list):
        return tuple(map(_as_tuples, value))
    return {name: _as_tuples(entry) for name, entry in value.items()} if isinstance(value, dict) else value
