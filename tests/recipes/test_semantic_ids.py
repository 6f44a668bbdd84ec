import importlib.util

import numpy as np
import pytest

from lis_lightning.cli import resource_dir
from lis_lightning.results import LISResult
from lis_lightning.results.reading import Reading


@pytest.fixture(scope="module")
def recipe():
    path = resource_dir("recipes") / "semantic_ids" / "semantic_ids.py"
    spec = importlib.util.spec_from_file_location("semantic_ids", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_study_reads_worlds_with_known_truth(recipe, monkeypatch):
    monkeypatch.delenv("LIS_DATA", raising=False)
    monkeypatch.setattr(recipe, "WORLD", {"num_users": 60, "num_events": 2000})
    monkeypatch.setattr(recipe, "CATALOGUES", (50,))
    found = list(recipe.worlds([1]))
    assert [name for name, _, _ in found] == ["50 items, clean, seed 1", "50 items, noisy, seed 1"]
    _, split, vectors = found[0]
    assert vectors.shape == (split.num_items, 106)
    assert np.ptp(recipe.readings(split.item_ids, 0)["one_code"].codes) == 0


def test_the_table_has_a_row_for_each_reading(recipe):
    reading = Reading(ais=0.01, ais_low=0.0, ais_high=0.02, retained=0.5, retained_low=0.4, retained_high=0.6)
    result = LISResult(
        ais=0.02, ais_low=0.01, ais_high=0.03, ais_geometry=0.0, auc_base=0.7, auc=0.72, reads={"codes": reading}
    )
    assert recipe.table({"here": result}).splitlines()[2:] == [
        "| (AIS of the vectors) | 0.0200 |", "| codes | 0.50 [0.40, 0.60] |",
    ]  # fmt: skip
