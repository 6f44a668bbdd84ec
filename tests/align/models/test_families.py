"""One test for all kinds of model and all modes of fine-tuning."""

from __future__ import annotations

import pytest
import torch

from lis_lightning.align.models import DualEncoder, TextEncoder, Tuning, VisionEncoder, VisionLanguageEncoder
from lis_lightning.align.models.hugging_face import hugging_face, no_load_report, quiet_transformers
from lis_lightning.monitor import Encode

KINDS = {
    "llava": VisionLanguageEncoder,
    "idefics": VisionLanguageEncoder,
    "llava_interleave": VisionLanguageEncoder,
    "clip": DualEncoder,
    "siglip": DualEncoder,
    "bert": TextEncoder,
    "qwen": TextEncoder,
    "vit": VisionEncoder,
}
HEADS = {
    **dict.fromkeys(("llava", "llava_interleave", "idefics"), (VisionLanguageEncoder, "AutoModelForImageTextToText")),
    "qwen": (TextEncoder, "AutoModelForCausalLM"),
    **dict.fromkeys(("bert", "roberta"), (TextEncoder, "AutoModelForMaskedLM")),
    **dict.fromkeys(("vit", "dinov2", "swin"), (VisionEncoder, "AutoModelForImageClassification")),
}
# What the names of the tower hold that adapters and last layers go to, and of its last layer.
TOWER = {
    "llava": ("language_model.", "layers.1."),
    "idefics": ("text_model.", "layers.0."),
    "llava_interleave": ("language_model.", "layers.0."),
    "clip": ("text_model.", "layers.1."),
    "siglip": ("text_model.", "layers.1."),
    "bert": ("", "layer.1."),
    "qwen": ("", "layers.1."),
    "vit": ("", "layers.1."),
}
AFTER = {
    "llava": "norm",
    "idefics": "norm",
    "llava_interleave": "norm",
    "clip": "final_layer_norm",
    "siglip": "final_layer_norm",
    "qwen": "norm",
}
# LLaVA takes the patches before their last norm; everything else that is trained takes part.
UNREACHED = {"llava": {"post_layernorm"}, "llava_interleave": {"post_layernorm"}}
MODES = {
    "full": Tuning(),
    "head": Tuning("head"),
    "lora": Tuning("lora", rank=2),
    "last": Tuning("last", layers=1),
}
every_family = pytest.mark.parametrize("family", KINDS)
every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def build(request):
    def build(family, *, seed=0, **options):
        with torch.random.fork_rng(), quiet_transformers():
            torch.manual_seed(seed)
            return KINDS[family](request.getfixturevalue(family), **{"output_dim": 8, **options}).eval()

    return build


def _batch(encoder, items, folder):
    return next(iter(encoder.loader(encoder.prepare(items, folder))))


def _loss(encoder, batch):
    return encoder(batch).pow(3).mean()


@every_family
def test_a_batch_equals_its_items_one_by_one(family, build, pictured, tmp_path):
    encoder = build(family)
    items = encoder.prepare(pictured, tmp_path)
    rows = [items[row] for row in range(len(items))]
    with torch.no_grad():
        together = encoder(encoder.collate(rows))
        alone = torch.cat([encoder(encoder.collate([row])) for row in rows])
    assert together.shape == (6, encoder.output_dim) == (6, 8)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert torch.pdist(together).min() > 1e-4


@every_family
@every_mode
def test_gradients_flow_where_the_mode_says(family, mode, build, pictured, tmp_path):
    encoder = build(family, tuning=MODES[mode]).train()
    _loss(encoder, _batch(encoder, pictured, tmp_path)).backward()
    weights = dict(encoder.named_parameters())
    trained = {name for name, weight in weights.items() if weight.requires_grad}
    reached = {name for name, weight in weights.items() if weight.grad is not None}
    assert reached <= trained
    tower, last = TOWER[family]
    inner = {name.removeprefix("model.") for name in trained - {"head.0.weight"}}
    assert "head.0.weight" in reached
    if mode == "head":
        assert not inner
    elif mode == "lora":
        assert inner
        assert all("lora_" in name and tower in name for name in inner)
        assert reached == trained
    elif mode == "last":
        assert any(last in name for name in inner)
        after = AFTER.get(family, "layernorm")
        assert all(last in name or after in name.split(".")[-2] or "head." in name for name in inner)
        assert reached == trained
    else:
        assert {name.split(".")[-2] for name in trained - reached} <= UNREACHED.get(family, set())
        assert len(trained) > 0.9 * len(weights)


@every_family
@every_mode
def test_a_step_changes_what_is_trained_and_nothing_else(family, mode, build, pictured, tmp_path):
    encoder = build(family, tuning=MODES[mode]).train()
    batch = _batch(encoder, pictured, tmp_path)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    _loss(encoder, batch).backward()
    optimizer.step()
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {"head.1.running_mean", "head.1.running_var", "head.1.num_batches_tracked"}
    trained = {name for name, weight in encoder.named_parameters(remove_duplicate=False) if weight.requires_grad}
    assert statistics < changed
    assert changed - statistics <= trained
    assert "head.0.weight" in changed
    assert any(name.startswith("model.") for name in changed) == (mode != "head")


@every_family
def test_adapters_are_the_base_at_first_and_when_off(family, build, pictured, tmp_path):
    base = build(family, output_dim=None, tuning=Tuning())
    encoder = build(family, output_dim=None, tuning=Tuning("lora", rank=4, alpha=8))
    batch = _batch(base, pictured, tmp_path)
    with torch.no_grad():
        expected = base(batch)
        assert torch.equal(encoder(batch), expected)
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=1.0)
    _loss(encoder, batch).backward()
    optimizer.step()
    with torch.no_grad():
        assert not torch.equal(encoder(batch), expected)
        encoder.model.disable_adapters()
        assert torch.equal(encoder(batch), expected)


@every_family
@pytest.mark.parametrize("mode", ["lora", "last"])
def test_weights_travel_in_the_state_dict(family, mode, build, pictured, tmp_path):
    encoder, other = (build(family, seed=seed, tuning=MODES[mode]) for seed in (0, 1))
    batch = _batch(encoder, pictured, tmp_path)
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.requires_grad:
                weight.add_(0.01)
        assert not torch.equal(encoder(batch), other(batch))
        torch.save(encoder.state_dict(), tmp_path / "weights.pt")
        other.load_state_dict(torch.load(tmp_path / "weights.pt"))
        assert torch.equal(encoder(batch), other(batch))


@every_family
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_gradient_checkpointing_changes_no_gradient(family, mode, build, pictured, tmp_path):
    gradients = []
    for checkpointing in (False, True):
        encoder = build(family, tuning=MODES[mode], gradient_checkpointing=checkpointing).train()
        _loss(encoder, _batch(encoder, pictured, tmp_path)).backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    assert encoder.model.is_activation_checkpointing
    torch.testing.assert_close(*gradients)


def test_swin_with_adapters_recomputes_its_activations(swin, pictured, tmp_path):
    gradients = []
    for checkpointing in (False, True):
        with torch.random.fork_rng(), quiet_transformers():
            torch.manual_seed(0)
            options = {"tuning": Tuning("lora", rank=2), "gradient_checkpointing": checkpointing}
            encoder = VisionEncoder(swin, output_dim=8, **options).train()
            _loss(encoder, _batch(encoder, pictured, tmp_path)).backward()  # drops paths at random
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("family", HEADS)
def test_encode_reads_the_state_after_the_final_norm_of_a_model_with_a_head(family, request, pictured, tmp_path):
    kind, auto_class = HEADS[family]
    folder = request.getfixturevalue(family)
    with quiet_transformers(), no_load_report(), torch.random.fork_rng():
        encoder = kind(folder, output_dim=None).eval()
        model = getattr(hugging_face(), auto_class).from_pretrained(folder).eval()
    batch = _batch(encoder, pictured, tmp_path)
    inputs = {name: value for name, value in batch.items() if name != "item_id"}
    with torch.no_grad():
        states = encoder.model.base_model(**inputs, return_dict=True).last_hidden_state
        mask = batch.get("attention_mask", torch.ones(states.shape[:2]))[:, :, None]
        expected = (states * mask).sum(dim=1) / mask.sum(dim=1)
        torch.testing.assert_close(Encode("").bind(model)(model, batch), expected)


@every_family
def test_bfloat16_model_has_float32_head_and_adapters(family, build, pictured, tmp_path):
    encoder = build(family, torch_dtype="bfloat16", tuning=MODES["lora"]).train()
    assert encoder.model.dtype == torch.bfloat16
    assert {p.dtype for p in encoder.parameters() if p.requires_grad} == {torch.float32}
    out = encoder(_batch(encoder, pictured, tmp_path))
    assert out.dtype == torch.float32
    out.pow(3).mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.requires_grad)


@every_family
@every_mode
def test_an_evaluation_in_between_leaves_the_modes(family, mode, build):
    encoder = build(family, tuning=MODES[mode]).train()
    modes = [part.training for part in encoder.modules()]
    assert encoder.training
    assert encoder.model.training == (mode != "head")
    encoder.eval()
    assert not any(part.training for part in encoder.modules())
    encoder.train()
    assert [part.training for part in encoder.modules()] == modes
