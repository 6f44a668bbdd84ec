"""Checkpoints of a run with adapters, which hold no weights of the base model: resuming, encoding and exporting."""

from __future__ import annotations

import copy
import json
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pytorch_lightning import Trainer
from safetensors.numpy import load_file

from lis_lightning.align.data import AlignmentData, read_vectors
from lis_lightning.align.models import ItemEncoder, TextEncoder, Tuning, VisionEncoder
from lis_lightning.align.models.checkpoints import describe_encoder
from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.align.models.tiny import make_tiny_text
from lis_lightning.align.objectives import PairContrastive
from lis_lightning.align.training import AlignmentModule, Monitoring, align
from lis_lightning.align.world import load_world
from lis_lightning.cli.encode import encode_command, main as lis_encode
from lis_lightning.errors import ConfigError

LORA = Tuning("lora", rank=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return load_world(folder, num_users=60, num_items=40, num_events=1500)


def run(world, folder, *, tuning=LORA, stop_at=None):
    encoder = partial(TextEncoder.from_items, cache_dir=folder.parent / "cache", output_dim=8, tuning=tuning)
    trainer = partial(
        Trainer, max_steps=6, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0, log_every_n_steps=1,
    )  # fmt: skip
    return align(
        world, encoder, trainer=trainer, loggers=list, objectives={"pairs": PairContrastive()}, regularisers={},
        training={"batch_size": 16, "learning_rate": 1e-2}, split_options={},
        monitoring=Monitoring(every_n_steps=3, save="all"), run_dir=folder, cache_dir=folder.parent / "cache", seed=0,
        stop_at=stop_at,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    with quiet_transformers():
        run(world, folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(finished):
    (path,) = (finished / "checkpoints").glob("best-step=*.ckpt")
    return path


def snapshot(folder, step):
    (path,) = folder.rglob(f"step-{step:08d}.safetensors")
    return path


def stored(path):
    tensors = load_file(path)
    return tensors["embeddings"], np.array(json.loads(tensors["item_ids"].tobytes()))


def test_it_holds_adapters_and_head_alone(checkpoint):
    names = torch.load(checkpoint, weights_only=True)["state_dict"]
    weights = {name for name in names if name.startswith("encoder.")}
    assert len(weights) == 8 + 4, "two matrices of queries and of values in two layers; head and its statistics"
    assert all("lora_" in name or name.startswith("encoder.head.") for name in weights)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_a_paused_run_goes_on_to_the_same_bits(world, finished, tmp_path):
    with quiet_transformers():
        assert run(world, tmp_path / "run", stop_at=3).paused
        resumed = run(world, tmp_path / "run")
    assert resumed.steps == 6
    for step in (3, 6):
        expected, _ = stored(snapshot(finished, step))
        np.testing.assert_array_equal(stored(snapshot(tmp_path / "run", step))[0], expected)


def test_the_command_that_a_run_prints_gives_the_vectors_of_the_snapshot(world, finished, checkpoint, capsys):
    command = encode_command({}, world, checkpoint, finished)
    lis_encode(shlex.split(command)[1:])
    assert "40 items, 8 dimensions" in capsys.readouterr().out
    expected, ids = stored(snapshot(finished, int(checkpoint.stem.partition("=")[2])))
    np.testing.assert_allclose(read_vectors(finished / "vectors.parquet", ids), expected, atol=1e-6)


def test_lis_encode_reads_the_columns_that_it_is_given(world, checkpoint, tmp_path, capsys):
    table = pl.DataFrame({"sku": world.items.ids[:3], "name": world.items.texts[:3]})
    table.write_csv(tmp_path / "items.csv")
    words = [str(checkpoint), str(tmp_path / "items.csv"), "-o", str(tmp_path / "vectors.parquet"), "--item-id", "sku"]
    with pytest.raises(SystemExit):
        lis_encode(words)
    assert "text" in capsys.readouterr().err
    lis_encode([*words, "--text", "name"])
    assert pl.read_parquet(tmp_path / "vectors.parquet")["item_id"].to_list() == world.items.ids[:3].tolist()
    with pytest.raises(SystemExit):
        lis_encode([*words, "--text", "name"])
    assert "exists already" in capsys.readouterr().err


def test_the_command_names_how_a_table_of_items_is_read(tmp_path):
    section = {"items": "items.csv", "item_id": "sku", "text": None, "image": "photo", "image_folder": None}
    command = encode_command(section, AlignmentData("log", None, {}, None), Path("best.ckpt"), Path("run"))
    assert command == "lis-encode best.ckpt items.csv --item-id sku --text '' --image photo -o run/vectors.parquet"
    several = encode_command(
        {**section, "text": ["text", "brand"]}, AlignmentData("log", None, {}, None), Path("b"), Path("r")
    )
    assert "--text text --text brand" in several, "a default among several columns is named"


def test_the_table_written_for_the_command_leaves_the_catalogue_of_the_report_alone(world, tmp_path):
    (tmp_path / "items.parquet").write_bytes(b"titles")
    command = encode_command({}, world, tmp_path / "best.ckpt", tmp_path)
    assert (tmp_path / "items.parquet").read_bytes() == b"titles"
    table = tmp_path / "items-to-encode.parquet"
    assert str(table) in command
    assert pl.read_parquet(table)["item_id"].to_list() == world.items.ids.tolist()


@pytest.mark.parametrize("merge", [False, True], ids=["adapters", "merged"])
def test_a_saved_folder_gives_the_vectors_of_the_checkpoint(merge, world, checkpoint, tmp_path):
    encoder = TextEncoder.from_checkpoint(checkpoint)
    expected = encoder.encode(world.items)
    with quiet_transformers():
        encoder.save_pretrained(tmp_path / "saved", merge=merge)
    assert (tmp_path / "saved/adapter_config.json").is_file() != merge
    loaded = TextEncoder.from_checkpoint(tmp_path / "saved")
    np.testing.assert_allclose(loaded.encode(world.items), expected, atol=1e-6)
    np.testing.assert_array_equal(encoder.encode(world.items), expected, "saving must leave the encoder as it was")


def test_sentence_transformers_reads_a_saved_folder(world, checkpoint, tmp_path):
    from sentence_transformers import SentenceTransformer

    encoder = TextEncoder.from_checkpoint(checkpoint)
    with quiet_transformers():
        encoder.save_pretrained(tmp_path / "saved", sentence_transformers=True)
        vectors = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(list(world.items.texts))
    np.testing.assert_allclose(vectors, encoder.encode(world.items), atol=1e-6)
    with quiet_transformers():
        again = TextEncoder(tmp_path / "saved", output_dim=None)
    np.testing.assert_allclose(again.eval().encode(world.items), vectors, atol=1e-6)


def test_a_checkpoint_of_another_class_is_refused(checkpoint):
    with pytest.raises(ConfigError, match=r"of the class lis_lightning.*TextEncoder, which is not a kind of VisionEnc"):
        VisionEncoder.from_checkpoint(checkpoint)


def test_an_argument_without_a_plain_form_is_asked_for(tmp_path):
    class Wrapped(ItemEncoder):
        def __init__(self, inner, output_dim):
            super().__init__()
            self.inner, self.output_dim = inner[0], output_dim

    encoder = Wrapped([torch.nn.Linear(2, 3)], output_dim=3)
    state = {f"encoder.{name}": weight for name, weight in encoder.state_dict().items()}
    torch.save({"state_dict": state, "lis_encoder": describe_encoder(encoder)}, tmp_path / "best.ckpt")
    with pytest.raises(ConfigError, match=r"has no value of inner of .*Wrapped; give it when loading"):
        ItemEncoder.from_checkpoint(tmp_path / "best.ckpt")


def test_it_loads_into_a_module_of_the_same_base_and_no_other(world, checkpoint, tmp_path):
    description = torch.load(checkpoint, weights_only=True)["lis_encoder"]
    with quiet_transformers():
        encoder = TextEncoder(description["arguments"]["model"], output_dim=8, tuning=LORA)
    other = copy.deepcopy(encoder)
    parts = {"objectives": {"pairs": PairContrastive()}}
    module = AlignmentModule.load_from_checkpoint(checkpoint, encoder=encoder, **parts)
    trained = TextEncoder.from_checkpoint(checkpoint)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in module.encoder.state_dict().items())
    with torch.no_grad():
        other.model.embeddings.word_embeddings.weight.add_(1)
    with pytest.raises(ConfigError, match=r"1 of the \d+ weights .* differ .* model\.embeddings\.word_embeddings"):
        AlignmentModule.load_from_checkpoint(checkpoint, encoder=other, **parts)


def test_lis_encode_takes_a_pretrained_model_before_any_training(tmp_path, capsys):
    texts = ["a red square", "two blue dots", "a green line"]
    folder = make_tiny_text(tmp_path / "models", texts)
    pl.DataFrame({"item_id": [3, 1, 2], "text": texts}).write_csv(tmp_path / "items.csv")
    output = tmp_path / "raw.parquet"
    lis_encode([str(folder), str(tmp_path / "items.csv"), "-o", str(output)])
    vectors = pl.read_parquet(output)
    assert vectors["item_id"].to_list() == [3, 1, 2]
    assert vectors["embedding"].to_numpy().shape == (3, 64)  # of the model itself, without a head
    lis_encode([str(folder), str(tmp_path / "items.csv"), "-o", str(output), "--force"])
    assert pl.read_parquet(output).equals(vectors)  # nothing in it is drawn
    with pytest.raises(SystemExit):
        lis_encode([str(folder), str(tmp_path / "items.csv"), "-o", str(output), "--force", "--model", "other"])
    assert "is a model itself. Leave it out." in capsys.readouterr().err
