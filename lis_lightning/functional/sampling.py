"""Random samples of a log: whole users within a budget, and negatives that could have been shown."""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Bool, Int, Int64, UInt64
from numpy import ndarray
from numpy.typing import ArrayLike


def stable_hashes(ids: ArrayLike, salt: str) -> UInt64[ndarray, " n"]:
    """Return the first 64 bits of the MD5 digest of ``salt:id`` of each id, as text.

    They are the same on every machine and in every query engine (``substr(md5(concat('salt:', id)), 1, 16)``), and do
    not depend on the other ids: a sample by hash stays the same when a log grows.

    Args:
        ids: Integers or strings.
        salt: Makes hashes for different uses independent.

    Example:
        >>> stable_hashes([7, 8], "user:0").tolist()
        [404300070241012566, 7804220153401348912]
    """
    digests = [
        hashlib.md5(f"{salt}:{key}".encode(), usedforsecurity=False).digest() for key in np.asarray(ids).tolist()
    ]
    return np.frombuffer(b"".join(digests), ">u8")[::2].astype(np.uint64)


def is_withheld(item_ids: ArrayLike, share: float, seed: int) -> Bool[ndarray, " n"]:
    """Return which items are withheld from alignment: those whose hash is in the first `share` of all hashes.

    In SQL: ``substr(md5(concat('item:<seed>:', item_id)), 1, 16) < '<share * 2^64 as 16 hex digits>'``.

    Args:
        item_ids: Integers or strings.
        share: Share of the items, in [0, 1).
        seed: Seed of the split.

    Example:
        >>> is_withheld(["cup", "mug", "pen"], share=0.5, seed=0).tolist()
        [True, False, False]
    """
    withheld: ndarray = stable_hashes(item_ids, f"item:{seed}") < np.uint64(int(share * 2**64))
    return withheld


def take_whole_users(
    users: Int[ndarray, " n"],
    items: Int[ndarray, " n"],
    counted: Bool[ndarray, " n"],
    order: Int[ndarray, " users"],
    *,
    max_events: int | None,
    max_items: int | None,
) -> Bool[ndarray, " users"]:
    """Choose users in a given order until their events or items reach a budget; a user's events are taken all or none.

    Args:
        users: User of each event, in ``[0, num_users)``.
        items: Item of each event.
        counted: Which events count toward `max_events`; users without a counted event are never chosen.
        order: All users, in the order in which they are taken.
        max_events: Stop before the counted events exceed this; None for no limit.
        max_items: Stop before the distinct items of all their events exceed this; None for no limit.

    Returns:
        True for the chosen users, [num_users]; at least one user.

    Example:
        >>> import numpy as np
        >>> users, items = np.array([0, 0, 1, 1, 2]), np.array([4, 5, 4, 6, 7])
        >>> budgets = {"max_events": 3, "max_items": None}
        >>> take_whole_users(users, items, np.ones(5, bool), np.array([2, 0, 1]), **budgets).tolist()
        [True, False, True]
    """
    num_users = order.size
    sizes = np.bincount(users[counted], minlength=num_users)
    order = order[sizes[order] > 0]
    # Rank of each event's user in that order; `num_users` for users that are never chosen.
    rank = np.full(num_users, num_users, np.int64)
    rank[order] = np.arange(order.size)
    ranked = rank[users]
    eligible = ranked < num_users
    # Each item is new with the first user that has it: cumulative counts give the distinct items so far.
    first = np.full(int(items.max(initial=-1)) + 1, num_users, np.int64)
    np.minimum.at(first, items[eligible], ranked[eligible])
    distinct = np.cumsum(np.bincount(first[first < num_users], minlength=order.size))
    within = np.ones(order.size, bool)
    if max_events is not None:
        within &= np.cumsum(sizes[order]) <= max_events
    if max_items is not None:
        within &= distinct <= max_items
    within[:1] = True
    chosen = np.zeros(num_users, bool)
    chosen[order[within]] = True
    return chosen


def sample_shown_negatives(
    users: Int[ndarray, " n"],
    items: Int[ndarray, " n"],
    periods: Int[ndarray, " n"],
    num_negatives: int,
    rng: np.random.Generator,
    rounds: int = 8,
) -> tuple[Int64[ndarray, " m"], Int64[ndarray, " m"]]:
    """Draw, for each positive event, items that others engaged with in the same period.

    Negatives should be items that could have been shown. If they were drawn from all items, popularity and age alone
    would separate them from positives; drawn from the positives of the period, they follow its exposure.

    Args:
        users: User of each positive event.
        items: Item of each positive event.
        periods: Period of each positive event, as an integer (a day, say).
        num_negatives: Negatives per positive.
        rng: Draws the negatives.
        rounds: Number of draws before a negative is given up, if each was an item that the user engaged with.

    Returns:
        ``source`` (index of the positive that a negative belongs to) and ``negative`` (its item), [m] each with
        m <= n * num_negatives: fewer where a period holds nothing but the user's own items.

    Example:
        >>> import numpy as np
        >>> users, items = np.array([0, 1, 1]), np.array([5, 6, 7])
        >>> source, negative = sample_shown_negatives(users, items, np.array([0, 0, 1]), 1, np.random.default_rng(0))
        >>> source.tolist(), negative.tolist()
        ([0, 1], [6, 5])
    """
    # In period order, the candidates of each event are a range of rows.
    order = np.argsort(periods, kind="stable")
    ordered_periods = periods[order]
    low = np.searchsorted(ordered_periods, periods, side="left")
    size = np.searchsorted(ordered_periods, periods, side="right") - low
    key = _joint_key(users, periods, items)
    engaged = np.sort(key)
    source = np.repeat(np.arange(users.size), num_negatives)
    negative = np.full(source.size, -1, np.int64)
    todo = np.arange(source.size)
    for _ in range(rounds):
        if not todo.size:
            break
        owner = source[todo]
        draw = items[order[low[owner] + (rng.random(todo.size) * size[owner]).astype(np.int64)]]
        # Reject items that the user engaged with in the period: their key is among those of the log.
        candidate = key[owner] - items[owner] + draw
        at = np.minimum(np.searchsorted(engaged, candidate), engaged.size - 1)
        accepted = engaged[at] != candidate
        negative[todo[accepted]] = draw[accepted]
        todo = todo[~accepted]
    drawn = negative >= 0
    return source[drawn], negative[drawn]


def _joint_key(users: ndarray, periods: ndarray, items: ndarray) -> Int64[ndarray, " n"]:
    """Return one integer for (user, period, item); the item is its last digit."""
    num_items = int(items.max(initial=0)) + 1
    first = periods.min(initial=0)
    num_periods = int(periods.max(initial=0) - first) + 1
    key: ndarray = (users.astype(np.int64) * num_periods + (periods - first)) * num_items + items
    return key
