"""Fits in launched processes, for test_handover.py: ``python launched_fit.py FOLDER STRATEGY`` prints what is left."""

from __future__ import annotations

import json
import pickle
import sys
import warnings
from pathlib import Path

import torch

from lis_lightning.monitor.early_stopping import LISEarlyStopping
from lis_lightning.results.stopping import StopRule
from tests._helpers import small_run


class Failing(small_run.Tower):
    """Cannot encode at step 2."""

    def encode_items(self, batch):
        if self.global_step == 2:
            raise OSError("storage is down")
        return super().encode_items(batch)


def seen(monitor):
    """What a user finds in the launching process."""
    return {
        "steps": [result.step for result in monitor.results],
        "best": monitor.best_step,
        "verdict": monitor.results[-1].verdict,
        "record": monitor.record_path.name,
        "error": monitor.last_error,
        "state": len(monitor.state_dict()["results"]),
    }


def main(folder, strategy):
    torch.set_num_threads(1)  # OpenMP hangs in a fork of a process that has used its threads, with any module
    warnings.simplefilter("ignore")
    split = small_run.make_split()
    rule = StopRule(min_progress=1.0)
    monitor = small_run.monitor_of(split, dirpath=folder, rule=rule, save="best", background_steps=1)
    launched = {"strategy": strategy, "devices": 2}
    found = {}
    small_run.fit(folder, monitor, LISEarlyStopping(), steps=6, module=Failing(), **launched)
    found["first"] = seen(monitor)
    found["pickled"] = seen(pickle.loads(pickle.dumps(monitor)))
    small_run.fit(folder, monitor, steps=4, **launched)
    found["second"] = seen(monitor)
    small_run.fit(folder, monitor, steps=2)
    found["here"] = seen(monitor)
    (Path(folder) / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
