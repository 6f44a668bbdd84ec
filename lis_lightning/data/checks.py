"""Validation of a split: arguments in range, windows that can be scored, plausible base logits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lis_lightning.data.columns import Label, task_logits
from lis_lightning.data.events import WINDOWS
from lis_lightning.errors import ConfigError, LisWarning, LogError
from lis_lightning.functional.auc import auroc, auroc_influence
from lis_lightning.functional.intervals import cluster_interval, user_sums

if TYPE_CHECKING:
    from lis_lightning.data.split import PreferenceSplit

WRONG_SIGN_Z = -2.0
MANY_REPEATS = 0.01  # share of repeated rows above which to warn


def check_names_and_budgets(settings: Mapping[str, Any]) -> None:
    """Raise a ConfigError for the first argument that should name a column and does not, or number out of range.

    Args:
        settings: Arguments of ``PreferenceSplit.from_log``.
    """
    names = {"user": settings["user"], "item": settings["item"]}
    names |= {} if settings["weight"] is None else {"weight": settings["weight"]}
    for role, name in names.items():
        if not isinstance(name, str):
            raise ConfigError(f"Expected `{role}` to name a column, got {name!r}.")
    slices = settings["slices"]
    if not isinstance(slices, Sequence) or not all(isinstance(name, str) for name in slices):
        raise ConfigError(f"Expected `slices` to be a list of different columns, got {slices!r}.")
    budgets = dict.fromkeys(("max_events", "max_items", "max_alignment_events"), 1)
    lowest = {"history": 1, "negatives": 0, **budgets, "num_periods": 2, "seed": 0}
    for name, low in lowest.items():
        value = settings[name]
        unlimited = value is None and name in budgets
        if not unlimited and (not isinstance(value, int) or value < low):
            raise ConfigError(f"Expected `{name}` to be an integer of at least {low}, got {value!r}.")


def check_settings(settings: Mapping[str, Any], labels: Mapping[str, Label]) -> None:
    """Raise a ConfigError for the first argument out of range.

    Args:
        settings: Arguments of ``PreferenceSplit.from_log``.
        labels: Label of each task, by name.
    """
    if not 0 <= settings["unseen_items"] < 1:
        raise ConfigError(f"Expected `unseen_items` to be a share in [0, 1), got {settings['unseen_items']!r}.")
    slices = settings["slices"]
    if isinstance(slices, str) or len(set(slices)) < len(slices):
        raise ConfigError(f"Expected `slices` to be a list of different columns, got {slices!r}.")
    _check_windows(settings["windows"])
    if None in labels.values() and not settings["negatives"]:
        raise ConfigError(
            "`label=None` says that every row is a positive; an AUC needs negatives too: set `negatives` (4, say), or "
            "better, log what was shown and not clicked."
        )


def _check_windows(windows: Any) -> None:
    if windows == "rolling":
        return
    if isinstance(windows, str) or not hasattr(windows, "__len__") or len(windows) not in {2, 3}:
        raise ConfigError(f"Expected `windows` to be three shares, two timestamps or 'rolling', got {windows!r}.")
    if len(windows) == 3 and not all(isinstance(share, int | float) for share in windows):
        raise ConfigError(f"Expected three shares, which are numbers, in `windows`, got {windows!r}.")
    if len(windows) == 3 and (min(windows) <= 0 or abs(sum(windows) - 1) > 1e-6):
        raise ConfigError(f"Expected three positive shares that sum to 1 in `windows`, got {windows!r}.")


def check_split(split: PreferenceSplit) -> None:
    """Raise a LogError for the first window that cannot be scored."""
    for window, user, label, weight, logit in _windows(split):
        where = f"Task {split.task!r}: window {window}"
        positives, total = int(label.sum()), label.size
        if positives in {0, total}:
            raise LogError(
                f"{where} needs events of both classes, got {positives} positives among {total} events. Use longer "
                "windows, a larger `max_events`, or another label."
            )
        if (user == user[0]).all():
            raise LogError(
                f"{where} needs events of at least 2 users, since intervals are clustered by user and the "
                "probe is cross-validated over users; got 1. Use longer windows or a larger `max_events`, or a log of "
                "more users."
            )
        if weight is not None:
            _check_weights(where, split.settings["weight"], weight, label)
        if logit is not None:
            _check_logits(where, _logit_column(split), logit, label)


def _windows(
    split: PreferenceSplit,
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]]:
    """Yield name, users, labels, weights and logits of each window; w0 has neither weights nor logits."""
    log, events = split.log, split.events
    past = log.window == 0
    suffix = f" of period {split.period + 1}" if split.periods else ""
    yield WINDOWS[0] + suffix, log.user[past], log.label[past], None, None
    for name, inside in ((WINDOWS[1], events.train), (WINDOWS[2], ~events.train)):
        weight = None if events.weight is None else events.weight[inside]
        logit = None if events.base_logit is None else events.base_logit[inside]
        yield name + suffix, events.user[inside], events.label[inside], weight, logit


def _check_weights(where: str, column: str, weight: NDArray[np.float64], label: NDArray[np.int8]) -> None:
    """Raise a LogError if all weights of a class are 0."""
    for value, name in ((1, "positives"), (0, "negatives")):
        inside = label == value
        if not weight[inside].any():
            raise LogError(
                f"{where}: the weights {column!r} of all {int(inside.sum())} {name} are 0, so no pair of a positive "
                "and a negative counts. Give them a weight, 1 say; dwell time is often logged for clicks only."
            )


def _logit_column(split: PreferenceSplit) -> str:
    return task_logits(split.settings["base_logit"], list(split.tasks))[split.task]


def _check_logits(where: str, column: str, logit: NDArray[np.float64], label: NDArray[np.int8]) -> None:
    """Raise a LogError for constant logits, and for logits that separate the classes perfectly."""
    if (logit == logit[0]).all():
        raise LogError(
            f"{where}: all {logit.size} logits in {column!r} are {logit[0]}, which ranks nothing. Give the logit that "
            "the ranker served with, or leave `base_logit` out to build a base."
        )
    auc = auroc(logit, label)
    if auc in {0.0, 1.0}:
        sign = "" if auc == 1.0 else ", with the sign turned"
        raise LogError(
            f"{where}: column {column!r} tells all {int(label.sum())} positives from all {int((label == 0).sum())} "
            f"negatives (AUC {auc:.0f}{sign}), which leaves nothing to gain: the label, or something that came after "
            "it, is in the column, or the window is tiny. Give the logit as it was served, before the outcome."
        )


def warn_of_logits(split: PreferenceSplit) -> None:
    """Warn of base logits that look like probabilities or have the wrong sign; they are used as they are."""
    events = split.events
    if events.base_logit is None:
        return
    column, logit = _logit_column(split), events.base_logit
    if logit.min() >= 0 and logit.max() <= 1:
        _warn(
            f"All values of `base_logit` column {column!r} lie in [0, 1], as probabilities do; they are used as "
            "logits, as they are. If they are probabilities p, give log(p / (1 - p))."
        )
    auc, influence = auroc_influence(logit, events.label)
    if cluster_interval(auc - 0.5, user_sums(influence, events.user, split.num_users)).z < WRONG_SIGN_Z:
        _warn(
            f"Task {split.task!r}: `base_logit` column {column!r} ranks negatives above positives (AUC {auc:.3f}); is "
            "its sign right? It is recalibrated on w1 with a slope of either sign, so the base turns it around."
        )


def warn_of_repeats(num_repeats: int, num_rows: int) -> None:
    """Warn if many rows repeat another, which suggests that events were logged twice."""
    if num_repeats > MANY_REPEATS * num_rows:
        _warn(
            f"{num_repeats} of {num_rows} rows of the log ({num_repeats / num_rows:.0%}) repeat the user, item and "
            "time of another; each is counted as an event of its own. If a join or an export doubled them, drop them "
            "with .unique()."
        )


def _warn(message: str) -> None:
    warnings.warn(message, LisWarning, stacklevel=5)
