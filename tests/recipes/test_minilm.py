"""The real encoder's recipe on a tiny model and a small world written as MovieLens with posters."""

import importlib.util

import numpy as np
import polars as pl
import pytest

from lis_lightning.align.models.tiny import make_tiny_text
from lis_lightning.align.world import generate_world
from lis_lightning.cli import resource_dir


def script(name):
    path = resource_dir("recipes") / "minilm" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def minilm():
    return script("minilm")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder of MovieLens with posters, and a text model as `save_pretrained` leaves it."""
    place = tmp_path_factory.mktemp("minilm")
    world = generate_world(place / "worlds", num_users=60, num_items=40, num_events=2500)
    folder = place / "movielens"
    (folder / "images").mkdir(parents=True)
    log = world.log.select(
        "user_id", "item_id", "timestamp", rating=pl.when(pl.col("clicked") == 1).then(5).otherwise(1)
    )
    log.write_parquet(folder / "interactions.parquet")
    items = {"item_id": world.items.ids, "title": world.items.titles, "text": world.items.texts}
    pl.DataFrame(items).with_columns(has_image=pl.lit(False)).write_parquet(folder / "items.parquet")
    np.save(folder / "image_efficientnet_lite0.npy", world.content_latents)
    return folder, make_tiny_text(place / "models", world.items.texts)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*in eval mode at the start:UserWarning")
@pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning")
def test_both_runs_print_their_curves_minutes_and_memory(minilm, small, tmp_path, capsys):
    folder, model = small
    minilm.main(
        [
            f"--model={model}", f"--folder={folder}", f"--out={tmp_path}", "--steps=2", "--every=1", "--batch-size=8",
            "--accelerator=cpu",
        ]
    )  # fmt: skip
    texts, fused = capsys.readouterr().out.partition("\ntexts\n")[2].split("\ntexts and images\n")
    for told in (texts, fused):
        steps = [line.split()[0] for line in told.splitlines() if line.strip()[:1].isdigit() and "[" in line]
        assert steps == ["0", "1", "2"]
        assert "headroom at step " in told
        assert "LIS, an estimate, " in told
        assert "verdict " in told
        assert "minutes; peak memory so far " in told
    assert texts != fused
    assert 0.1 < minilm.peak_gigabytes() < 100
    assert len(list(tmp_path.glob("*/record.jsonl"))) == 2


def test_what_cannot_be_read_is_a_message(minilm, tmp_path):
    with pytest.raises(SystemExit, match=r"minilm.py: ConfigError: The MovieLens folder .*absent does not exist"):
        minilm.main([f"--folder={tmp_path}/absent", f"--out={tmp_path}"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
def test_the_training_by_sentence_transformers_prints_its_curve_and_its_end(small, tmp_path, capsys):
    folder, model = small
    script("evaluator").main(
        [f"--model={model}", f"--folder={folder}", f"--out={tmp_path}", "--steps=2", "--every=1", "--batch-size=8"]
    )
    told = capsys.readouterr().out.partition(" texts\n")[2]
    steps = [line.split()[0] for line in told.splitlines() if "[" in line]
    assert steps == ["0", "1", "2"]
    assert "stopped at step 2 of 2: " in told
    assert "which is loaded" in told
    assert (tmp_path / "eval" / "record.jsonl").exists()
