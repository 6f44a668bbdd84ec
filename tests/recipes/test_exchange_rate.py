import importlib.util

import numpy as np

from lis_lightning.cli import resource_dir


def test_the_study_covers_the_rate_and_finds_the_break():
    path = resource_dir("recipes") / "exchange_rate" / "exchange_rate.py"
    spec = importlib.util.spec_from_file_location("exchange_rate_study", path)
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    setting = (10, 0.0, 0.0)
    straight = study.rates(setting, 20, breaks=False)
    assert np.mean([found.rate.low <= study.RATE <= found.rate.high for found in straight]) >= 0.8
    assert np.mean([found.broke_at is not None for found in study.rates(setting, 20, breaks=True)]) > 0.9
