"""Two neural rankers with a frozen representation, as a team may refit one at every snapshot.

Both have ID embeddings of users and items, as-of counts and the user's last events with their labels, and learn to
read a frozen representation of the target and of the history: :class:`Din` by target attention (Zhou et al. 2018),
:class:`Dcn` by crosses of pooled vectors (DCN-v2, Wang et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap
from typing_extensions import override

from lis_lightning import PreferenceSplit
from lis_lightning.functional import auroc

WIDTH, BATCH, RATE, DECAY = 10, 128, 1e-2, 1e-2


class Data:
    """The events of a split as tensors: target, history (latest last, padded), and what was counted before."""

    def __init__(self, split: PreferenceSplit, length: int = 12) -> None:
        events = split.events
        position = events.stop[:, None] - length + np.arange(length)
        inside = position >= events.start[:, None]
        position = np.maximum(position, 0)
        self.user, self.item = torch.from_numpy(events.user), torch.from_numpy(events.item)
        self.past = torch.from_numpy(np.where(inside, split.history_item[position], 0))
        sign = 2.0 * split.history_label[position] - 1
        self.sign = torch.from_numpy(np.where(inside, sign, 0)).float()  # 1 clicked, -1 skipped, 0 nothing
        seen = events.by_user, events.by_item
        counts = [number for one in seen for number in (np.log1p(one.count), one.rate(split.prior))]
        dense = torch.from_numpy(np.stack(counts, axis=1)).float()
        train = torch.from_numpy(events.train)
        self.dense = (dense - dense[train].mean(0)) / (dense[train].std(0) + 1e-6)
        self.label = torch.from_numpy(events.label).float()
        self.train, self.test = train.nonzero()[:, 0], (~train).nonzero()[:, 0]
        self.sizes = (split.num_users, split.num_items)


class Ranker(nn.Module):
    """What both rankers share: ID embeddings, and a frozen representation behind a learned projection."""

    def __init__(self, data: Data, rows: Tensor) -> None:
        super().__init__()
        self.data = data
        self.user, self.item = (nn.Embedding(size, WIDTH) for size in data.sizes)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.05)
        self.read = nn.Linear(rows.shape[1], WIDTH, bias=False)
        self.register_buffer("rows", rows)

    @override
    def forward(self, at: Tensor) -> Tensor:
        data = self.data
        items = torch.cat([self.item.weight, self.read(self.rows)], dim=1)  # all at once: there are few
        target, past = (nn.functional.embedding(which[at], items) for which in (data.item, data.past))
        return self.logit(self.user(data.user[at]), target, past, data.sign[at], data.dense[at])

    def logit(self, user: Tensor, target: Tensor, past: Tensor, sign: Tensor, dense: Tensor) -> Tensor:
        """Return the logits [B] of events, from vectors of user, target and history."""
        raise NotImplementedError


class Din(Ranker):
    """Each event of the history counts by what an MLP says of it and the target; weights are not normalised."""

    def __init__(self, data: Data, rows: Tensor) -> None:
        super().__init__(data, rows)
        self.weigh = nn.Sequential(nn.Linear(4 * WIDTH + 1, 16), nn.LeakyReLU(), nn.Linear(16, 1))
        self.out = nn.Sequential(nn.Linear(7 * WIDTH + 5, 32), nn.LeakyReLU(), nn.Linear(32, 1))

    @override
    def logit(self, user: Tensor, target: Tensor, past: Tensor, sign: Tensor, dense: Tensor) -> Tensor:
        both = past * target[:, None]
        weight = self.weigh(torch.cat([both, past, sign[..., None]], dim=2)) * (sign != 0)[..., None] / 5
        interest, match = (weight * past).sum(1), (weight * both).sum(1)
        net = (weight[..., 0] * sign).sum(1, keepdim=True)
        return self.out(torch.cat([user, target, interest, match, net, dense], dim=1))[:, 0]


class Dcn(Ranker):
    """Two cross layers over user, target, and the clicked and skipped history, beside an MLP."""

    def __init__(self, data: Data, rows: Tensor) -> None:
        super().__init__(data, rows)
        size = 7 * WIDTH + 4
        self.cross = nn.ModuleList([nn.Linear(size, size) for _ in range(2)])
        self.deep = nn.Sequential(nn.Linear(size, 32), nn.ReLU())
        self.out = nn.Linear(size + 32, 1)

    @override
    def logit(self, user: Tensor, target: Tensor, past: Tensor, sign: Tensor, dense: Tensor) -> Tensor:
        liked, shown = ((weight[..., None] * past).sum(1) / 5 for weight in (sign, sign.abs()))
        first = x = torch.cat([user, target, liked, shown, dense], dim=1)
        for layer in self.cross:
            x = first * layer(x) + x
        return self.out(torch.cat([x, self.deep(first)], dim=1))[:, 0]


RANKERS = {"din": Din, "dcn": Dcn}


def fit(data: Data, rows: Sequence[NDArray[np.floating[Any]]], kind: str, seed: int) -> NDArray[np.float64]:
    """Return the logits [representations, test events] of a ranker fitted with each of several representations.

    All begin with equal weights and see equal batches: what differs is the representation. One stack is fast.
    """
    stack = torch.stack([_scaled(one) for one in rows])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ranker = RANKERS[kind](data, stack[0])
        order = torch.randperm(data.train.numel())
    copies = {name: one.detach().expand(len(stack), *one.shape) for name, one in ranker.named_parameters()}
    weights = {name: one.clone().requires_grad_() for name, one in copies.items()}
    logits = vmap(lambda own, rows, at: functional_call(ranker, own | {"rows": rows}, (at,)), in_dims=(0, 0, None))
    step = torch.optim.AdamW(weights.values(), lr=RATE, weight_decay=DECAY)
    batches = data.train[order].split(BATCH)  # one epoch, as of click models
    for number, at in enumerate(batches):
        step.param_groups[0]["lr"] = RATE * (1 - number / len(batches))  # equal fits then differ less
        label = data.label[at].expand(len(stack), -1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits(weights, stack, at), label, reduction="none")
        step.zero_grad()
        loss.mean(1).sum().backward()
        step.step()
    with torch.no_grad():
        return torch.cat([logits(weights, stack, at) for at in data.test.split(1024)], dim=1).double().numpy()


def _scaled(rows: NDArray[np.floating[Any]]) -> Tensor:
    """Return centred rows of unit scale: a ranker's learning rate must not tell representations apart."""
    centred = torch.as_tensor(rows, dtype=torch.float32)
    centred = centred - centred.mean(0)
    return centred / centred.square().mean().sqrt().clamp_min(1e-12)


def quality(data: Data, logits: NDArray[np.float64], users: NDArray[np.bool_] | None = None) -> float:
    """Return the AUC on the test events, or on those of some users."""
    label = data.label[data.test].numpy().astype(int)
    keep = np.ones(label.size, bool) if users is None else users[data.user[data.test].numpy()]
    return auroc(logits[keep], label[keep])
