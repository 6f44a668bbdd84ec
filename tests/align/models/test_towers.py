"""Text, image and dual encoders: what each makes of its own options."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from lis_lightning.align.data import ItemTable
from lis_lightning.align.models import DualEncoder, TextEncoder, Tuning, VisionEncoder
from lis_lightning.align.models.hugging_face import hugging_face, quiet_transformers
from lis_lightning.errors import ConfigError, ItemError, LisWarning


def _encoder(kind, folder, **options):
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        return kind(folder, **{"output_dim": None, **options}).eval()


def _encoded(encoder, items, folder):
    with torch.no_grad():
        batch = next(iter(encoder.loader(encoder.prepare(items, folder))))
        return encoder(batch), batch


@pytest.mark.parametrize(("pooling", "position"), [("cls", 0), ("last", -1)])
def test_text_pools_one_token(pooling, position, bert, pictured, tmp_path):
    encoder = _encoder(TextEncoder, bert, pooling=pooling)
    row = encoder.prepare(pictured, tmp_path)[2]
    with torch.no_grad():
        states = encoder.model(row["input_ids"][None]).last_hidden_state
        torch.testing.assert_close(encoder(encoder.collate([row])), states[:, position])


def test_text_is_cut_and_put_into_the_prompt(bert, pictured, tmp_path):
    encoder = _encoder(TextEncoder, bert, prompt="passage: {text}!", max_text_tokens=3)
    items = replace(pictured, texts=("red lamp", "cup " * 9, "</s>", "a", "b", ""))
    rows = encoder.prepare(items, tmp_path)
    said = [encoder.processor.decode(rows[row]["input_ids"], skip_special_tokens=True).strip() for row in (0, 1, 5)]
    assert said == ["passage: red lamp!", "passage: cup cup cup!", "passage: !"]
    assert (rows[2]["input_ids"] == encoder.processor.eos_token_id).sum() == 1


def test_text_longer_than_the_model_reads_is_cut(bert, pictured, tmp_path):
    encoder = _encoder(TextEncoder, bert, max_text_tokens=10_000)
    items = replace(pictured, texts=("cup " * 500, *pictured.texts[1:]))
    _, batch = _encoded(encoder, items, tmp_path)
    assert batch["input_ids"].shape == (6, 64)


def test_text_longer_than_the_positions_of_roberta_is_cut(roberta, pictured, tmp_path):
    items = replace(pictured, texts=("cup " * 50, *pictured.texts[1:]))
    _, batch = _encoded(_encoder(TextEncoder, roberta), items, tmp_path)
    assert batch["input_ids"].shape == (6, 16)


def test_text_does_not_read_images(bert, pictured, tmp_path):
    encoder = _encoder(TextEncoder, bert)
    absent = replace(pictured, images=(Path("absent.png"),) * 6)
    assert torch.equal(_encoded(encoder, absent, tmp_path)[0], _encoded(encoder, pictured, tmp_path)[0])
    assert len(list((tmp_path / "items").glob("*-inputs"))) == 1


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_vision_pools_its_positions(family, pictured, tmp_path, request):
    encoder = _encoder(VisionEncoder, request.getfixturevalue(family))
    out, batch = _encoded(encoder, pictured, tmp_path)
    with torch.no_grad():
        states = encoder.model(batch["pixel_values"]).last_hidden_state
    expected = states[:, 1:].mean(dim=1) if family == "vit" else states.mean(dim=(2, 3))
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(("family", "num_before"), [("dinov2", 5), ("siglip_vision", 0), ("swin", 0)])
def test_vision_pools_patches_without_first_token_and_registers(family, num_before, pictured, tmp_path, request):
    out, batch = _encoded(encoder := _encoder(VisionEncoder, request.getfixturevalue(family)), pictured, tmp_path)
    with torch.no_grad():
        states = encoder.model(batch["pixel_values"]).last_hidden_state
    assert states.shape[1] > num_before
    torch.testing.assert_close(out, states[:, num_before:].mean(dim=1))


def test_siglip2_pools_no_padding(siglip2_vision, pictured, tmp_path):
    out, batch = _encoded(encoder := _encoder(VisionEncoder, siglip2_vision), pictured, tmp_path)
    counts = batch["pixel_attention_mask"].sum(dim=1)
    assert counts.max() < batch["pixel_attention_mask"].shape[1]
    inputs = {name: batch[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}
    with torch.no_grad():
        states = encoder.model(**inputs).last_hidden_state
    expected = torch.stack([row[:count].mean(dim=0) for row, count in zip(states, counts, strict=True)])
    torch.testing.assert_close(out, expected)


def test_vision_takes_the_first_token_or_what_the_model_pools(vit, resnet, pictured, tmp_path):
    first, batch = _encoded(encoder := _encoder(VisionEncoder, vit, pooling="cls"), pictured, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(first, encoder.model(batch["pixel_values"]).last_hidden_state[:, 0])
    own, batch = _encoded(encoder := _encoder(VisionEncoder, resnet, pooling="pooler"), pictured, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(own, encoder.model(batch["pixel_values"]).pooler_output[:, :, 0, 0])


def test_error_on_pooling_that_the_model_does_not_have(resnet, tmp_path, request):
    with pytest.raises(ConfigError, match="ResNetModel has no first token; use pooling=mean"):
        _encoder(VisionEncoder, resnet, pooling="cls")
    for family in ("siglip_vision", "swin"):
        with pytest.raises(ConfigError, match="Model has no first token; use pooling=mean or pooler"):
            _encoder(VisionEncoder, request.getfixturevalue(family), pooling="cls")
    hf = hugging_face()
    config = hf.SwiftFormerConfig(depths=[1, 1], embed_dims=[8, 16], mlp_ratio=1, image_size=32)
    with quiet_transformers():
        hf.SwiftFormerModel(config).save_pretrained(tmp_path)
    hf.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="SwiftFormerModel pools nothing itself; use pooling=mean"):
        _encoder(VisionEncoder, tmp_path, pooling="pooler")


def test_warning_on_a_pooler_that_was_not_saved(vit):
    with pytest.warns(LisWarning, match=r"2 weights are not in .*pooler\.dense\.bias"):
        _encoder(VisionEncoder, vit, pooling="pooler")


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_dual_fuses_unit_embeddings(family, pictured, tmp_path, request):
    folder = request.getfixturevalue(family)
    both, batch = _encoded(encoder := _encoder(DualEncoder, folder), pictured, tmp_path)
    mean, _ = _encoded(_encoder(DualEncoder, folder, fusion="mean"), pictured, tmp_path)
    width = both.shape[1] // 2
    texts = {"input_ids": batch["input_ids"]} | (
        {"attention_mask": batch["attention_mask"]} if family == "clip" else {}
    )
    with torch.no_grad():
        out = encoder.model(**texts, pixel_values=batch["pixel_values"])
    torch.testing.assert_close(both[:, :width], normalize(out.image_embeds, dim=-1))
    torch.testing.assert_close(both[:, width:], normalize(out.text_embeds, dim=-1))
    torch.testing.assert_close(mean, (both[:, :width] + both[:, width:]) / 2)


def test_siglip_texts_are_padded_to_one_length(siglip, pictured, tmp_path):
    _, batch = _encoded(_encoder(DualEncoder, siglip), pictured, tmp_path)
    assert batch["input_ids"].shape == (6, 24)
    assert (batch["input_ids"][3] == 0).sum() > 20


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        (TextEncoder, {"pooling": "max"}, "`pooling` must be one of mean, cls, last, but got 'max'"),
        (TextEncoder, {"prompt": "passage"}, r"must contain \{text\}.*'passage'"),
        (VisionEncoder, {"pooling": "last"}, "`pooling` must be one of mean, cls, pooler, but got 'last'"),
        (DualEncoder, {"fusion": "sum"}, "`fusion` must be one of mean, concat, but got 'sum'"),
        (DualEncoder, {"max_text_tokens": 0}, "1 or more, but got 0"),
    ],
)
def test_error_on_options(kind, options, match):
    with pytest.raises(ConfigError, match=match):
        kind("not/read", **options)


@pytest.mark.parametrize(
    ("kind", "blind", "has"),
    [(TextEncoder, {"texts": ("",) * 6}, "images"), (VisionEncoder, {"images": (None,) * 6}, "texts")],
)
def test_items_without_anything_that_the_model_reads_are_refused(kind, blind, has, pictured, tmp_path):
    items = replace(pictured, titles=(), **blind)
    with pytest.raises(ItemError, match=rf"{kind.__name__} has nothing to read: .* the 6 items have {has}\. Name"):
        kind.from_items(items, cache_dir=tmp_path)


@pytest.mark.parametrize("kind", [TextEncoder, VisionEncoder])
def test_a_head_of_no_dimensions_is_refused(kind, pictured, tmp_path):
    with pytest.raises(ConfigError, match="`output_dim` must be 1 or more, or null for no head, but got 0"):
        kind.from_items(pictured, cache_dir=tmp_path, output_dim=0)


@pytest.mark.parametrize(("kind", "name"), [(TextEncoder, "bert"), (DualEncoder, "clip"), (VisionEncoder, "vit")])
def test_tiny_model_is_made_once(kind, name, pictured, tmp_path):
    state = torch.get_rng_state()
    first = kind.from_items(pictured, cache_dir=tmp_path, output_dim=None)
    assert torch.equal(torch.get_rng_state(), state)
    again = kind.from_items(pictured, cache_dir=tmp_path, output_dim=None)
    assert len(list((tmp_path / "models").glob(f"tiny-{name}-*/model.safetensors"))) == 1
    assert all(torch.equal(weight, again.state_dict()[key]) for key, weight in first.state_dict().items())


@pytest.mark.slow
@pytest.mark.skipif("LIS_DATA" not in os.environ, reason="LIS_DATA names the folder of real data and weights")
def test_real_minilm_gives_known_embeddings_with_and_without_adapters(tmp_path):
    data = Path(os.environ["LIS_DATA"])
    table = pl.read_parquet(data / "ml100k_mm/items.parquet").head(200)
    items = ItemTable(table["item_id"].to_numpy(), tuple(table["text"]), (None,) * 200)
    known = torch.from_numpy(np.load(data / "ml100k_mm/text_minilm.npy")[:200].astype(np.float32))
    for tuning in (Tuning(), Tuning("lora")):
        encoder = _encoder(TextEncoder, data / "models/all-MiniLM-L6-v2", max_text_tokens=126, tuning=tuning)
        rows = encoder.loader(encoder.prepare(items, tmp_path), batch_size=32)
        with torch.no_grad():
            out = torch.cat([encoder(batch) for batch in rows])
        assert cosine_similarity(out, known).min() > 0.999


def test_tokenizer_of_hub_models_loads_by_itself(bert):
    assert hugging_face().AutoTokenizer.from_pretrained(bert).model_max_length == 64


@pytest.mark.parametrize("family", ["vit", "resnet", "siglip2_vision", "clip"])
def test_of_several_images_the_mean_is_taken(family, pictured, tmp_path, request):
    encoder = _encoder(DualEncoder if family == "clip" else VisionEncoder, request.getfixturevalue(family))
    first, second, third, *others, _ = pictured.images
    items = replace(pictured, texts=("same",) * 6, images=((first, second, third), first, second, third, None, None))
    out, batch = _encoded(encoder, items, tmp_path)
    assert batch["num_images"].tolist() == [3, 1, 1, 1, 1, 1]
    images, texts = out.chunk(2, dim=-1) if family == "clip" else (out, None)
    mean = images[1:4].mean(dim=0)
    torch.testing.assert_close(images[0], mean if texts is None else normalize(mean, dim=-1))
    replaced = replace(items, images=(*others, *items.images[2:]))
    assert "num_images" not in _encoded(encoder, replaced, tmp_path)[1]


def test_gradients_reach_the_weights_through_the_mean_of_images(vit, pictured, tmp_path):
    encoder = _encoder(VisionEncoder, vit).train()
    items = replace(pictured, images=(pictured.images[:3], *pictured.images[1:]))
    encoder.freeze_unreached(items)
    with torch.autocast("cpu", torch.bfloat16):
        encoder(next(iter(encoder.loader(encoder.prepare(items, tmp_path))))).pow(2).mean().backward()
    assert all(weight.grad is not None for weight in encoder.parameters() if weight.requires_grad)
