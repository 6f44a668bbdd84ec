"""A simulator of users and items: item and user latents, exposures, and clicks.

Everything is drawn from one seed::

    item latent   v_i    = content_i + private_i        content_i is a sum of one vector for each attribute value
    user latent   u_x(t) = Ornstein-Uhlenbeck path      stationary: drift changes tastes and not their strength
    session mood  m_s    = a share of u_x(t) + noise    what the user looks for in that session
    exposure      i      ~ of a list drawn by popularity and newness, softmax(browsing * m_s . v_i)
    click         y      ~ Bernoulli(sigmoid(bias + quality_i + generosity_x + taste * u_x(t) . v_i))

Images show the attributes and texts describe them (:mod:`lis_lightning.align.world.render`), so a perfect encoder can
learn ``content_i`` and nothing more. Moods make the items of one session similar, as in real logs. Without them
(``browsing=0``) co-engagement carries hardly any information, and alignment to it has next to nothing to learn.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from lis_lightning.align.world.render import VOCABULARY
from lis_lightning.errors import ConfigError

_START = 1_704_067_200  # 2024-01-01 in unix seconds
_DAY = 86_400
_NUM_PERIODS = 26
_SESSION_LENGTH = 12  # events a session, on average
_LIST_LENGTH = 16  # items that a user chooses from at each event
_REDRAWS = 3  # times that an item which the user was shown before is drawn again
_LASTING = 0.2  # share of the variance of a session's mood that comes from the user's taste
_WEIGHTS = {"colour": 0.3, "shape": 0.05, "pattern": 0.15, "category": 0.2, "material": 0.15, "style": 0.15}
"""Share of the content's variance by attribute; low for shapes, which small encoders cannot learn in a quick run."""


@dataclass(frozen=True, kw_only=True)
class WorldParams:
    """Parameters of a generated world.

    Attributes:
        num_users: Users in the population; the least active may have no event.
        num_items: Items, each with an image and a text.
        num_events: Exposures, each with a label.
        dim: Dimension of the latents.
        content_share: Share of the variance of the item latents that images and texts reveal, 0 to 1.
        drift: How far tastes move: 1 minus the correlation of a user's taste on the last day with that on the first.
        late_items: Share of the items that arrive during the log; the others exist from the start.
        recency: How many times more often a brand-new item is shown than an old one of the same popularity.
        browsing: How strongly exposure follows the mood of the session; 0 makes it independent of the mood.
        aisles: Number of aisles; a session shows the items of one aisle, which nobody's taste depends on. With one
            aisle, any item can be shown.
        click_rate: Share of positive labels.
        taste: Standard deviation of the personal part of the logit; 0 gives a world without personal taste.
        days: Length of the log, in days.
        image_size: Width and height of the item images, in pixels.
        seed: Of everything that is drawn.

    Raises:
        ConfigError: If a value is outside of its range.

    Example:
        >>> WorldParams(content_share=3)
        Traceback (most recent call last):
        ...
        lis_lightning.errors.ConfigError: content_share of the generated world must be a number from 0.0 to 1.0, got 3.
    """

    num_users: int = field(default=1000, metadata={"low": 2, "high": 10_000_000})
    num_items: int = field(default=1000, metadata={"low": 2, "high": 1_000_000})
    num_events: int = field(default=100_000, metadata={"low": 10, "high": 1_000_000_000})
    dim: int = field(default=6, metadata={"low": 1, "high": 256})
    content_share: float = field(default=0.7, metadata={"low": 0.0, "high": 1.0})
    drift: float = field(default=0.3, metadata={"low": 0.0, "high": 1.0})
    late_items: float = field(default=0.2, metadata={"low": 0.0, "high": 1.0})
    recency: float = field(default=2.0, metadata={"low": 1.0, "high": 1e6})
    browsing: float = field(default=8.0, metadata={"low": 0.0, "high": 100.0})
    aisles: int = field(default=1, metadata={"low": 1, "high": 1000})
    click_rate: float = field(default=0.4, metadata={"low": 0.01, "high": 0.99})
    taste: float = field(default=2.0, metadata={"low": 0.0, "high": 100.0})
    days: int = field(default=180, metadata={"low": 2, "high": 36_500})
    image_size: int = field(default=48, metadata={"low": 16, "high": 1024})
    seed: int = field(default=0, metadata={"low": 0, "high": 2**63 - 1})

    def __post_init__(self) -> None:
        for spec in fields(self):
            value, low, high = getattr(self, spec.name), spec.metadata["low"], spec.metadata["high"]
            integer = not isinstance(value, bool) and isinstance(value, int | np.integer)
            fits = integer or (spec.type == "float" and isinstance(value, float))
            if not fits or not low <= value <= high:
                kind = "an integer" if spec.type == "int" else "a number"
                raise ConfigError(
                    f"{spec.name} of the generated world must be {kind} from {low} to {high}, got {value!r}."
                )

    def to_dict(self) -> dict[str, int | float]:
        """Return the parameters as plain numbers, equal for equal worlds (``drift=0`` and ``drift=0.0``)."""
        types = {"int": int, "float": float}
        return {spec.name: types[str(spec.type)](getattr(self, spec.name)) for spec in fields(self)}


def draw_latents(params: WorldParams, rng: Generator) -> dict[str, NDArray[Any]]:
    """Draw attributes, latents, arrival and popularity of the items, and the latents of the users in each period."""
    items, users, dim = params.num_items, params.num_users, params.dim
    sizes = [len(values) for values in VOCABULARY.values()]
    attributes = np.stack([rng.integers(size, size=items) for size in sizes], axis=1)
    content = np.zeros((items, dim))
    for weight, size, codes in zip(_WEIGHTS.values(), sizes, attributes.T, strict=True):
        content += _scaled(rng.standard_normal((size, dim))[codes], weight)
    content = _scaled(content, params.content_share)
    # What content does not reveal: orthogonal to it over all items, so that the two variances sum to 1.
    private = _scaled(_orthogonal_to(content, rng.standard_normal((items, dim))), 1 - params.content_share)
    # An autoregressive process with unit variance, whose first and last period correlate at 1 - drift.
    correlation = (1 - params.drift) ** (1 / (_NUM_PERIODS - 1))
    tastes = [rng.standard_normal((users, dim))]
    for _ in range(_NUM_PERIODS - 1):
        tastes.append(correlation * tastes[-1] + np.sqrt(1 - correlation**2) * rng.standard_normal((users, dim)))
    span = params.days * _DAY
    late = rng.random(items) < params.late_items
    late[rng.integers(items)] = False  # at least one item exists from the start
    quality = 0.6 * rng.standard_normal(items)
    return {
        "attributes": attributes,
        "content_latents": content.astype(np.float32),
        "item_latents": (content + private).astype(np.float32),
        "user_latents": np.asarray(tastes, dtype=np.float32),
        "period_starts": _START + np.arange(_NUM_PERIODS) * span // _NUM_PERIODS,
        "arrivals": _START + np.where(late, rng.integers(span, size=items), -rng.integers(1, span, size=items)),
        "quality": quality,
        "popularity": np.exp(0.6 * rng.standard_normal(items) + 0.5 * quality),
        "generosity": 0.7 * rng.standard_normal(users),
        "aisle": rng.integers(params.aisles, size=items),
    }


def _scaled(latents: NDArray[np.float64], variance: float) -> NDArray[np.float64]:
    """Return latents centred and scaled to a mean squared length of ``variance``."""
    latents = latents - latents.mean(axis=0)
    length = np.sqrt((latents**2).sum(axis=1).mean())
    return latents * (np.sqrt(variance) / length if length > 0 else 0.0)


def _orthogonal_to(reference: NDArray[np.float64], latents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return latents centred and orthogonal to the reference, as one vector over all items; then variances add up."""
    latents = latents - latents.mean(axis=0)
    overlap, length = (reference * latents).sum(), (reference**2).sum()
    return latents - reference * (overlap / length if length > 0 else 0.0)


def draw_events(
    params: WorldParams, truth: dict[str, NDArray[Any]], exposure: Generator, labels: Generator
) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """Draw the log, and return it with the true click probability of each event."""
    user, time, session = _draw_sessions(params, exposure)
    period = np.searchsorted(truth["period_starts"], time, side="right") - 1
    taste = truth["user_latents"][period, user].astype(np.float64)
    passing = exposure.standard_normal((session.max() + 1, params.dim))[session]
    mood = np.sqrt(_LASTING) * taste + np.sqrt(1 - _LASTING) * passing
    aisle = exposure.integers(params.aisles, size=session.max() + 1)[session] if params.aisles > 1 else 0 * session
    # Events of an item that the user was shown before are drawn again.
    item = _draw_exposures(params, time, mood, aisle, truth, exposure)
    for _ in range(_REDRAWS):
        repeated = np.ones(time.size, dtype=bool)
        repeated[np.unique(user * params.num_items + item, return_index=True)[1]] = False
        item[repeated] = _draw_exposures(params, time[repeated], mood[repeated], aisle[repeated], truth, exposure)
    personal = (taste * truth["item_latents"][item]).sum(axis=1)
    logit = truth["quality"][item] + truth["generosity"][user] + params.taste * personal
    probability = _sigmoid(logit + _bias(logit, params.click_rate))
    clicked = labels.random(time.size) < probability
    columns = {"user_id": user + 1, "item_id": item + 1, "timestamp": time, "clicked": clicked.astype(np.int8)}
    return pl.DataFrame(columns), probability


def _draw_sessions(
    params: WorldParams, rng: Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return user, time and session of each event, in order of time; a user's times differ by a second or more."""
    span = params.days * _DAY
    # A third of the users joins during the log; activity varies between users.
    starts = np.where(rng.random(params.num_users) < 0.3, rng.uniform(0, 0.8 * span, params.num_users), 0.0)
    activity = rng.lognormal(0, 0.7, params.num_users) * (span - starts)
    user = np.repeat(np.arange(params.num_users), rng.multinomial(params.num_events, activity / activity.sum()))
    # Each event falls into a random session of its user, some minutes after the session was opened.
    num_sessions = np.maximum(1, np.bincount(user, minlength=params.num_users) // _SESSION_LENGTH)
    first = np.cumsum(num_sessions) - num_sessions
    session = first[user] + (rng.random(user.size) * num_sessions[user]).astype(np.int64)
    owner = np.repeat(np.arange(params.num_users), num_sessions)
    opened = starts[owner] + rng.random(owner.size) * (span - starts[owner] - _DAY / 12)
    # The offset by user keeps the users apart while events are sorted and spaced.
    time = user * 4 * span + (opened[session] + rng.exponential(600, user.size)).astype(np.int64)
    by_time = np.argsort(time, kind="stable")
    session, time = session[by_time], _START + time[by_time]
    # Spaced by at least a second, so that a later event of a user has the earlier one in its history.
    rank = np.arange(time.size)
    time = np.maximum.accumulate(time - rank) + rank - user * 4 * span
    order = np.lexsort((user, time))
    return user[order], time[order], session[order]


def _draw_exposures(
    params: WorldParams,
    time: NDArray[np.int64],
    mood: NDArray[np.float64],
    aisle: NDArray[np.int64],
    truth: dict[str, NDArray[Any]],
    rng: Generator,
) -> NDArray[np.int64]:
    """Draw the item of each event: one that suits the mood, from a list of its aisle by popularity and newness."""
    item = np.empty(time.size, dtype=np.int64)
    day = (time - _START) // _DAY
    edges = np.searchsorted(day, np.arange(day.max(initial=0) + 2))
    shelf = np.argsort(truth["aisle"], kind="stable")  # the items of an aisle stand side by side
    first = np.searchsorted(truth["aisle"][shelf], np.arange(params.aisles + 1))
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        age = (_START + number * _DAY - truth["arrivals"]) / _DAY
        newness = 1 + (params.recency - 1) * np.exp(-np.maximum(age, 0) / 10)
        # Inverse transform sampling of the list; items that have not arrived yet have no mass.
        mass = np.cumsum(np.where(age >= 0, truth["popularity"] * newness, 0.0)[shelf])
        mass = np.concatenate([[0.0], mass / mass[-1]])
        bottom, top = (mass[first[aisle[low:high] + end]][:, None] for end in (0, 1))
        closed = top <= bottom  # nothing of the aisle has arrived yet: anything is shown
        bottom, top = np.where(closed, 0.0, bottom), np.where(closed, 1.0, top)
        draws = bottom + (top - bottom) * rng.random((high - low, _LIST_LENGTH))
        listed = shelf[np.searchsorted(mass[1:], draws, side="right")]
        appeal = np.einsum("ed,ecd->ec", mood[low:high], truth["item_latents"][listed])
        # The Gumbel-max trick: the argmax is a draw from the softmax.
        choice = (params.browsing * appeal + rng.gumbel(size=listed.shape)).argmax(axis=1)
        item[low:high] = listed[np.arange(high - low), choice]
    return item


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logit))


def _bias(logit: NDArray[np.float64], rate: float) -> float:
    """Return the bias that brings the mean probability of the logits to ``rate``."""
    from scipy.optimize import brentq

    bound = float(np.abs(logit).max()) + 10
    return float(brentq(lambda bias: _sigmoid(logit + bias).mean() - rate, -bound, bound))
