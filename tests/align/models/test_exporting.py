"""Folders that encoders of all families are saved to, and what reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lis_lightning.align.models import (
    DualEncoder,
    ItemEncoder,
    TextEncoder,
    Tuning,
    VisionEncoder,
    VisionLanguageEncoder as VLM,
)
from lis_lightning.align.models.checkpoints import describe_encoder, leave_out_base
from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.errors import ConfigError

KINDS = {"llava": VLM, "idefics": VLM, "siglip": DualEncoder, "bert": TextEncoder, "qwen": TextEncoder,
         "vit": VisionEncoder, "resnet": VisionEncoder}  # fmt: skip


def trained(kind, folder, **options):
    """Return an encoder whose trained weights are no longer those of the constructor."""
    with torch.random.fork_rng(), torch.no_grad(), quiet_transformers():
        torch.manual_seed(0)
        encoder = kind(folder, output_dim=4, **options).eval()
        for weight in encoder.parameters():
            if weight.requires_grad:
                weight.add_(0.03 * torch.randn_like(weight))
    return encoder


@pytest.mark.parametrize("family", KINDS)
def test_checkpoint_and_folders_give_equal_vectors(family, request, pictured, tmp_path):
    tuning = Tuning("full") if family == "resnet" else Tuning("lora", rank=2)
    encoder = trained(KINDS[family], request.getfixturevalue(family), tuning=tuning)
    expected = encoder.encode(pictured)
    state = {f"encoder.{name}": value.clone() for name, value in encoder.state_dict().items()}
    description = describe_encoder(encoder)
    leave_out_base(state, description, "encoder.")
    torch.save({"state_dict": state, "lis_encoder": description}, tmp_path / "best.ckpt")
    with quiet_transformers():
        encoder.save_pretrained(tmp_path / "adapters")
        encoder.save_pretrained(tmp_path / "merged", merge=True)
        for name in ("best.ckpt", "adapters", "merged"):
            vectors = ItemEncoder.from_checkpoint(tmp_path / name).encode(pictured)
            np.testing.assert_allclose(vectors, expected, atol=1e-6, err_msg=name)


def test_adapters_of_a_model_in_bfloat16_are_not_rounded(bert, pictured, tmp_path):
    encoder = trained(TextEncoder, bert, tuning=Tuning("lora", rank=2), torch_dtype="bfloat16")
    with quiet_transformers():
        encoder.save_pretrained(tmp_path)
        loaded = TextEncoder.from_checkpoint(tmp_path)
    np.testing.assert_array_equal(loaded.encode(pictured), encoder.encode(pictured))


def test_a_merged_folder_is_a_model_without_adapters(bert, pictured, tmp_path):
    encoder = trained(TextEncoder, bert, tuning=Tuning("lora", rank=2))
    with quiet_transformers():
        encoder.save_pretrained(tmp_path, merge=True)
        again = TextEncoder(tmp_path, output_dim=4).eval()
    again.head.load_state_dict(encoder.head.state_dict())
    np.testing.assert_allclose(again.encode(pictured), encoder.encode(pictured), atol=1e-6)


def test_saved_adapters_bring_the_weights_that_were_drawn_at_random(bert, pictured, tmp_path):
    from safetensors.torch import load_file, save_file

    with quiet_transformers():
        trained(TextEncoder, bert).save_pretrained(tmp_path / "base")
    weights = load_file(tmp_path / "base/model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "base/model.safetensors", {"format": "pt"})
    with pytest.warns(match="1 weights are not in .* were drawn at random"):
        encoder = trained(TextEncoder, tmp_path / "base", tuning=Tuning("lora", rank=2))
    encoder.save_pretrained(tmp_path / "adapters")
    with pytest.warns(match="drawn at random"):
        loaded = TextEncoder.from_checkpoint(tmp_path / "adapters")
    np.testing.assert_allclose(loaded.encode(pictured), encoder.encode(pictured), atol=1e-6)


def test_error_on_what_the_layout_of_sentence_transformers_cannot_express(bert, tmp_path):
    encoder = trained(TextEncoder, bert, prompt="{text} in one word:")
    with pytest.raises(ConfigError, match=r"a prompt that goes on after the text \(' in one word:'\)"):
        encoder.save_pretrained(tmp_path, sentence_transformers=True)
