from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.align.models.tiny import make_tiny_vlm

TEXTS = ("a red lamp", "a blue chair of wood", "a lamp of glass")


@pytest.fixture(scope="module")
def folder(models):
    return make_tiny_vlm(models, TEXTS)


def _load(folder):
    with quiet_transformers():
        return AutoModelForImageTextToText.from_pretrained(folder)


def test_loads_like_any_model(folder):
    assert isinstance(_load(folder), LlavaForConditionalGeneration)
    processor = AutoProcessor.from_pretrained(folder)
    assert isinstance(processor, LlavaProcessor)
    assert processor.tokenizer.decode(processor.tokenizer(TEXTS[1])["input_ids"]).strip() == TEXTS[1]


def test_round_trip_is_exact(folder, tmp_path):
    first = _load(folder)
    with quiet_transformers():
        first.save_pretrained(tmp_path)
    again = _load(tmp_path).state_dict()
    assert first.state_dict().keys() == again.keys()
    assert all(torch.equal(weight, again[name]) for name, weight in first.state_dict().items())


def test_unknown_bytes_have_tokens(folder):
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    text = "Zürich \u2192 \u4e2d\u6587 \U0001f600"
    assert tokenizer.decode(tokenizer(text)["input_ids"]).strip() == text


def test_same_arguments_reuse_the_folder(folder, models):
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert make_tiny_vlm(models, TEXTS) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_weights_come_from_the_seed_alone(folder, tmp_path):
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    again = make_tiny_vlm(tmp_path, TEXTS)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    other = make_tiny_vlm(tmp_path, TEXTS, seed=1)
    assert other != again
    assert (other / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()


def test_global_generators_are_left_alone(tmp_path):
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    make_tiny_vlm(tmp_path, TEXTS)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def test_damaged_model_is_made_again(tmp_path):
    folder = make_tiny_vlm(tmp_path, TEXTS)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-8])
    assert make_tiny_vlm(tmp_path, TEXTS) == folder
    assert (folder / "model.safetensors").read_bytes() == weights
