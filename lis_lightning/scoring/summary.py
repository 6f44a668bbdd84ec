"""Description of a split before any training: its sizes, its base ranker, and whether it is usable."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from lis_lightning.data.events import WINDOWS
from lis_lightning.data.split import PreferenceSplit
from lis_lightning.functional.auc import auroc
from lis_lightning.results.format import plain_console
from lis_lightning.scoring.base_ranker import prepare
from lis_lightning.scoring.cache import SplitCache
from lis_lightning.scoring.power import smallest_detectable_gain

COARSE = 0.005  # smallest detectable gain, in AUC, above which a split detects large steps only
TOO_COARSE = 0.02  # smallest detectable gain above which a split is not usable
SUSPICIOUS_COUNT_AUC = 0.75


def describe(cache: SplitCache) -> dict[str, Any]:
    """Return sizes, rates, the base ranker's AUC and the smallest detectable gain, as plain values."""
    split = cache.split
    events, log = split.events, split.log
    test = ~events.train
    detectable = smallest_detectable_gain(cache)
    count_auc = auroc(events.by_item.count[test].astype(np.float64), events.label[test])
    per_day = split.settings["units_per_day"]
    span_days = None if per_day is None else float((log.time.max() - log.time.min()) / per_day)
    usable = "yes"
    if detectable > COARSE:
        usable = "no" if detectable > TOO_COARSE else "coarse"
    return {
        "hash": split.hash,
        "users": split.num_users,
        "items": split.num_items,
        "logged_events": split.num_logged,
        "sampled_events": split.num_sampled,
        "log_events": int(log.user.size),
        "log_users": log.num_users,
        "log_items": log.num_items,
        "align_events": int((log.window == 0).sum()),
        "train_events": int(events.train.sum()),
        "test_events": int(test.sum()),
        "train_positive_rate": float(events.label[events.train].mean()),
        "test_positive_rate": float(events.label[test].mean()),
        "span_days": span_days,
        "mean_history": float((events.stop - events.start).mean()),
        "new_item_share": float((events.by_item.count[test] == 0).mean()),
        "new_user_share": float((events.by_user.count[test] == 0).mean()),
        "unseen_item_share": float(events.unseen[test].mean()),
        "negatives": split.settings["negatives"],
        "item_count_auc": count_auc,
        "base": "built in" if events.base_logit is None else "given logit",
        "base_auc": _base_auc(cache),
        "smallest_detectable_gain": detectable,
        "usable": usable,
    }


def render(cache: SplitCache) -> str:
    """Return the description as text for a terminal: sizes, then whether the split is usable and why."""
    from rich import box
    from rich.table import Table

    split, facts = cache.split, describe(cache)
    table = Table(box=box.SIMPLE, header_style="bold")
    table.add_column("window")
    for heading in ("events", "scored", "users", "items", "positive"):
        table.add_column(heading, justify="right")
    for index, name in enumerate(WINDOWS):
        inside = split.log.window == index
        scored = {0: 0, 1: facts["train_events"], 2: facts["test_events"]}[index]
        users, items = (np.unique(column[inside]).size for column in (split.log.user, split.log.item))
        rate = f"{split.log.label[inside].mean():.1%}"
        table.add_row(name, f"{inside.sum():,}", f"{scored:,}" if scored else "-", f"{users:,}", f"{items:,}", rate)
    console = plain_console(output := io.StringIO(), 110)
    console.print(table)
    for line in [*_family(split), *_remarks(facts)]:
        console.print(line)
    return output.getvalue().rstrip()


def _base_auc(cache: SplitCache) -> float:
    """Return the AUC of the base ranker on the tested events."""
    test = cache.split.tested
    return auroc(prepare(cache).logits.numpy()[test], cache.split.events.label[test])


def _family(split: PreferenceSplit) -> list[str]:
    """Return a line for each further task and period that is scored in the same pass."""

    def rate(part: PreferenceSplit) -> str:
        return f"{part.events.label[~part.events.train].mean():.1%} of the test events are positive"

    tasks = [f"also task {name!r}: {rate(task)}" for name, task in split.tasks.items() if task is not split]
    periods = [
        f"also period {period.period + 1}: {period.events.train.sum():,} and {(~period.events.train).sum():,} events "
        f"scored; {rate(period)}"
        for period in split.periods
        if period is not split
    ]
    return [*tasks, *periods]


def _remarks(facts: dict[str, Any]) -> list[str]:
    """Return the description in sentences; the last one says whether the split is usable."""
    span = "" if facts["span_days"] is None else f"{facts['span_days']:.0f} days; "
    lines = [
        f"{span}{facts['users']:,} users scored; {facts['items']:,} items to encode; "
        f"mean history {facts['mean_history']:.1f} events",
        f"of the test events: {facts['unseen_item_share']:.1%} on items withheld from alignment, "
        f"{facts['new_item_share']:.1%} on items and {facts['new_user_share']:.1%} of users never seen before",
        f"base ({facts['base']}): AUC {facts['base_auc']:.4f}",
    ]
    if facts["negatives"]:
        lines.append(
            f"negatives: {facts['negatives']} a positive, drawn from other users' positives of the same period; "
            f"item count alone: AUC {facts['item_count_auc']:.3f}"
        )
        if facts["item_count_auc"] > SUSPICIOUS_COUNT_AUC:
            lines.append(
                "warning: item popularity alone separates drawn negatives from positives, so gains on them do not "
                "carry over to real impressions."
            )
    if facts["sampled_events"] < facts["logged_events"]:
        lines.append(
            f"a sample of whole users, {facts['sampled_events']:,} of {facts['logged_events']:,} events (raise "
            "`max_alignment_events` for more); counts of items are those of the whole log"
        )
    detectable = facts["smallest_detectable_gain"]
    advice = {
        "yes": "usable",
        "coarse": "usable for large steps only; raise `max_events` or use a longer log for smaller ones",
        "no": "too small to detect useful gains; use more users or a longer log",
    }[facts["usable"]]
    lines.append(f"smallest detectable gain: {detectable:+.4f} AUC or more, at 80 % power -> {advice}")
    return lines
