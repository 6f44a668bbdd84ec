from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lis_lightning.align._tiny import hugging_face, make_tiny_vlm, quiet_transformers
from lis_lightning.align.items import ItemTable
from lis_lightning.align.models import FeatureEncoder, ItemEncoder, VisionLanguageEncoder
from lis_lightning.errors import ConfigError, ItemError, LisWarning, ShapeError


@pytest.fixture(scope="module")
def llava(pictured, models):
    return make_tiny_vlm(models, pictured.texts)


@pytest.fixture(scope="module")
def idefics(llava, tmp_path_factory):
    """A tiny Idefics3, whose images become several tiles, with a chat template."""
    hf = hugging_face()
    tokenizer = hf.AutoProcessor.from_pretrained(llava).tokenizer
    images = hf.Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    template = (
        "{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    processor = hf.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = hf.Idefics3Config(
        vision_config={**sizes, "image_size": 16, "patch_size": 4},
        text_config={**sizes, "model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 0},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    folder = tmp_path_factory.mktemp("idefics")
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        hf.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def _encoder(folder, **options) -> VisionLanguageEncoder:
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        return VisionLanguageEncoder(folder, **options).eval()


def _features(num_items=40, dim=6, seed=0) -> ItemTable:
    features = np.random.default_rng(seed).standard_normal((num_items, dim)).astype(np.float32)
    return ItemTable(np.arange(num_items), ("",) * num_items, (None,) * num_items, features)


# features


def test_features_start_as_their_principal_components():
    items = _features()
    encoder = FeatureEncoder.from_items(items, output_dim=3)
    batch = next(iter(encoder.loader(encoder.prepare(items, ""))))
    z = (items.features - items.features.mean(0)) / items.features.std(0)
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    out = encoder(batch).detach().numpy()
    np.testing.assert_allclose(np.abs(out), np.abs(u[:, :3] * s[:3]), rtol=1e-3, atol=1e-4)


def test_features_keep_their_geometry_where_no_dimension_is_dropped():
    items = _features()
    encoder = FeatureEncoder.from_items(items)
    assert encoder.output_dim == 6
    out = encoder(next(iter(encoder.loader(encoder.prepare(items, ""))))).detach()
    z = torch.from_numpy((items.features - items.features.mean(0)) / items.features.std(0))
    torch.testing.assert_close(out @ out.T, z @ z.T, rtol=1e-4, atol=1e-4)


def test_features_branch_learns():
    items = _features()
    encoder = FeatureEncoder.from_items(items, hidden_dim=8)
    encoder(next(iter(encoder.loader(encoder.prepare(items, ""))))).square().sum().backward()
    assert encoder.residual[2].weight.grad.abs().max() > 0


def test_linear_head_has_one_matrix():
    encoder = FeatureEncoder(6, output_dim=3, hidden_dim=0)
    assert [tuple(weight.shape) for weight in encoder.parameters()] == [(3, 6)]


def test_statistics_travel_with_the_weights():
    items = _features()
    encoder, other = FeatureEncoder.from_items(items), FeatureEncoder(6, output_dim=6)
    other.load_state_dict(encoder.state_dict())
    batch = next(iter(encoder.loader(encoder.prepare(items, ""))))
    assert torch.equal(encoder(batch), other(batch))


@pytest.mark.parametrize("constant", [0, slice(None)], ids=["one column", "all"])
def test_constant_features_stay_finite(constant):
    items = _features()
    items.features[:, constant] = 3.0
    encoder = FeatureEncoder.from_items(items)
    assert torch.isfinite(encoder(next(iter(encoder.loader(encoder.prepare(items, "")))))).all()


def test_error_without_features(pictured):
    with pytest.raises(ItemError, match=r"The 6 items have no precomputed features.*model=vlm"):
        FeatureEncoder.from_items(pictured)


def test_error_on_features_of_another_kind():
    with pytest.raises(ShapeError, match="reads 6 features an item, but got 5"):
        FeatureEncoder(6, output_dim=2).prepare(_features(dim=5), "")


@pytest.mark.parametrize(("output_dim", "hidden_dim"), [(7, 4), (0, 4), (3, -1)])
def test_error_on_dimensions(output_dim, hidden_dim):
    with pytest.raises(ConfigError, match=rf"the 6 dimensions.* got {output_dim} and {hidden_dim}"):
        FeatureEncoder(6, output_dim=output_dim, hidden_dim=hidden_dim)


def test_base_class_promises_only():
    encoder = ItemEncoder()
    for call in (lambda: encoder.prepare(_features(), ""), lambda: encoder.collate([]), lambda: encoder({})):
        with pytest.raises(NotImplementedError):
            call()


# images and texts


@pytest.mark.parametrize("kind", ["llava", "idefics"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_batch_equals_one_by_one(kind, pooling, pictured, tmp_path, request):
    encoder = _encoder(request.getfixturevalue(kind), pooling=pooling, output_dim=8)
    items = encoder.prepare(pictured, tmp_path)
    rows = [items[row] for row in range(len(items))]
    assert len({len(row["input_ids"]) for row in rows}) > 2
    with torch.no_grad():
        together = encoder(encoder.collate(rows))
        alone = torch.cat([encoder(encoder.collate([row])) for row in rows])
    assert together.shape == (6, 8)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert torch.pdist(together).min() > 1e-3


@pytest.mark.parametrize("kind", ["llava", "idefics"])
def test_image_and_text_both_count(kind, pictured, tmp_path, request):
    encoder = _encoder(request.getfixturevalue(kind))
    rows = replace(pictured, texts=("same",) * 6), replace(pictured, images=(None,) * 6)
    for items in rows:
        out = encoder(next(iter(encoder.loader(encoder.prepare(items, tmp_path)))))
        assert torch.pdist(out).max() > 1e-4


@pytest.mark.parametrize("kind", ["llava", "idefics"])
def test_gradients_reach_vision_and_language(kind, pictured, tmp_path, request):
    encoder = _encoder(request.getfixturevalue(kind)).train()
    encoder(next(iter(encoder.loader(encoder.prepare(pictured, tmp_path))))).pow(3).sum().backward()
    with_gradient = {name for name, weight in encoder.named_parameters() if weight.grad is not None}
    for part in ("patch_embedding.weight", "embed_tokens.weight", "head.0.weight"):
        assert any(name.endswith(part) for name in with_gradient), part


def test_pooled_state_without_a_head(llava, pictured, tmp_path):
    encoder = _encoder(llava, output_dim=None)
    assert encoder.output_dim == 64
    assert isinstance(encoder.head, nn.Identity)
    assert encoder(next(iter(encoder.loader(encoder.prepare(pictured, tmp_path))))).shape == (6, 64)


def test_mean_pools_the_last_hidden_states(llava, pictured, tmp_path):
    encoder = _encoder(llava, output_dim=None)
    batch = encoder.collate([encoder.prepare(pictured, tmp_path)[0]])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        states = encoder.model(**inputs, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(encoder(batch)[0], states[0].mean(dim=0))


def test_head_standardises_in_training(llava, pictured, tmp_path):
    encoder = _encoder(llava).train()
    out = encoder(next(iter(encoder.loader(encoder.prepare(pictured, tmp_path)))))
    assert out.mean(dim=0).abs().max() < 1e-5


def test_ids_of_a_batch(llava, pictured, tmp_path):
    encoder = _encoder(llava)
    batch = next(iter(encoder.loader(encoder.prepare(pictured, tmp_path))))
    assert batch["item_id"].tolist() == [10, 11, 12, 13, 14, 15]
    named = replace(pictured, ids=np.array(list("abcdef")))
    assert next(iter(encoder.loader(encoder.prepare(named, tmp_path))))["item_id"] == list("abcdef")


def test_long_text_is_cut_and_special_words_are_not_obeyed(llava, pictured, tmp_path):
    encoder = _encoder(llava, max_text_tokens=5)
    items = replace(pictured, texts=("word " * 50, "<image> twice <image>", "<pad></s>", "a", "b", "c"))
    batch = next(iter(encoder.loader(encoder.prepare(items, tmp_path))))
    image = encoder.processor.image_token_id
    assert (batch["input_ids"] == image).sum(dim=1).tolist() == [16] * 6
    assert batch["attention_mask"].sum(dim=1).max() <= 16 + 5 + 1
    encoder(batch)


def test_prompt_stands_around_the_text(llava, pictured, tmp_path):
    encoder = _encoder(llava, prompt="item: {text} !")
    row = encoder.prepare(pictured, tmp_path)[0]
    assert encoder.processor.tokenizer.decode(row["input_ids"]).endswith("item: red lamp !")


def test_chat_template_places_the_image(idefics, pictured, tmp_path):
    encoder = _encoder(idefics)
    row = encoder.prepare(pictured, tmp_path)[1]
    assert row["pixel_values"].ndim == 5
    assert (row["input_ids"] == encoder.processor.image_token_id).sum() == 4 * row["pixel_values"].shape[1]


# the cache


def _counted(encoder):
    calls = []
    processor = encoder.processor
    encoder.processor = type(
        "Counting",
        (),
        {
            "__call__": lambda self, *args, **kwargs: calls.append(1) or processor(*args, **kwargs),
            "__getattr__": lambda self, name: getattr(processor, name),
        },
    )()
    encoder.processor.__class__.__name__ = type(processor).__name__
    return calls


def test_items_are_processed_once(llava, pictured, tmp_path):
    first, second = _encoder(llava), _encoder(llava)
    calls, calls_again = _counted(first), _counted(second)
    rows = first.prepare(pictured, tmp_path)
    again = second.prepare(pictured, tmp_path)
    assert (len(calls), len(calls_again)) == (6, 0)
    assert torch.equal(rows[3]["pixel_values"], again[3]["pixel_values"])


def test_changed_image_text_or_prompt_is_processed_anew(llava, pictured, tmp_path):
    from PIL import Image

    encoder = _encoder(llava)
    calls = _counted(encoder)
    Image.new("RGB", (20, 20), (1, 2, 3)).save(tmp_path / "0.png")
    items = replace(pictured, images=(tmp_path / "0.png", *pictured.images[1:]))
    before = encoder.prepare(items, tmp_path)[0]["pixel_values"]
    Image.new("RGB", (20, 20), (200, 2, 3)).save(tmp_path / "0.png")
    assert (encoder.prepare(items, tmp_path)[0]["pixel_values"] != before).any()
    assert len(calls) == 12
    encoder.prepare(replace(items, texts=("other", *items.texts[1:])), tmp_path)
    encoder.prompt = "{text}."
    encoder.prepare(items, tmp_path)
    assert len(calls) == 24


def test_bad_image_raises_or_is_blank(llava, pictured, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    items = replace(pictured, images=(tmp_path / "bad.png", *pictured.images[1:]))
    with pytest.raises(ItemError, match=r"bad\.png"):
        _encoder(llava).prepare(items, tmp_path)
    rows = _encoder(llava, on_bad_image="blank").prepare(items, tmp_path)
    assert torch.equal(rows[0]["pixel_values"], rows[5]["pixel_values"])


# options


def test_frozen_backbone_trains_the_head_alone(llava, pictured, tmp_path):
    encoder = _encoder(llava, freeze="backbone").train()
    assert [name for name, weight in encoder.named_parameters() if weight.requires_grad] == ["head.0.weight"]
    assert encoder.training
    assert not encoder.model.training
    encoder(next(iter(encoder.loader(encoder.prepare(pictured, tmp_path))))).pow(3).sum().backward()
    assert encoder.head[0].weight.grad.abs().max() > 0


def test_gradient_checkpointing_changes_no_gradient(llava, pictured, tmp_path):
    gradients = []
    for checkpointing in (False, True):
        encoder = _encoder(llava, gradient_checkpointing=checkpointing).train()
        encoder(next(iter(encoder.loader(encoder.prepare(pictured, tmp_path))))).pow(3).sum().backward()
        gradients.append(encoder.model.get_input_embeddings().weight.grad)
    assert encoder.model.is_activation_checkpointing
    torch.testing.assert_close(*gradients)


def test_bfloat16_backbone_gives_float32(llava, pictured, tmp_path):
    encoder = _encoder(llava, torch_dtype="bfloat16")
    assert encoder.model.dtype == torch.bfloat16
    assert encoder(next(iter(encoder.loader(encoder.prepare(pictured, tmp_path))))).dtype == torch.float32


def test_tiny_model_is_made_from_the_items(pictured, tmp_path):
    encoder = VisionLanguageEncoder.from_items(pictured, cache_dir=tmp_path, output_dim=4)
    assert encoder.output_dim == 4
    assert len(list((tmp_path / "models").glob("tiny-llava-*/model.safetensors"))) == 1
    assert encoder.training
    assert encoder.model.training


def test_from_items_loads_a_folder(llava, pictured, tmp_path):
    with quiet_transformers():
        encoder = VisionLanguageEncoder.from_items(pictured, cache_dir=tmp_path, model=llava, pooling="last")
    assert encoder.pooling == "last"
    assert list(tmp_path.iterdir()) == []


# what cannot be loaded


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"prompt": "what is it?"}, r"must contain \{text\}.*'what is it\?'"),
        ({"pooling": "max"}, "`pooling` must be one of mean, last, but got 'max'"),
        ({"freeze": "vision"}, "`freeze` must be one of none, backbone, but got 'vision'"),
        ({"max_text_tokens": 0}, "1 or more, but got 0"),
        ({"torch_dtype": "int8"}, "float32, bfloat16, float16, but got 'int8'"),
    ],
)
def test_error_on_options(llava, options, match):
    with pytest.raises(ConfigError, match=match):
        VisionLanguageEncoder(llava, **options)


def test_error_on_folder_without_a_model(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=r"has no config\.json \(it holds notes\.txt\)"):
        VisionLanguageEncoder(tmp_path)


@pytest.mark.parametrize("name", ["/no/such/model", "./model", "a/b/c"])
def test_error_on_folder_that_is_not_there(name):
    with pytest.raises(ConfigError, match=r"does not exist.*model=tiny"):
        VisionLanguageEncoder(name)


def test_error_on_unreachable_hub_id(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(hugging_face().AutoProcessor, "from_pretrained", offline)
    with pytest.raises(ConfigError, match=r"some/model cannot be loaded.*couldn't connect.*hf download some/model"):
        VisionLanguageEncoder("some/model")


def test_error_on_processor_that_needs_torchvision(monkeypatch):
    def no_torchvision(*args, **kwargs):
        raise ImportError("Qwen2VLVideoProcessor requires the Torchvision library")

    monkeypatch.setattr(hugging_face().AutoProcessor, "from_pretrained", no_torchvision)
    with pytest.raises(ConfigError, match=r"some/model.*pip install torchvision"):
        VisionLanguageEncoder("some/model")


def test_error_on_other_missing_package(monkeypatch):
    def no_package(*args, **kwargs):
        raise ImportError("requires the sentencepiece library")

    monkeypatch.setattr(hugging_face().AutoProcessor, "from_pretrained", no_package)
    with pytest.raises(ConfigError, match=r"A package is missing: requires the sentencepiece library"):
        VisionLanguageEncoder("some/model")


def test_error_on_text_model(llava, tmp_path):
    hugging_face().BertConfig().save_pretrained(tmp_path)
    hugging_face().AutoProcessor.from_pretrained(llava).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"not a model that takes images and texts.*BertConfig"):
        VisionLanguageEncoder(tmp_path)


def test_error_on_model_without_processor(llava, tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((llava / name).read_bytes())
    with pytest.raises(ConfigError, match=r"processor"):
        VisionLanguageEncoder(tmp_path)


def test_warning_on_missing_weights(llava, tmp_path):
    from safetensors.torch import load_file, save_file

    for path in llava.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(llava / "model.safetensors")
    removed = next(name for name in weights if name.endswith("linear_2.weight"))
    save_file({name: weight for name, weight in weights.items() if name != removed}, tmp_path / "model.safetensors")
    with pytest.warns(LisWarning, match=r"1 weights are not in .*linear_2\.weight"):
        VisionLanguageEncoder(tmp_path)
