from __future__ import annotations

from types import SimpleNamespace

import torch

from lis_lightning.align.training import throughput
from lis_lightning.align.training.throughput import ItemThroughput


def test_items_per_second_leaves_out_snapshots_and_validations(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    logged = []
    module = SimpleNamespace(log=lambda name, value, **_: logged.append((name, value)))
    monitor, trainer = SimpleNamespace(listeners=[]), SimpleNamespace(world_size=2)
    given = ItemThroughput(monitor)
    given.setup(trainer, module, "fit")
    given.on_train_epoch_start(trainer, module)
    batch = {"pairs": {"rows": torch.arange(30)}, "bpr": {"rows": torch.arange(10)}}
    for _ in range(3):
        now[0] += 0.5
        given.on_train_batch_end(trainer, module, None, batch, 0)
        now[0] += 100
        monitor.listeners[0](trainer, None)
        now[0] += 100
        given.on_validation_end(trainer, module)
    assert logged == [("train/items_per_second", 160.0)] * 3
    given.teardown(trainer, module, "fit")
    assert monitor.listeners == []
