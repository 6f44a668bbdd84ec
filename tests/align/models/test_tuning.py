from __future__ import annotations

import pytest
import torch

from lis_lightning.align.models import DualEncoder, TextEncoder, Tuning, VisionEncoder, VisionLanguageEncoder
from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.errors import ConfigError


def _trained(kind, folder, tuning, **options):
    with quiet_transformers():
        encoder = kind(folder, tuning=tuning, **options)
    return [name for name, weight in encoder.named_parameters() if weight.requires_grad and name != "head.0.weight"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mode": "freeze"}, "`mode` of the tuning must be one of full, head, lora, last, but got 'freeze'"),
        ({"towers": "text"}, "`towers` of the tuning must be one of language, vision, all, but got 'text'"),
        ({"layers": 0}, "`layers` must be 1 or more, but got 0"),
        ({"rank": -1}, "`rank` must be 1 or more, but got -1"),
        ({"dropout": 1.0}, r"`dropout` must be from 0 to below 1, but got 1\.0"),
        ({"alpha": 0}, "`alpha` must be 1 or more, but got 0"),
    ],
)
def test_error_on_options(options, match):
    with pytest.raises(ConfigError, match=match):
        Tuning(**options)


@pytest.mark.parametrize("mode", ["full", "lora", "last"])
@pytest.mark.parametrize(
    ("towers", "parts"), [("language", {"text"}), ("vision", {"vision"}), ("all", {"text", "vision"})]
)
def test_towers_are_chosen(mode, towers, parts, clip):
    trained = _trained(DualEncoder, clip, Tuning(mode, towers=towers, rank=2))
    towered = {name for name in trained if "projection" not in name}
    assert {name.split(".")[1].removesuffix("_model") for name in towered} == parts
    assert (towered != set(trained)) == (mode == "full" and towers == "all")


def _adapted(trained):
    return {name.split(".lora_")[0].rpartition(".")[2] for name in trained}


ATTENTION, MLP = {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(
    ("kind", "family", "tuning", "names"),
    [
        (TextEncoder, "bert", Tuning("lora"), {"query", "value"}),
        (TextEncoder, "bert", Tuning("lora", targets="all-linear"), {"query", "key", "value", "dense"}),
        (TextEncoder, "bert", Tuning("lora", targets="dense"), {"dense"}),
        (TextEncoder, "qwen", Tuning("lora"), ATTENTION | MLP),
        (TextEncoder, "qwen", Tuning("lora", targets=["q_proj"]), {"q_proj"}),
        (VisionLanguageEncoder, "llava", Tuning("lora"), ATTENTION | MLP),
        (DualEncoder, "clip", Tuning("lora", targets=["fc1"], rank=3), {"fc1"}),
    ],
)
def test_adapters_go_to_all_layers_of_a_decoder_else_to_queries_and_values_or_named(
    kind, family, tuning, names, request
):
    trained = _trained(kind, request.getfixturevalue(family), tuning)
    assert _adapted(trained) == names
    assert len(trained) % len(names) == 0


def test_every_layer_kind_of_a_hybrid_decoder_gets_adapters(qwen_hybrid):
    trained = _trained(TextEncoder, qwen_hybrid, Tuning("lora"))
    linear_attention = {"in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj"}
    assert _adapted(name for name in trained if "layers.0." in name) == linear_attention | MLP
    assert _adapted(name for name in trained if "layers.1." in name) == ATTENTION | MLP


def test_towers_have_targets_of_their_own(clip):
    targets = {"language": "all-linear", "vision": ["q_proj", "v_proj"]}
    trained = _trained(DualEncoder, clip, Tuning("lora", towers="all", targets=targets))
    assert _adapted(name for name in trained if "vision_model" in name) == {"q_proj", "v_proj"}
    assert "fc1" in _adapted(name for name in trained if "text_model" in name)
    with quiet_transformers(), pytest.raises(ConfigError, match="names the tower 'vision', but language is tuned"):
        DualEncoder(clip, tuning=Tuning("lora", targets=targets))


def test_rank_and_alpha_scale_the_change(bert):
    with quiet_transformers():
        encoder = TextEncoder(bert, tuning=Tuning("lora", rank=4, alpha=12))
    layer = encoder.model.encoder.layer[0].attention.self.query
    assert layer.lora_A["default"].weight.shape == (4, 64)
    assert layer.scaling["default"] == 3.0


def test_one_seed_gives_one_head_in_all_modes(bert):
    heads = []
    for mode in ("full", "head", "lora", "last"):
        with torch.random.fork_rng(), quiet_transformers():
            torch.manual_seed(3)
            heads.append(TextEncoder(bert, tuning=Tuning(mode)).head[0].weight)
    assert all(torch.equal(head, heads[0]) for head in heads)


def test_a_tower_that_is_not_trained_has_no_dropout(clip):
    with quiet_transformers():
        encoder = DualEncoder(clip, tuning=Tuning("lora")).train()
    assert encoder.model.text_model.training
    assert not any(part.training for part in encoder.model.vision_model.modules())


def test_frozen_batch_norms_keep_their_statistics(resnet, pictured, tmp_path):
    with quiet_transformers():
        encoder = VisionEncoder(resnet, tuning=Tuning("last", layers=1)).train()
    before = {name: value.clone() for name, value in encoder.model.named_buffers()}
    encoder(next(iter(encoder.loader(encoder.prepare(pictured, tmp_path)))))
    changed = {name for name, value in encoder.model.named_buffers() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("encoder.stages.1.") for name in changed)


@pytest.mark.parametrize(
    ("kind", "family", "tuning", "match"),
    [
        (TextEncoder, "bert", Tuning("last", layers=3), "language tower has 2 layers; .* but got 3"),
        (TextEncoder, "bert", Tuning("lora", towers="vision"), "no vision tower to tune; set towers=language"),
        (TextEncoder, "bert", Tuning("lora", targets=["q_proj"]), "no linear layer 'q_proj'; .* of dense, key"),
        (VisionLanguageEncoder, "git", Tuning("lora", towers="vision"), "no vision tower to tune; set towers=language"),
        (VisionEncoder, "resnet", Tuning("lora"), r"vision tower \(ResNetModel\) has no linear layers"),
    ],
)  # fmt: skip
def test_error_on_what_the_model_does_not_have(kind, family, tuning, match, request):
    with quiet_transformers(), pytest.raises(ConfigError, match=match):
        kind(request.getfixturevalue(family), tuning=tuning)


def test_error_where_nothing_would_be_trained(bert):
    with quiet_transformers(), pytest.raises(ConfigError, match="would train nothing; set `output_dim`"):
        TextEncoder(bert, output_dim=None, tuning=Tuning("head"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("mode", ["full", "last"])
def test_error_where_adamw_would_lose_its_updates(mode, dtype, bert):
    match = rf"Mode {mode} trains weights in {dtype}.*torch_dtype=float32.*trainer\.precision=bf16-mixed"
    with quiet_transformers(), pytest.raises(ConfigError, match=match):
        TextEncoder(bert, tuning=Tuning(mode), torch_dtype=dtype)
