from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lis_lightning.align.models import Tuning, VisionLanguageEncoder, vlm
from lis_lightning.align.models.hugging_face import hugging_face, quiet_transformers
from lis_lightning.errors import ConfigError, ItemError
from lis_lightning.monitor.batches import make_batches
from tests.align.models import zoo


def _encoder(folder, **options) -> VisionLanguageEncoder:
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        return VisionLanguageEncoder(folder, **options).eval()


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
    assert (batch["input_ids"] == image).sum(dim=1).tolist() == [16] * 5 + [0]
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


def test_last_pools_the_end_of_the_turn_and_not_the_new_line_after_it(idefics, pictured, tmp_path):
    encoder = _encoder(idefics, pooling="last", output_dim=None)
    row = encoder.prepare(pictured, tmp_path)[0]
    assert encoder.processor.tokenizer.decode(row["input_ids"]).endswith("red lamp</s>")
    inputs = {name: value for name, value in encoder.collate([row]).items() if name != "item_id"}
    with torch.no_grad():
        states = encoder.model.base_model(**inputs).last_hidden_state
        torch.testing.assert_close(encoder(encoder.collate([row])), states[:, -1])


def test_instruction_and_generation_prompt_go_through_the_template(idefics, llava, pictured, tmp_path):
    encoder = _encoder(idefics, instruction="Represent the item.", generation_prompt=True)
    text = encoder.processor.tokenizer.decode(encoder.prepare(pictured, tmp_path)[0]["input_ids"])
    assert "Represent the item.</s>" in text.split("<image>")[0]
    assert text.replace(" ", "").endswith("redlamp</s>\n<s>assistant\n")
    with pytest.raises(ConfigError, match="need a chat template, which LlavaProcessor does not have here"):
        _encoder(llava, instruction="x").prepare(pictured, tmp_path)


@pytest.mark.parametrize("tokens", ["image", "text"])
def test_tokens_of_the_image_or_of_the_text_are_pooled_alone(tokens, llava, pictured, tmp_path):
    encoder = _encoder(llava, pooled_tokens=tokens, output_dim=None)
    batch = encoder.collate([encoder.prepare(pictured, tmp_path)[0]])
    inputs = {name: value for name, value in batch.items() if name != "item_id"}
    with torch.no_grad():
        states = encoder.model.base_model(**inputs).last_hidden_state[0]
        torch.testing.assert_close(encoder(batch)[0], (states[:16] if tokens == "image" else states[16:]).mean(dim=0))


@pytest.fixture
def qwen_vl(llava, monkeypatch):
    """A Qwen2.5-VL whose processor needs no torchvision."""

    def build(**options):
        with torch.random.fork_rng(), quiet_transformers():
            tokenizer = hugging_face().AutoProcessor.from_pretrained(llava).tokenizer
            parts = zoo.qwen_vl(tokenizer)
            monkeypatch.setattr(vlm, "load_pretrained", lambda *args: parts)
            return VisionLanguageEncoder("Qwen2.5-VL", output_dim=None, **options).eval()

    return build


def test_a_batch_of_qwen_vl_equals_its_items_one_by_one(qwen_vl, pictured, tmp_path):
    encoder = qwen_vl(store="images")
    items = encoder.prepare(pictured, tmp_path)
    rows = [items[row] for row in range(6)]
    with torch.no_grad():
        alone = torch.cat([encoder(encoder.collate([row])) for row in rows])
        torch.testing.assert_close(encoder(encoder.collate(rows)), alone, rtol=0, atol=2e-6)


def test_error_on_a_model_whose_patches_stand_where_no_token_is(git, pictured):
    with quiet_transformers(), pytest.raises(ConfigError, match=r"GitForCausalLM gives \d+ states for \d+ tokens"):
        VisionLanguageEncoder.from_items(pictured, cache_dir="unused", model=git)


# any number of images


@pytest.fixture
def uneven(pictured):
    """Items of 3, 1, 0, 2, 1 and 0 images."""
    first, second, third, fourth, fifth, _ = pictured.images
    return replace(pictured, images=((first, second, third), second, None, (fourth, fifth), fifth, None))


@pytest.mark.parametrize("kind", ["llava", "idefics", "qwen_vl"])
def test_items_of_different_numbers_of_images_form_a_batch(kind, qwen_vl, uneven, tmp_path, request):
    encoder = qwen_vl() if kind == "qwen_vl" else _encoder(request.getfixturevalue(kind), output_dim=None)
    items = encoder.prepare(uneven, tmp_path)
    rows = [items[row] for row in range(6)]
    image = encoder.processor.tokenizer.convert_tokens_to_ids(encoder.processor.image_token)
    counts = torch.tensor([int((row["input_ids"] == image).sum()) for row in rows])
    assert counts[2] == counts[5] == 0
    assert counts[0] > counts[3] > counts[1] > 0
    with torch.no_grad():
        alone = torch.cat([encoder(encoder.collate([row])) for row in rows])
        for order in ([0, 1, 2, 3, 4, 5], [5, 0, 4], [2, 5]):
            together = encoder(encoder.collate([rows[row] for row in order]))
            torch.testing.assert_close(together, alone[order], rtol=0, atol=4e-6)


def test_an_item_without_an_image_is_its_text_alone(llava, uneven, tmp_path):
    encoder = _encoder(llava, output_dim=None)
    tokens = encoder.processor.tokenizer(uneven.texts[2], return_tensors="pt")
    with torch.no_grad():
        states = encoder.model.base_model(input_ids=tokens["input_ids"]).last_hidden_state
        own = encoder(encoder.collate([encoder.prepare(uneven, tmp_path)[2]]))
    torch.testing.assert_close(own, states.mean(dim=1))


def test_all_of_an_item_without_an_image_is_pooled_where_patches_are_wanted(llava, uneven, tmp_path):
    vectors = {}
    for tokens in ("image", "all"):
        encoder = _encoder(llava, output_dim=None, pooled_tokens=tokens)
        rows = encoder.prepare(uneven, tmp_path)
        vectors[tokens] = encoder(encoder.collate([rows[1], rows[2]])).detach()
    assert not torch.allclose(vectors["image"][0], vectors["all"][0])
    assert torch.equal(vectors["image"][1], vectors["all"][1])


def test_of_many_frames_some_are_read_evenly_spread(llava, pictured, tmp_path):
    encoder = _encoder(llava, max_images=3)
    frames = pictured.images[:5]
    items = replace(pictured, images=(frames, frames[::2], *pictured.images[2:]))
    rows = encoder.prepare(items, tmp_path)
    assert torch.equal(rows[0]["pixel_values"], rows[1]["pixel_values"])
    assert len(rows[0]["pixel_values"]) == 3
    with pytest.raises(ConfigError, match="`max_images` must be 1 or more, but got 0"):
        _encoder(llava, max_images=0)


def test_a_processor_that_takes_no_text_alone_is_given_grey(llava, uneven, tmp_path):
    encoder = _encoder(llava)
    processor = encoder._processed

    def process(images, **options):
        if not images:
            raise ValueError("images are expected")
        return processor(images, **options)

    encoder._processed = process
    rows = encoder.prepare(uneven, tmp_path)
    assert torch.equal(rows[2]["pixel_values"], rows[5]["pixel_values"])
    assert rows[2]["pixel_values"].flatten(2).std(dim=-1).max() < 1e-5


@pytest.fixture
def single_process():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("single_process")
def test_a_batch_without_images_trains_in_ddp(llava, uneven, tmp_path):
    encoder = _encoder(llava, output_dim=None)
    encoder.freeze_unreached(uneven)
    items = encoder.prepare(uneven, tmp_path)
    batch = encoder.collate([items[2], items[5]])
    expected = encoder.eval()(batch)
    trained = nn.parallel.DistributedDataParallel(encoder.train())
    for _ in range(2):
        vectors = trained(batch)
        vectors.sum().backward()
    torch.testing.assert_close(vectors, expected)


# the cache


@pytest.mark.parametrize("kind", ["llava", "idefics"])
def test_inputs_made_for_every_batch_are_those_on_disk_bit_for_bit(kind, pictured, tmp_path, request):
    encoders = [_encoder(request.getfixturevalue(kind), store=store) for store in ("inputs", "images")]
    stored, live = (encoder.prepare(pictured, tmp_path) for encoder in encoders)
    assert stored.lengths.tolist() == live.lengths.tolist()
    for row in range(6):
        assert all(torch.equal(value, stored[row][name]) for name, value in live[row].items() if name != "item_id")
    assert live[3].keys() == stored[3].keys()


def test_worker_processes_make_the_same_batches(llava, pictured, tmp_path):
    encoder = _encoder(llava, store="images")
    items = encoder.prepare(pictured, tmp_path)
    items.num_workers = 2
    batches = make_batches(items, pictured.ids, batch_size=4, collate_fn=encoder.collate)
    made = [chunk.batch() for chunk in batches.chunks()]
    assert [len(batch["item_id"]) for batch in made] == [4, 2]
    expected = encoder.collate([items[row] for row in np.concatenate([batch["item_id"] for batch in made]) - 10])
    assert torch.equal(torch.cat([batch["pixel_values"] for batch in made]), expected["pixel_values"])


@pytest.fixture
def square(pictured, tmp_path):
    """Items of which the first has an image of 280 x 280 pixels."""
    from PIL import Image

    Image.new("RGB", (280, 280), (1, 2, 3)).save(tmp_path / "0.png")
    return replace(pictured, images=(tmp_path / "0.png", *pictured.images[1:]))


@pytest.mark.parametrize(("options", "patches"), [(None, 400), ({"max_pixels": 56 * 56}, 16)])
def test_fewer_pixels_give_fewer_patches(options, patches, qwen_vl, square, tmp_path):
    assert len(qwen_vl(processor=options).prepare(square, tmp_path)[0]["pixel_values"]) == patches


@pytest.mark.parametrize(("split", "tiles"), [(True, 5), (False, 1)])
def test_images_are_not_split_where_the_processor_is_told_so(split, tiles, idefics, square, tmp_path):
    encoder = _encoder(idefics, processor={"do_image_splitting": split})
    assert encoder.prepare(square, tmp_path)[0]["pixel_values"].shape[1] == tiles


def test_error_on_options_that_the_processor_lacks_or_refuses(idefics):
    with pytest.raises(ConfigError, match=r"option 'max_pixel', which Idefics3ImageProcessorPil does not; it has \["):
        _encoder(idefics, processor={"max_pixel": 3})
    with pytest.raises(ConfigError, match=r"Idefics3ImageProcessorPil refuses `processor` \{'size': 'big'\}"):
        _encoder(idefics, processor={"size": "big"})
    with pytest.raises(ConfigError, match="`store` must be one of auto, inputs, images, but got 'pixels'"):
        _encoder(idefics, store="pixels")


def test_a_grey_replacement_is_found_again_only_where_it_is_allowed(llava, pictured, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    items = replace(pictured, images=(*pictured.images[:4], tmp_path / "bad.png", None))
    with pytest.raises(ItemError, match=r"bad\.png"):
        _encoder(llava).prepare(items, tmp_path)
    encoder = _encoder(llava, on_bad_image="blank")
    calls = _counted(encoder)
    encoder.prepare(items, tmp_path)
    assert 0 < len(calls) < 6, "what was prepared before the error is there"
    encoder.prepare(items, tmp_path)
    with pytest.raises(ItemError, match=r"bad\.png"):
        _encoder(llava).prepare(items, tmp_path)


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
    assert len(calls) == 7
    encoder.prepare(replace(items, texts=("other", *items.texts[1:])), tmp_path)
    assert len(calls) == 8
    encoder.prompt = "{text}."
    encoder.prepare(items, tmp_path)
    assert len(calls) == 14


def test_bad_image_raises_or_is_blank(llava, pictured, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    items = replace(pictured, images=(tmp_path / "bad.png", *pictured.images[1:]))
    with pytest.raises(ItemError, match=r"bad\.png"):
        _encoder(llava).prepare(items, tmp_path)
    rows = _encoder(llava, on_bad_image="blank").prepare(items, tmp_path)
    assert ["pixel_values" in row for row in (rows[0], rows[1], rows[5])] == [False, True, False]


def _refuses_wide_images(encoder):
    processor = encoder.processor

    def process(images, **options):
        if any(image.width > 200 * image.height for image in images):
            raise ValueError("absolute aspect ratio must be smaller than 200, got 300.0")
        return processor(images=images or None, return_tensors="np", **options)

    encoder._processed = process
    return encoder


def test_an_image_that_the_processor_refuses_is_named_or_blank(llava, pictured, tmp_path):
    from PIL import Image

    Image.new("RGB", (300, 1), (1, 2, 3)).save(tmp_path / "wide.png")
    items = replace(pictured, images=(tmp_path / "wide.png", *pictured.images[1:]))
    match = r"wide\.png of 300 x 1 pixels cannot be processed: absolute aspect ratio .* set on_bad_image=blank"
    with pytest.raises(ItemError, match=match):
        _refuses_wide_images(_encoder(llava)).prepare(items, tmp_path)
    rows = _refuses_wide_images(_encoder(llava, on_bad_image="blank")).prepare(items, tmp_path)
    assert ["pixel_values" in row for row in (rows[0], rows[1], rows[5])] == [False, True, False]


# options


def test_frozen_backbone_trains_the_head_alone(llava, pictured, tmp_path):
    encoder = _encoder(llava, tuning=Tuning("head")).train()
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
    encoder = _encoder(llava, torch_dtype="bfloat16", tuning=Tuning("head"))
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
