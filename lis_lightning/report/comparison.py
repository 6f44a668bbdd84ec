"""Paired comparison of two recorded snapshots, of one run or of two."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lis_lightning.errors import ConfigError
from lis_lightning.functional.intervals import Estimate
from lis_lightning.report.runs import find_run
from lis_lightning.results.format import format_estimate, format_interval
from lis_lightning.results.record import FILENAME
from lis_lightning.results.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A snapshot of a recorded run.

    Attributes:
        name: Name of the run.
        snapshot: The snapshot.
        picked_from: Number of snapshots of which it is the best; 1 if it was named by its step.
    """

    name: str
    snapshot: Snapshot
    picked_from: int = 1


def choose_snapshot(words: str) -> Chosen:
    """Return the snapshot that a text names.

    Args:
        words: Folder of a run or its record, for the best snapshot; with ``@200``, ``@first`` or ``@last`` after it for
            another; or a file of saved representations, ``snapshots/step-00000200.safetensors``, beside its record.

    Raises:
        ConfigError: If there is no such run, more than one, or no snapshot of that step; or if the run was read from a
            file without per-user values.
        RecordError: If the record cannot be read.
    """
    place, at, which = words, "", ""
    if not Path(words).expanduser().exists():
        place, at, which = words.rpartition("@")
        place = place if at else words
    path = Path(place).expanduser()
    saved = re.fullmatch(r"step-(\d+)\.safetensors", path.name)
    if saved and path.exists():
        stem = path.parent.name.replace("snapshots", Path(FILENAME).stem, 1)
        path, which = path.parent.with_name(f"{stem}.jsonl"), saved[1]
    run = find_run(path)
    results = run.results
    if not which or which == "best":
        return Chosen(name=run.name, snapshot=run.best, picked_from=len(results))
    ends = {"first": results[0], "last": results[-1]}
    by_step = {str(result.step): result for result in results}
    key = which.lstrip("0") or which[-1:]
    if which not in ends and key not in by_step:
        steps = ", ".join(by_step)
        raise ConfigError(f"{run.name} has no snapshot {which!r}: expected best, first, last or a step of {steps}.")
    return Chosen(name=run.name, snapshot=ends.get(which) or by_step[key])


def compare_snapshots(first: Chosen, second: Chosen) -> Estimate:
    """Return AIS of the first snapshot minus that of the second, paired by user.

    Raises:
        ConfigError: If the two were scored on different splits.
    """
    hashes = [chosen.snapshot.split_hash for chosen in (first, second)]
    if hashes[0] != hashes[1]:
        raise ConfigError(
            "Two snapshots can be compared on one split only, since the comparison is paired by user: "
            f"{first.name} was scored on split {hashes[0]}, {second.name} on split {hashes[1]}. Score both "
            "representations on one split, with `lis-audit embeddings=...` or `split.score`."
        )
    return first.snapshot.compare(second.snapshot)


def comparison_text(first: Chosen, second: Chosen) -> str:
    """Return a paired comparison as text: both snapshots, their difference, z and p.

    Args:
        first: The snapshot that the other is subtracted from.
        second: The other.

    Raises:
        ConfigError: If the two were scored on different splits.
    """
    difference = compare_snapshots(first, second)
    titles = [f"{chosen.name}, step {chosen.snapshot.step}" for chosen in (first, second)]
    width = max(map(len, [*titles, "difference"]))
    lines = []
    for title, chosen in zip(titles, (first, second), strict=True):
        result = chosen.snapshot
        lines.append(f"{title:<{width}}   AIS {format_interval(result.ais, result.ais_low, result.ais_high)}")
    lines.append(f"{'difference':<{width}}       {format_estimate(difference)}, z {difference.z:.2f}")
    lines[-1] += f", two-sided p {difference.p:.2g}, paired by user"
    picked = [chosen for chosen in (first, second) if chosen.picked_from > 1]
    if picked:
        counts = " and ".join(f"{chosen.name}: of {chosen.picked_from}" for chosen in picked)
        lines.append(f"p does not account for the choice of the best snapshot ({counts}); @STEP names another.")
    return "\n".join(lines)
