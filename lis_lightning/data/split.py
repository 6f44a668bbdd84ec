"""The validation preference split: an interaction log cut in time, with the history and counts before each event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from lis_lightning.data.alignment_check import check_alignment
from lis_lightning.data.columns import Label
from lis_lightning.data.cutting import cut_log
from lis_lightning.data.events import Events, Log
from lis_lightning.data.split_folder import load_split, save_split
from lis_lightning.data.tables import Table
from lis_lightning.data.times import Time
from lis_lightning.errors import ShapeError

if TYPE_CHECKING:
    from lis_lightning.results.result import LISResult

Windows = tuple[float, float, float] | tuple[Any, Any] | Literal["rolling"]
MEMO = "_memo"  # attribute of a split in which scoring caches what it computed; freed with the split, not pickled


@dataclass(frozen=True, eq=False)
class PreferenceSplit:
    """A log cut into an alignment window, a probe-train window and a probe-test window.

    Created by :meth:`from_log`. It holds everything that scoring needs: a score is a function of the split and of a
    matrix of item representations R. With several labels there is one split per task, with rolling windows one per
    period; `tasks` and `periods` lead from each split to the others. All of them share item_ids, user_ids, alignment
    and histories, so the items are encoded once for all.

    Attributes:
        item_ids: Ids of the items that must be encoded, in the order of R's rows: the targets of scored events and
            the items of their histories.
        user_ids: Ids of the users whose events are scored.
        log: All events up to the end of w2.
        log_item_ids: Ids of all items of the log; the first ``num_items`` are `item_ids`.
        log_user_ids: Ids of all users of the log; the first ``num_users`` are `user_ids`.
        events: The scored events.
        history_item: Rows of R of the scored users' events, sorted by user, then time.
        history_label: Their labels.
        alignment: The events of w0 without the unseen items: the only events that alignment may see, in every task
            and period. Users, items and timestamps have the names and types of the log; then ``label`` (0/1, of the
            primary task), one by the name of each other task, and ``drawn`` (whether it is a drawn negative).
        prior: Positive rate before w1; as-of rates are smoothed towards it.
        slices: Groups of the scored events by name, [num_events] each: seen and unseen items (withheld from
            alignment), head and tail items (head: the most frequent items with 80 % of the events before w1), new
            items and known and new users (new: without an event before w1), and ``column=value`` for each slice column.
        task: Name of the label.
        period: Number of the pair of windows, from 0.
        settings: The arguments of :meth:`from_log`.
        num_logged: Number of events of the whole log.
        num_sampled: Number of those of the sample of users that everything but the counts of items is taken from; all
            of them if the budgets hold the log.
        hash: Hash of all values that a score depends on; only results with equal hashes can be compared.

    Example:
        >>> import polars as pl
        >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
        ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
        >>> split = PreferenceSplit.from_log(log)
        >>> split.num_users, split.num_items
        (2, 4)
    """

    item_ids: NDArray[Any]
    user_ids: NDArray[Any]
    log: Log = field(repr=False)
    log_item_ids: NDArray[Any] = field(repr=False)
    log_user_ids: NDArray[Any] = field(repr=False)
    events: Events = field(repr=False)
    history_item: NDArray[np.int64] = field(repr=False)
    history_label: NDArray[np.int8] = field(repr=False)
    alignment: pl.DataFrame = field(repr=False)
    prior: float
    slices: Mapping[str, NDArray[np.bool_]] = field(repr=False)
    task: str
    period: int
    settings: dict[str, Any]
    hash: str
    num_logged: int
    num_sampled: int
    _family: Mapping[str, tuple[PreferenceSplit, ...]] = field(repr=False)

    @property
    def tasks(self) -> dict[str, PreferenceSplit]:
        """The splits of all labels in this period by name, this one included, the primary one first."""
        return {task: periods[self.period] for task, periods in self._family.items()}

    @property
    def tested(self) -> NDArray[np.bool_]:
        """Which scored events a gain is measured on, [num_events].

        Those of w1, out of fold, and of w2: twice the events of w2 alone. Where windows roll, those of w2 only, so that
        no two periods share one.
        """
        return ~self.events.train if self.periods else np.ones(len(self.events), bool)

    @property
    def periods(self) -> tuple[PreferenceSplit, ...]:
        """The splits of this label in all periods, this one included, oldest first; empty unless windows roll."""
        return self._family[self.task] if self.settings["windows"] == "rolling" else ()

    @property
    def num_items(self) -> int:
        """Number of items that must be encoded."""
        return int(self.item_ids.size)

    @property
    def num_users(self) -> int:
        """Number of users whose events are scored."""
        return int(self.user_ids.size)

    @classmethod
    def from_log(
        cls,
        log: str | Path | Sequence[str | Path] | Table,
        *,
        user: str = "user_id",
        item: str = "item_id",
        time: Time = "timestamp",
        label: Label | Sequence[str] | Mapping[str, Label] = "label",
        weight: str | None = None,
        slices: Sequence[str] = (),
        windows: Windows = (0.50, 0.25, 0.25),
        num_periods: int = 5,
        history: int = 50,
        max_events: int | None = 50_000,
        max_items: int | None = None,
        max_alignment_events: int | None = 2_000_000,
        unseen_items: float = 0.2,
        negatives: int = 0,
        base_logit: str | Mapping[str, str] | None = None,
        seed: int = 0,
        columns: Sequence[str] | None = None,
        memory_limit: str | None = None,
    ) -> PreferenceSplit:
        """Cut an interaction log.

        Args:
            log: One row an event: files (parquet, CSV and other separated text, JSON lines, Arrow; also ``.gz`` and
                ``.zst`` text) as a path, list of paths, folder (Hive keys become columns), glob or ``s3://`` URL; a
                polars, pandas or Arrow table; or what is in a database: a DuckDB relation or a Spark data frame. A log
                in an object store that does not fit in memory is a relation: ``duckdb.sql("FROM 's3://...'")``.
            user: Column of user ids (integers or strings; with leading zeros they stay text).
            item: Column of item ids.
            time: Column of timestamps: numbers of one unit, dates, datetimes, or digits such as 20260131235959; or the
                column and the format of its text, as in ``("when", "%m/%d/%Y")``.
            label: Column of 0/1 labels, ``(column, threshold)`` for "at or above", ``(column, "buy")`` for "equal to",
                or None if every row is a positive (as without the column, where `negatives` are drawn). Several tasks:
                a list of columns, or a mapping of names to any of these; the first is the primary one.
            weight: Column of event weights (dwell time, bid value), at least 0: a weighted AUC then counts each pair of
                a positive and a negative with the product of their weights.
            slices: Categorical columns that events are grouped by; the 12 most frequent values of the test events get
                a slice each, the others share ``column=(other)``, missing ones are ``column=(none)``. A drawn negative
                takes the value of its item where the item decides it, else that of the positive.
            windows: Shares of the events, by time, of w0, w1 and w2; or the two timestamps at which w1 and w2 begin;
                or ``"rolling"``: w0 is the first half, the second is cut into `num_periods` + 1 parts of equal numbers
                of events, and each two successive parts are w1 and w2 of one period.
            num_periods: Number of pairs of windows where they roll, at least 2.
            history: Largest number of strictly earlier events of the user, the most recent ones, in a history.
            max_events: Largest number of scored events (those after w0, of all periods together); whole users are
                sampled up to it.
            max_items: Largest number of items that must be encoded; whole users are sampled up to it.
            max_alignment_events: Largest number of events before w1 that alignment data and ceilings are built from;
                whole users are sampled up to it. A larger log is reduced where it is, and counts of items are those of
                the whole log.
            unseen_items: Share of the items that is withheld from alignment, in order to detect memorisation.
            negatives: For a log of positives only: negatives for each positive, drawn from what other users engaged
                with in the same period (the same day, where the unit of time is known).
            base_logit: Column with a production ranker's logit for each event; None builds a base. With several tasks
                a mapping of tasks to columns; tasks left out get the built-in base.
            seed: Seed of the sampling of users, unseen items and negatives.
            columns: Names of all columns, for text files without a header.
            memory_limit: Memory that DuckDB may use to reduce parquet files, such as ``"4GB"``; the rest goes to disk.

        Raises:
            LogError: If a column is missing, labels are not binary, timestamps are missing or mix units, a window is
                empty, or holds one user or one class of a task, weights are negative or those of a class all zero, or
                a base logit is constant or tells the classes apart without an error.
            ConfigError: If an argument is out of range, or two do not go together.

        Warns:
            LisWarning: If many rows are repeated, or a base logit looks like a probability or has the wrong sign.

        Example:
            >>> import polars as pl
            >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
            ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
            >>> split = PreferenceSplit.from_log(log)
            >>> split.num_items, len(split.events)
            (4, 20)
        """
        return cut_log(
            log,
            {
                "user": user, "item": item, "time": time, "label": label, "weight": weight, "slices": slices,
                "windows": windows, "num_periods": num_periods, "history": history, "max_events": max_events,
                "max_items": max_items, "max_alignment_events": max_alignment_events, "unseen_items": unseen_items,
                "negatives": negatives, "base_logit": base_logit, "seed": seed, "memory_limit": memory_limit,
            },
            cls,
            names=columns,
        )  # fmt: skip

    def save(self, folder: str | Path) -> None:
        """Write the split, with all its tasks and periods, for jobs that then need no log.

        An older saved split in the folder is replaced. An interrupted save leaves the folder as it was.

        Args:
            folder: A new or empty folder, or that of a saved split.

        Raises:
            ConfigError: If the folder holds other files.

        Example:
            >>> import tempfile
            >>> import polars as pl
            >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
            ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
            >>> split = PreferenceSplit.from_log(log)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     split.save(f"{folder}/split")
            ...     PreferenceSplit.load(f"{folder}/split").hash == split.hash
            True
        """
        save_split(self._family, folder)

    @classmethod
    def load(cls, folder: str | Path) -> PreferenceSplit:
        """Return a saved split: that of the primary task in the first period.

        Args:
            folder: As :meth:`save` wrote it.

        Raises:
            LogError: If it is no saved split, was written in another format, or has files that were lost or changed.
        """
        return load_split(folder, cls)

    def check_alignment(
        self, pairs: str | Path | Table, *, items: Sequence[str] | None = None, time: Time | None = None
    ) -> None:
        """Check that what you train on holds nothing of the evaluation: no withheld or future item, no later event.

        Items that the log does not have are no evidence of either.

        Args:
            pairs: Your training data, files or a table as in :meth:`from_log`.
            items: Its columns of item ids; None for all columns but `time`.
            time: Its column of timestamps, in the unit of the log; None if it has none.

        Raises:
            LogError: If rows have items that are withheld from alignment or first occur in w1 or w2, or timestamps in
                w1 or w2; the message counts them.

        Example:
            >>> import polars as pl
            >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
            ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
            >>> split = PreferenceSplit.from_log(log, unseen_items=0)
            >>> split.check_alignment(pl.DataFrame({"item": [0, 1], "at": [3, 30]}), items=["item"], time="at")
            Traceback (most recent call last):
            ...
            lis_lightning.errors.LogError: 1 of 2 rows are of w1 or w2, which begin at 20; train on what is before.
        """
        check_alignment(self, pairs, items, time)

    def user_folds(self, num_folds: int = 5) -> pl.DataFrame:
        """Return the cross-fitting fold of each scored user: folds of equal size, drawn with the seed of the split.

        Vectors that are leaked to a user's events must be built without the users of that user's fold. Users that are
        not scored are in no fold; they may be used for all vectors.

        Args:
            num_folds: Number of folds; ceilings use 5.

        Returns:
            Columns ``user`` (ids as in the log, in the order of `user_ids`) and ``fold``, in ``[0, num_folds)``.
        """
        rng = np.random.default_rng([self.settings["seed"], num_folds])
        return pl.DataFrame({"user": self.user_ids, "fold": rng.permutation(self.num_users) % num_folds})

    def item_rows(self, item_ids: ArrayLike) -> NDArray[np.int64]:
        """Return the row of R of each id; -1 for ids that are not in the split.

        Args:
            item_ids: Item ids, integers or strings as in the log.

        Raises:
            ShapeError: If the ids are integers and those of the log strings, or vice versa.
        """
        ids = np.asarray(item_ids).ravel()
        numeric = self.item_ids.dtype.kind in "iu"
        if ids.size and (ids.dtype.kind in "iu") != numeric:
            expected = "integers" if numeric else "strings"
            raise ShapeError(
                f"Item ids of the split are {expected} (such as {self.item_ids[0]!r}), got {ids.dtype} (such as "
                f"{ids[0]!r}); use the ids of the interaction log."
            )
        order, sorted_ids = self._sorted_ids
        position = np.minimum(np.searchsorted(sorted_ids, ids), self.num_items - 1)
        return np.where(sorted_ids[position] == ids, order[position], -1)

    @cached_property
    def _sorted_ids(self) -> tuple[NDArray[np.int64], NDArray[Any]]:
        order = np.argsort(self.item_ids)
        return order, self.item_ids[order]

    def score(self, embeddings: ArrayLike, **options: Any) -> LISResult:
        """Score item representations: their AUC gain (AIS) and the ceilings of preference data (LIS).

        Args:
            embeddings: [num_items, dim], rows in the order of the split's `item_ids`; or rows of any items in any
                order, with ``item_ids=`` their ids.
            **options: `item_ids`, `missing` and `cache_dir` of :func:`lis_lightning.scoring.score`, and the fields of
                :class:`lis_lightning.scoring.ScoreOptions`.

        Example:
            >>> import numpy as np
            >>> import polars as pl
            >>> log = pl.DataFrame({"user_id": [0, 1] * 20, "item_id": [0, 1, 2, 3] * 10,
            ...                     "timestamp": range(40), "label": [0, 1, 1, 0, 0] * 8})
            >>> PreferenceSplit.from_log(log).score(np.ones((4, 2)), ceilings=(), cache_dir="off").ais
            0.0
        """
        from lis_lightning.scoring.scorer import score

        return score(self, embeddings, **options)

    def describe(self) -> dict[str, Any]:
        """Return sizes, rates and the smallest detectable gain as plain values; `print(split)` shows them.

        This does not use the cache on disk; ``Scorer(split).describe()`` does.
        """
        from lis_lightning.scoring.scorer import Scorer

        return Scorer(self, cache_dir="off").describe()

    def __deepcopy__(self, memo: dict[int, Any]) -> PreferenceSplit:
        return self  # splits are immutable

    def __getstate__(self) -> dict[str, Any]:
        # Cached values are not pickled: an equal split finds them again by its hash.
        return {name: value for name, value in vars(self).items() if name != MEMO}

    def __str__(self) -> str:
        from lis_lightning.scoring.scorer import Scorer

        return Scorer(self, cache_dir="off").summary()
