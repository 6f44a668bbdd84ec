"""Models of sentence-transformers are pooled, projected and prompted as their files say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import linear, normalize

from lis_lightning.align.models import TextEncoder, Tuning
from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.errors import ConfigError
from tests.align.models import zoo


def _encoder(folder, **options):
    with torch.random.fork_rng(), quiet_transformers():
        return TextEncoder(folder, **{"output_dim": None, **options}).eval()


def _encoded(encoder, items, folder):
    batch = next(iter(encoder.loader(encoder.prepare(items, folder))))
    with torch.no_grad():
        states = encoder.model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return encoder(batch), states, batch


@pytest.mark.parametrize("subfolder", ["", "0_Transformer"])
def test_pooling_and_unit_length_are_those_of_the_folder(subfolder, bert, pictured, tmp_path):
    encoder = _encoder(zoo.sentence_bert(tmp_path / "model", bert, subfolder=subfolder))
    out, states, _ = _encoded(encoder, pictured, tmp_path)
    assert encoder.pooling == "cls"
    torch.testing.assert_close(out, normalize(states[:, 0], dim=-1))


def test_the_dense_layer_is_applied_and_tuned_like_the_model(bert, pictured, tmp_path):
    folder = zoo.sentence_bert(tmp_path / "model", bert, dense=True)
    encoder = _encoder(folder)
    out, states, _ = _encoded(encoder, pictured, tmp_path)
    weights = load_file(folder / "2_Dense/model.safetensors")
    dense = torch.tanh(linear(states[:, 0], weights["linear.weight"], weights["linear.bias"]))
    torch.testing.assert_close(out, normalize(dense, dim=-1))
    assert encoder.output_dim == 16
    assert encoder.sentence_layers[0][0].weight.requires_grad
    assert any(weight is encoder.sentence_layers[0][0].weight for weight in encoder.backbone_parameters())
    frozen = _encoder(folder, tuning=Tuning("lora"), output_dim=4)
    assert not frozen.sentence_layers[0][0].weight.requires_grad


def test_prompt_case_and_length_are_those_of_the_folder(bert, pictured, tmp_path):
    encoder = _encoder(zoo.sentence_bert(tmp_path / "model", bert, prompt="item: "))
    rows = encoder.prepare(replace(pictured, texts=("CUP", *pictured.texts[1:])), tmp_path)
    assert encoder.prompt == "item: {text}"
    assert max(len(rows[row]["input_ids"]) for row in range(6)) == 6
    plain = _encoder(tmp_path / "model", prompt="{text}").prepare(replace(pictured, texts=("CUP",) * 6), tmp_path)
    assert encoder.processor.decode(plain[0]["input_ids"], skip_special_tokens=True).strip() == "cup"


def test_a_given_pooling_comes_before_that_of_the_folder(bert, tmp_path):
    assert _encoder(zoo.sentence_bert(tmp_path, bert, pooling="max"), pooling="mean").pooling == "mean"
    assert _encoder(zoo.sentence_bert(tmp_path, bert, pooling="lasttoken")).pooling == "last"
    assert _encoder(bert).pooling == "mean"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"pooling": "max"},
            "modules.json pools by 'max', which is not offered here. Set `pooling` to mean, cls or last",
        ),
        ({"module": "LSTM"}, "has a module LSTM, which is not offered here; there are one Transformer, Pooling, Dense"),
    ],
)
def test_error_on_what_cannot_be_done_as_the_folder_says(options, match, bert, tmp_path):
    with pytest.raises(ConfigError, match=match):
        _encoder(zoo.sentence_bert(tmp_path, bert, **options))
