"""Runs on disk as a training leaves them: real scores of representations that get better, and items with titles."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from lis_lightning.report import find_runs
from lis_lightning.results.jobs import Job
from lis_lightning.results.movers import Catalogue
from lis_lightning.results.record import Record
from lis_lightning.results.snapshot import Snapshot

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="session")
def scored(split, latents):
    """Results of seven snapshots whose noise goes down, by seed of the noise; four without a ceiling but for seed 0."""

    def score(seed, quality=1.0):
        noise = np.random.default_rng(seed).standard_normal(latents.shape)
        levels = [6.0, 2.0, 1.0, 0.6, 0.5, 0.5, 0.5][: 4 if seed else 7]
        ceilings = () if seed else ("pairs",)
        found = [
            split.score(quality * latents + level * noise, ceilings=ceilings, placebo=not (step or seed))
            for step, level in enumerate(levels)
        ]
        return [
            Snapshot.of(one, step=25 * step, encode_seconds=0.5, score_seconds=0.25) for step, one in enumerate(found)
        ]

    known = {}
    return lambda seed, quality=1.0: known.setdefault((seed, quality), score(seed, quality))


@pytest.fixture(scope="session")
def write_run(split, scored, tmp_path_factory):
    """Writes the record of a run into a folder as LISMonitor does: with items, a job and an end where asked for."""
    pictures = tmp_path_factory.mktemp("pictures")
    for item in split.item_ids.tolist():
        Image.new("RGB", (40, 60), (item % 255, 90, 160)).save(pictures / f"{item}.png")
    (pictures / f"{split.item_ids[1]}.png").write_bytes(b"no picture")

    def write(folder, *, seed=0, quality=1.0, recipe=None, ended=True, items=True, num=None, run_name=""):
        results = scored(seed, quality)[:num]
        record = Record.create(
            folder / "record.jsonl", run_id=f"{folder}", split_hash=split.hash, split=split.describe(),
            config={"schedule": "every 25 steps", "placebo": True, "run_name": run_name},
        )  # fmt: skip
        for result in results:
            record.append(result)
        if ended:
            record.status("end", best_step=0, verdict="plateau", cut_short_by=None)
        if items:
            ids = split.item_ids.tolist()
            table = pl.DataFrame(
                {
                    "item_id": ids,
                    "title": [HOSTILE if row % 2 else f"Item {one}" for row, one in enumerate(ids)],
                    "image": [str(pictures / f"{one}.png") for one in ids],
                }
            )
            Catalogue.of(split.item_ids, table).write(Catalogue.beside(record.path))
        if recipe is not None:
            done = Job(recipe=recipe, seed=seed, status="finished", record="record.jsonl", seconds=60.0, steps=150)
            done.write(folder)
        return record.path

    return write


@pytest.fixture(scope="session")
def one_run(write_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "my-run"
    write_run(folder)
    return folder


@pytest.fixture(scope="session")
def sweep_folder(write_run, tmp_path_factory):
    """Two recipes of two seeds each, and a control that gains nothing."""
    folder = tmp_path_factory.mktemp("sweep")
    for recipe, quality in (("good", 1.0), ("weak", 0.5), ("control", 0.0)):
        for seed in (1, 2):
            write_run(folder / f"{recipe}-{seed}", recipe=recipe, quality=quality, seed=seed)
    return folder


@pytest.fixture(scope="session")
def runs(sweep_folder):
    return find_runs([sweep_folder])
