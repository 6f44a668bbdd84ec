"""What no gradient reaches is frozen and named, and a tuning that would not learn is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lis_lightning.align.models import TextEncoder, Tuning, VisionEncoder, VisionLanguageEncoder
from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.errors import ConfigError
from tests.align.models import zoo

KINDS = {
    "llava": VisionLanguageEncoder,
    "inner_llava": VisionLanguageEncoder,
    "idefics": VisionLanguageEncoder,
    "vit": VisionEncoder,
    "siglip_vision": VisionEncoder,
    "dinov2": VisionEncoder,
    "qwen": TextEncoder,
}


def _from_items(kind, items, folder, **options):
    with torch.random.fork_rng(), quiet_transformers():
        return kind.from_items(items, cache_dir="unused", model=folder, output_dim=8, **options)


@pytest.mark.parametrize("mode", ["full", "lora", "last"])
@pytest.mark.parametrize("family", KINDS)
def test_every_trained_weight_gets_a_gradient_as_ddp_demands(family, mode, pictured, tmp_path, request):
    encoder = _from_items(KINDS[family], pictured, request.getfixturevalue(family), tuning=Tuning(mode, layers=1))
    assert encoder.training
    assert all(weight.grad is None for weight in encoder.parameters())
    encoder(next(iter(encoder.loader(encoder.prepare(pictured, tmp_path))))).pow(3).mean().backward()
    trained = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert trained == {name for name, weight in encoder.named_parameters() if weight.grad is not None}


def test_what_is_frozen_is_named(inner_llava, pictured):
    encoder = _from_items(VisionLanguageEncoder, pictured, inner_llava)
    modules = {name.split("vision_tower.")[1] for name in encoder.unreached}
    assert any("layers.1." in name for name in modules)
    assert any("post_layernorm" in name for name in modules)
    assert not any("layers.0." in name for name in modules)


def test_without_any_image_the_vision_tower_is_frozen_unless_it_is_asked_for(llava, pictured):
    items = replace(pictured, images=(None,) * 6)
    encoder = _from_items(VisionLanguageEncoder, items, llava)
    assert any("vision_tower." in name for name in encoder.unreached)
    assert not any("language_model." in name for name in encoder.unreached)
    with pytest.raises(ConfigError, match="Mode last would train nothing of the vision tower"):
        _from_items(VisionLanguageEncoder, items, llava, tuning=Tuning("last", towers="vision"))


def test_adapters_of_a_layer_that_is_not_read_are_frozen_and_named(inner_llava, pictured):
    encoder = _from_items(VisionLanguageEncoder, pictured, inner_llava, tuning=Tuning("lora", towers="vision"))
    assert len(encoder.unreached) == 4
    assert all("layers.1." in name and "lora_" in name for name in encoder.unreached)
    assert sum("lora_" in name and weight.requires_grad for name, weight in encoder.named_parameters()) == 4


def test_error_on_layers_that_would_not_learn(inner_llava, pictured):
    match = r"Mode last would train nothing of the vision tower \(CLIPVisionModel\): .* any of its 18 trained weights"
    with pytest.raises(ConfigError, match=match):
        _from_items(VisionLanguageEncoder, pictured, inner_llava, tuning=Tuning("last", towers="vision", layers=1))


@pytest.mark.parametrize("mode", ["full", "last"])
def test_error_on_a_model_that_has_adapters(mode, bert, pictured, tmp_path):
    folder = zoo.adapted_bert(tmp_path, bert)
    with pytest.raises(ConfigError, match=rf"adapter_config\.json.*merge_and_unload.*got mode {mode}"):
        _from_items(TextEncoder, pictured, folder, tuning=Tuning(mode))
    assert _from_items(TextEncoder, pictured, folder, tuning=Tuning("head")).model.training is False


@pytest.mark.parametrize("alone", [False, True], ids=["beside the model", "adapters alone"])
def test_saved_adapters_are_trained_further(alone, bert, pictured, tmp_path):
    folder = zoo.adapted_bert(tmp_path, bert)
    saved = load_file(folder / "adapter_model.safetensors")
    if alone:
        (folder / "config.json").unlink()
        (folder / "model.safetensors").unlink()
    encoder = _from_items(TextEncoder, pictured, folder, tuning=Tuning("lora", rank=5))
    trained = {name: weight for name, weight in encoder.model.named_parameters() if weight.requires_grad}
    assert len(trained) == len(saved) == 4, "the rank of the saved adapters stays; none are added"
    for name, weight in trained.items():
        assert torch.equal(weight, saved[f"base_model.model.{name.replace('.default.', '.')}"])


def test_the_probe_draws_nothing_and_changes_no_weight(inner_llava, pictured):
    state = torch.get_rng_state()
    with quiet_transformers():
        plain = VisionLanguageEncoder(inner_llava, output_dim=8)
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        probed = VisionLanguageEncoder.from_items(pictured, cache_dir="unused", model=inner_llava, output_dim=8)
    assert torch.equal(torch.get_rng_state(), after)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in probed.state_dict().items())
