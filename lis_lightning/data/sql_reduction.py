"""Reduction of a log where it is: window edges, the rows of a sample of whole users, and counts of their items.

A few aggregates move to the log, so that only 1e5 to 1e7 rows move to us. All are exact, and the same on every engine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lis_lightning.data.sql_engines import LOG
from lis_lightning.data.sql_log import MOST_VALUES, NUM_BUCKETS, SqlLog, literal, total
from lis_lightning.data.whole_log import check_windows, edge_ranks, given_edges, sampled_users, smallest_head_count
from lis_lightning.functional.as_of_counts import AsOf
from lis_lightning.functional.sampling import stable_hashes

MARGIN = 1.1  # users are fetched for a somewhat larger share than needed, so that one query is mostly enough


class LogInDatabase:
    """The whole log, reduced where it is.

    Args:
        log: Its columns.
        settings: Arguments of ``PreferenceSplit.from_log``.
        progress: Called with a description of each step that is done.

    Raises:
        LogError: If a window holds no event.
        ConfigError: If given edges are not ascending.
    """

    def __init__(self, log: SqlLog, settings: Mapping[str, Any], progress: Callable[[str], None]) -> None:
        self._log, self._settings, self._progress = log, settings, progress
        self.num_events = log.num_events
        ranks = edge_ranks(settings["windows"], settings["num_periods"], log.num_events)
        if ranks is None:
            self.edges = given_edges(settings["windows"], log.first_and_last)
        else:
            self.edges = order_statistics(log, ranks, *log.first_and_last)
        self._sizes = _window_sizes(log, self.edges)
        check_windows(self._sizes, self.edges, log.first_and_last, settings)
        progress(f"windows begin at {' and '.join(map(str, self.edges))}")

    def sampled_rows(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return all rows of the sampled users.

        Args:
            columns: Columns of the log.
        """
        log, users = self._log, self._sampled_users()
        self._progress(f"{users.len():,} users sampled")
        selected = []
        for column in dict.fromkeys(columns):
            kind, name = log.engine.columns[column], log.engine.name(column)
            plain = kind in {"integer", "float", "text", "boolean", "date", "moment", "local moment"}
            selected.append(name if plain else f"CAST({name} AS STRING) AS {name}")
        keys = log.engine.upload("users", users.rename("id").to_frame())
        rows = log.engine.query(f"SELECT {', '.join(selected)} FROM {LOG} WHERE {log.user} IN (SELECT id FROM {keys})")
        self._progress(f"{rows.height:,} of {log.num_events:,} events read")
        return rows

    def _sampled_users(self) -> pl.Series:
        """Return the ids of the users to keep."""
        settings = self._settings
        budgets = {name: settings[name] for name in ("max_events", "max_alignment_events")}
        sizes = {"max_events": self._sizes[1:].sum(), "max_alignment_events": self._sizes[0]}
        share = max(1.0 if budget is None else budget / sizes[name] for name, budget in budgets.items())
        while True:
            share *= MARGIN
            users = self._users_of_share(min(share, 1.0))
            chosen = sampled_users(
                np.arange(users.height), users["early"].to_numpy(), users["late"].to_numpy(), **budgets
            )
            # The sample is complete if it ends before the users that were fetched do.
            if share >= 1 or (users.height and not chosen[-1]):
                return users["id"].filter(pl.Series(chosen))
            share *= 2

    def _users_of_share(self, share: float) -> pl.DataFrame:
        """Return ids, early and late events of the users whose hash is in the first share of all hashes, by hash."""
        log, edge = self._log, literal(self.edges[0])
        late = f"CASE WHEN {log.time} >= {edge} THEN 1 ELSE 0 END"
        hashed = f"md5(concat('user:{self._settings['seed']}:', CAST(id AS STRING)))"
        below = f" WHERE {hashed} < '{int(share * 2**64):016x}'" if share < 1 else ""
        counts = f"{log.user} AS id, {total(late)} AS late, CAST(count(*) AS BIGINT) AS n"
        by_user = f"SELECT {counts} FROM {LOG} GROUP BY {log.user}"
        users = log.engine.query(f"SELECT id, late, n - late AS early FROM ({by_user}) users{below}").sort("id")
        hashes = stable_hashes(users["id"].to_numpy(), f"user:{self._settings['seed']}")
        return users[np.argsort(hashes, kind="stable")]

    def items_before(self, item_ids: NDArray[Any], times: NDArray[Any]) -> dict[str, AsOf]:
        """Return for each task the counts of the strictly earlier events of items, one for each id and timestamp.

        Counted in two levels, so that an item with most of the events is not one partition: first by item and bucket of
        time, then by timestamp within the buckets that are asked for.
        """
        log = self._log
        bucket, sums = log.bucket(*log.first_and_last), log.label_sums()
        pairs = pl.DataFrame({"i": item_ids, "t": times})
        asked = pairs.unique()
        uploaded = log.engine.upload("asked", asked)
        count = {"n": "CAST(count(*) AS BIGINT)", **sums}
        by_bucket = log.aggregate(
            {"i": log.item, "b": bucket, **count},
            where=f"{log.item} IN (SELECT i FROM {uploaded})",
            group_by=["i", "b"],
        )
        low, high = log.first_and_last
        width = max((float(high) - float(low)) / NUM_BUCKETS, 1e-300)
        asked = asked.with_columns(b=((pl.col("t") - low).cast(pl.Float64) / width).floor().cast(pl.Int64))
        cells = log.engine.upload("cells", asked.select("i", "b").unique())
        columns = ", ".join(f"{expression} AS {name}" for name, expression in count.items())
        by_time = log.engine.query(
            f"SELECT {log.item} AS i, {bucket} AS b, {log.time} AS t, {columns} FROM {LOG} JOIN {cells} AS cells ON "
            f"{log.item} = cells.i AND {bucket} = cells.b GROUP BY {log.item}, {bucket}, {log.time}"
        )
        self._progress(f"events of {asked['i'].n_unique():,} items counted")
        before = _earlier(asked, by_bucket, by_time, list(count))
        counts = pairs.join(before, on=["i", "t"], how="left", maintain_order="left")
        number = counts["n"].to_numpy()
        return {task: AsOf(number, counts[name].to_numpy()) for task, name in zip(log.labels, sums, strict=True)}

    def head_count(self, edge: Any) -> int:
        """Return the smallest number of events before a timestamp of a head item."""
        log = self._log
        by_item = (
            f"SELECT CAST(count(*) AS BIGINT) AS n FROM {LOG} WHERE {log.time} < {literal(edge)} GROUP BY {log.item}"
        )
        counts = log.engine.query(
            f"SELECT n, CAST(count(*) AS BIGINT) AS items FROM ({by_item}) by_item GROUP BY n"
        ).sort("n")
        return smallest_head_count(counts["n"].to_numpy(), counts["items"].to_numpy())


def order_statistics(log: SqlLog, ranks: NDArray[np.int64], low: Any, high: Any) -> NDArray[Any]:
    """Return the timestamps of the given ranks, exactly: counts by bucket, then by timestamp within one.

    Args:
        log: The log.
        ranks: Ranks, from 0, among the timestamps from `low` to `high`.
        low: Smallest timestamp.
        high: Largest timestamp.
    """
    within = f"{log.time} >= {literal(low)} AND {log.time} <= {literal(high)}"
    count = "CAST(count(*) AS BIGINT)"
    buckets = {"b": log.bucket(low, high), "n": count, "first": f"min({log.time})", "last": f"max({log.time})"}
    table = log.aggregate(buckets, where=within, group_by=["b"]).sort("b")
    ends = np.cumsum(table["n"].to_numpy())
    bucket_of_rank = np.searchsorted(ends, ranks, side="right")
    statistics: dict[int, Any] = {}
    for bucket in np.unique(bucket_of_rank):
        number, first, last = table.select("n", "first", "last").row(int(bucket))
        inside = ranks[bucket_of_rank == bucket]
        offsets = inside - (ends[bucket] - number)
        if first == last:
            values = np.full(offsets.size, first)
        elif number > MOST_VALUES:
            values = order_statistics(log, offsets, first, last)
        else:
            between = f"{log.time} >= {literal(first)} AND {log.time} <= {literal(last)}"
            distinct = log.aggregate({"t": log.time, "n": count}, where=between, group_by=["t"]).sort("t")
            position = np.searchsorted(np.cumsum(distinct["n"].to_numpy()), offsets, side="right")
            values = distinct["t"].to_numpy()[position]
        statistics |= dict(zip(inside.tolist(), values.tolist(), strict=True))
    return np.array([statistics[rank] for rank in ranks.tolist()])


def _window_sizes(log: SqlLog, edges: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of events in each window."""
    late = {
        f"n{index}": total(f"CASE WHEN {log.time} >= {literal(edge)} THEN 1 ELSE 0 END")
        for index, edge in enumerate(edges)
    }
    since = np.array([log.num_events, *log.aggregate(late).row(0), 0], np.int64)
    return since[:-1] - since[1:]


def _earlier(asked: pl.DataFrame, by_bucket: pl.DataFrame, by_time: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return the counts of earlier events of each item and timestamp asked for.

    Args:
        asked: Columns i (item), t (timestamp) and b (its bucket).
        by_bucket: Counts by i and b.
        by_time: Counts by i, b and t, in the buckets of `asked`.
        names: Names of the counts.
    """
    # The bucket before, and the timestamp before within the bucket: running totals less their own.
    zero = [pl.lit(0, pl.Int64).alias(name) for name in names]
    buckets = pl.concat([by_bucket, asked.select("i", "b").unique().with_columns(zero)], how="diagonal")
    buckets = buckets.group_by("i", "b").agg(pl.col(names).sum()).sort("i", "b")
    buckets = buckets.with_columns((pl.col(name).cum_sum() - pl.col(name)).over("i") for name in names)
    times = pl.concat([by_time, asked.select("i", "b", "t").with_columns(zero)], how="diagonal")
    times = times.group_by("i", "b", "t").agg(pl.col(names).sum()).sort("i", "t")
    times = times.with_columns((pl.col(name).cum_sum() - pl.col(name)).over("i", "b") for name in names)
    joined = asked.join(buckets, on=["i", "b"]).join(times, on=["i", "b", "t"], suffix="_within")
    return joined.select("i", "t", *(pl.col(name) + pl.col(f"{name}_within") for name in names))


def reporter() -> Callable[[str], None]:
    """Return what prints steps with the seconds since now to standard error, whether or not it is a terminal."""
    began = time.monotonic()

    def report(step: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.0f} s] log: {step}\n")
        sys.stderr.flush()

    return report
