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
from lis_lightning.data.sql_log import COUNT, MOST_VALUES, NUM_BUCKETS, SqlLog, bucket_width, literal, total
from lis_lightning.data.whole_log import check_windows, edge_ranks, given_edges, sampled_users, smallest_head_count
from lis_lightning.functional.as_of_counts import AsOf
from lis_lightning.functional.sampling import stable_hashes

COARSE_BUCKETS = 64  # each of NUM_BUCKETS / 64 fine ones: a power of two, so that the edges of both agree exactly
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
            plain = kind in {"integer", "unsigned", "float", "text", "boolean", "date", "moment", "local moment"}
            selected.append(name if plain else f"CAST({name} AS STRING) AS {name}")
        keys = log.engine.upload("users", users.rename("lis_user").to_frame())
        rows = log.engine.query(
            f"SELECT {', '.join(selected)} FROM {LOG} WHERE {log.user} IN (SELECT lis_user FROM {keys})"
        )
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
        hashed = f"md5(concat('user:{self._settings['seed']}:', CAST({log.user} AS STRING)))"
        below = f"{hashed} < '{int(share * 2**64):016x}'" if share < 1 else ""
        users = log.aggregate({"late": total(late), "n": COUNT}, by={"id": log.user}, where=below)
        users = users.select("id", "late", early=pl.col("n") - pl.col("late")).sort("id")
        hashes = stable_hashes(users["id"].to_numpy(), f"user:{self._settings['seed']}")
        return users[np.argsort(hashes, kind="stable")]

    def items_before(self, item_ids: NDArray[Any], times: NDArray[Any]) -> dict[str, AsOf]:
        """Return for each task the counts of the strictly earlier events of items, one for each id and timestamp.

        Counted in three levels, so that neither an item with most of the events nor one with many timestamps asked for
        is much work: by item and coarse bucket of time, by fine bucket within the coarse ones that are asked for, and
        one by one within the fine ones.
        """
        log, upload = self._log, self._log.engine.upload
        # Engines count by 64-bit integers, whatever the width of a column.
        wide = [pl.col(pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32).cast(pl.Int64)]
        pairs = pl.DataFrame({"lis_item": item_ids, "lis_time": times}).with_columns(wide)
        low, high = log.first_and_last
        asked = _with_buckets(pairs.unique(), low, high)
        items = upload("items", asked.select("lis_item").unique())
        cells = upload("cells", asked.select("lis_item", "lis_coarse").unique())
        fine, coarse = log.bucket(low, high), log.bucket(low, high, COARSE_BUCKETS)
        counts = {"n": COUNT, **log.label_sums()}
        by_coarse = log.aggregate(
            counts,
            by={"lis_item": log.item, "lis_coarse": coarse},
            where=f"{log.item} IN (SELECT lis_item FROM {items})",
        )
        by_fine = log.aggregate(
            counts,
            by={"lis_item": log.item, "lis_coarse": coarse, "lis_fine": fine},
            join=f"{cells} AS cells ON {log.item} = lis_item AND {coarse} = lis_coarse",
        )
        by_time = log.aggregate(
            counts,
            by={"lis_item": "lis_item", "lis_time": "lis_time"},
            join=f"{upload('asked', asked)} AS asked ON {log.item} = lis_item AND {fine} = lis_fine",
            where=f"{log.time} < lis_time",
        )
        self._progress(f"events of {asked['lis_item'].n_unique():,} items counted")
        names = list(counts)
        levels = [
            _earlier(asked, by_coarse, ["lis_item"], "lis_coarse", names),
            _earlier(asked, by_fine, ["lis_item", "lis_coarse"], "lis_fine", names),
            by_time.select(*pairs.columns, *names),
        ]
        before = pl.concat(levels).group_by(pairs.columns).agg(pl.col(names).sum())
        values = pairs.join(before, on=pairs.columns, how="left", maintain_order="left").select(names).to_dict()
        number, *positives = [column.to_numpy() for column in values.values()]
        return {task: AsOf(number, of_task) for task, of_task in zip(log.labels, positives, strict=True)}

    def head_count(self, edge: Any) -> int:
        """Return the smallest number of events before a timestamp of a head item."""
        log = self._log
        by_item = f"SELECT {COUNT} AS n FROM {LOG} WHERE {log.time} < {literal(edge)} GROUP BY {log.item}"
        counts = log.engine.query(f"SELECT n, {COUNT} AS items FROM ({by_item}) by_item GROUP BY n").sort("n")
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
    buckets = {"n": COUNT, "first": f"min({log.time})", "last": f"max({log.time})"}
    table = log.aggregate(buckets, by={"b": log.bucket(low, high)}, where=within).sort("b")
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
            distinct = log.aggregate({"n": COUNT}, by={"t": log.time}, where=between).sort("t")
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


def _with_buckets(asked: pl.DataFrame, low: Any, high: Any) -> pl.DataFrame:
    """Append the fine and coarse bucket of each timestamp, computed as in :meth:`SqlLog.bucket`."""
    fine = ((pl.col("lis_time") - low).cast(pl.Float64) / bucket_width(low, high)).floor().cast(pl.Int64)
    return asked.with_columns(lis_fine=fine).with_columns(
        lis_coarse=pl.col("lis_fine") // (NUM_BUCKETS // COARSE_BUCKETS)
    )


def _earlier(
    asked: pl.DataFrame, table: pl.DataFrame, within: Sequence[str], bucket: str, names: Sequence[str]
) -> pl.DataFrame:
    """Return the counts of the earlier buckets for each item and timestamp asked for.

    Args:
        asked: Columns lis_item, lis_time, `within` and `bucket`.
        table: Counts by `within` and `bucket`.
        within: Columns whose values a total does not cross.
        bucket: Column of the number of the bucket.
        names: Names of the counts.
    """
    keys = [*within, bucket]
    zeros = asked.select(keys).unique().with_columns(pl.lit(0, pl.Int64).alias(name) for name in names)
    totals = pl.concat([table.select(*keys, *names), zeros]).group_by(keys).agg(pl.col(names).sum()).sort(keys)
    totals = totals.with_columns((pl.col(name).cum_sum() - pl.col(name)).over(within) for name in names)
    return asked.join(totals, on=keys).select("lis_item", "lis_time", *names)


def reporter() -> Callable[[str], None]:
    """Return what prints steps with the seconds since now to standard error, whether or not it is a terminal."""
    began = time.monotonic()

    def report(step: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.0f} s] log: {step}\n")
        sys.stderr.flush()

    return report
