"""Gold: what boosted trees gain from a representation, on users whom neither alignment nor score has seen.

Two stages, as in practice: similarity features of items, then boosted trees on all features. The ranker knows what the
score's base ranker knows (counts, repeats, ID vectors) and, since the rankers of a team see the log that alignment
sees, the ID vectors of the half of the users that alignment and score see. Without them a ranker pays a representation
for collaborative data that it would have had anyway.

It reads a representation in two frames: as it is, and by its projection on ID vectors, a ridge regression cross-fitted
over items, which finds content under louder directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor
from worlds import Study

from lis_lightning.functional import ItemCoordinates, auroc, id_vectors, principal_coordinates
from lis_lightning.scoring import Scorer, look_up_items, probe_inputs

Matrix = NDArray[np.floating[Any]]
AXES, PRODUCTS, COORDINATES, NEAREST = 16, 8, 6, 3
FOLDS, RIDGES = 10, (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
TREES = {
    "max_iter": 80, "learning_rate": 0.1, "max_leaf_nodes": 15, "min_samples_leaf": 100, "l2_regularization": 10.0,
    "max_features": 0.3, "early_stopping": False,
}  # fmt: skip


class BoostedTrees:
    """A ranker of boosted trees on one world's other half of users: trained before w2, tested in w2.

    Attributes:
        users: User of each test event.
    """

    def __init__(self, world: Study) -> None:
        split = world.gold
        self.prepared = Scorer(split, cache_dir="off").base_ranker
        self.train, self.labels = split.events.train, split.events.label.astype(int)
        self.users = split.events.user[~self.train]
        self.chance = None if world.chance is None else world.chance[~self.train]
        self.ids, self.present = _id_vectors(world)
        known = principal_coordinates(
            torch.from_numpy(self.ids).float(), k=AXES, present=torch.from_numpy(self.present)
        )
        self.columns = np.concatenate([self.prepared.design[:, :-1].numpy(), self._similarities(known)], axis=1)

    @property
    def base_auc(self) -> float:
        """AUC of the score's base ranker, fitted on these users, on the same test events."""
        return self.auc(self.prepared.logits.numpy()[~self.train])

    def logits(self, rows: Matrix, seed: int) -> NDArray[np.float64]:
        """Return the logits of the test events, of trees fitted with a representation."""
        frames = [np.asarray(rows, np.float32), self._projected(rows)]
        read = [self._similarities(principal_coordinates(torch.from_numpy(one), k=AXES)) for one in frames]
        columns = np.concatenate([self.columns, *read], axis=1).astype(np.float32)
        trees = HistGradientBoostingClassifier(random_state=seed, **TREES)
        trees.fit(columns[self.train], self.labels[self.train])
        return trees.decision_function(columns[~self.train])

    def auc(self, logits: NDArray[np.float64], inside: NDArray[np.bool_] | None = None) -> float:
        """Return the AUC on the test events, or on some of them.

        In a generated world it is the expected AUC: each event counts as a click with its true probability, else as
        none, which removes the noise of the labels and no other.
        """
        inside = np.ones(logits.size, bool) if inside is None else inside
        chosen = logits[inside]
        if self.chance is None:
            return auroc(chosen, self.labels[~self.train][inside])
        chance = self.chance[inside]
        labels = np.repeat([1, 0], chance.size)
        return auroc(np.tile(chosen, 2), labels, np.concatenate([chance, 1 - chance]))

    def _projected(self, rows: Matrix) -> NDArray[np.float32]:
        """Return ID vectors as predicted from a representation, each item by a ridge regression on other items."""
        centred = np.asarray(rows, float) - np.mean(rows, axis=0)
        centred /= max(np.sqrt((centred**2).sum(1).mean()), 1e-12)
        fold = np.random.default_rng(27).permutation(len(centred)) % FOLDS
        target = self.ids - self.ids[self.present].mean(0)
        best, least = np.zeros_like(target), np.inf
        for ridge in RIDGES:
            predicted = np.zeros_like(target)
            for number in range(FOLDS):
                fitted = centred[self.present & (fold != number)]
                gram = fitted.T @ fitted + ridge * np.eye(fitted.shape[1])
                weights = np.linalg.solve(gram, fitted.T @ target[self.present & (fold != number)])
                predicted[fold == number] = centred[fold == number] @ weights
            error = float(((predicted - target)[self.present] ** 2).sum())
            if error < least:
                best, least = predicted, error
        return best.astype(np.float32)

    def _similarities(self, items: ItemCoordinates) -> NDArray[np.float64]:
        """Return what a ranker reads of item vectors at each event: how near the target is to what was (not) liked."""
        histories = self.prepared.histories
        lookup = look_up_items(histories, [items])
        inputs = probe_inputs(self.prepared, lookup)
        label = torch.full_like(lookup.cosines, -1.0)
        for block, rows, valid in histories.padded():
            label[block] = torch.where(valid, histories.label[rows].to(label.dtype), -1.0)
        products = inputs.profile * inputs.target
        columns = [inputs.attention, inputs.log_norm, products[:, :PRODUCTS], products.sum(1, keepdim=True)]
        columns += [inputs.target[:, :COORDINATES], _nearness(lookup.cosines, label == 1)]
        columns += [_nearness(lookup.cosines, label == 0)]
        return torch.cat([column.double() for column in columns], dim=1).numpy()


def _nearness(cosines: Tensor, inside: Tensor) -> Tensor:
    """Return the largest cosine, the mean of the three largest and the mean of all, [E, 3]; -1 and 0 for none."""
    inside = inside & ~cosines.isnan()
    known = torch.where(inside, cosines, -1.0)
    nearest = known.topk(min(NEAREST, known.shape[1]), dim=1).values
    mean = torch.where(inside, cosines, 0.0).sum(1) / inside.sum(1).clamp_min(1)
    return torch.stack([nearest[:, 0], nearest.mean(1), mean], dim=1)


def _id_vectors(world: Study) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return ID vectors of what alignment may see, in the order of gold's items, and which items have one."""
    scored, ids = world.scored, world.gold.item_ids
    alignment = scored.log.window == 0
    user, item, label = (values[alignment] for values in (scored.log.user, scored.log.item, scored.log.label))
    vectors = id_vectors(user, item, label.astype(np.float64), scored.log.num_items)
    rows = scored.item_rows(ids)
    present = (rows >= 0) & vectors.present[rows]
    return np.where(present[:, None], vectors.vectors[rows], 0.0), present
