"""Search in long histories as a reading: attention to the nearest events of a user instead of the last ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from lis_lightning.data.split import PreferenceSplit
from lis_lightning.errors import ConfigError
from lis_lightning.functional.histories import BLOCK, Histories, user_profiles
from lis_lightning.functional.intervals import paired_difference
from lis_lightning.functional.target_attention import attention_features
from lis_lightning.results.reading import Reading
from lis_lightning.scoring.base_ranker import probe_inputs
from lis_lightning.scoring.gain import Arm, evaluate
from lis_lightning.scoring.reads.read import Read, ScoredItems, check_whole


@dataclass(frozen=True)
class Search(Read):
    """The events of a long history that are nearest to the target, as in search-based interest models.

    A general search unit retrieves the `events` of a user's history whose items have the largest cosines with the
    target, and attention reads those alone (SIM, Pi et al. 2020). ``gain`` is its AIS less that of attention to the
    last `events` instead: what the representation is worth to the search. Both know the user's profile of the last
    `events`.

    Args:
        events: Number of events that attention reads.

    Raises:
        ConfigError: If `events` is below 1; when scored, if no history is longer.

    Example:
        >>> Search(20).events
        20
    """

    events: int = 50

    def __post_init__(self) -> None:
        check_whole("events", self.events, 1)

    @override
    def check(self, split: PreferenceSplit) -> None:
        longest = int((split.events.stop - split.events.start).max(initial=0))
        if longest <= self.events:
            raise ConfigError(
                f"No scored event has more than {self.events} earlier events of its user, the number that a search "
                f"returns (the longest history has {longest}). Cut the split with `history=1000`, or search for fewer: "
                "reads={'search': lis_lightning.scoring.reads.Search(20)}."
            )

    @override
    def readings(self, name: str, scored: ScoredItems) -> dict[str, Reading]:
        self.check(scored.split)
        histories = scored.prepared.histories
        long = (histories.stop - histories.start) > self.events
        cosines, start = scored.lookup.cosines, torch.maximum(histories.start, histories.stop - self.events)
        last = replace(histories, start=start)
        searched = _arm(scored, last, _nearest(cosines, self.events))
        latest = _arm(scored, last, _latest(cosines, histories, self.events))
        gain = paired_difference(searched.gain.value, searched.gain.influence, latest.gain.value, latest.gain.influence)
        facts = {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
        facts["long_histories"] = float(long.double().mean())
        return {name: scored.reading(searched, facts)}


def _nearest(cosines: Tensor, count: int) -> Tensor:
    """Return the cosines with NaN for all but the largest `count` of each event."""
    kept = torch.full_like(cosines, torch.nan)
    for block in torch.split(torch.arange(cosines.shape[0], device=cosines.device), BLOCK):
        own = cosines[block]
        columns = own.nan_to_num(nan=-torch.inf).topk(min(count, own.shape[1]), dim=1).indices
        kept[block] = torch.full_like(own, torch.nan).scatter_(1, columns, own.gather(1, columns))
    return kept


def _latest(cosines: Tensor, histories: Histories, count: int) -> Tensor:
    """Return the cosines with NaN for all but those of the last `count` rows of each history."""
    first = (histories.stop - histories.start - count)[:, None]
    return cosines.masked_fill(torch.arange(cosines.shape[1], device=cosines.device) < first, torch.nan)


def _arm(scored: ScoredItems, last: Histories, cosines: Tensor) -> Arm:
    """Score attention to the rows that have a cosine, beside the profile of the last events."""
    prepared = scored.prepared
    inputs = replace(
        probe_inputs(prepared, scored.lookup),
        attention=attention_features(cosines, prepared.histories, prepared.train),
        profile=user_profiles(scored.lookup.profile, last),
    )
    return evaluate(scored.split, prepared, inputs, prepared.logits)
