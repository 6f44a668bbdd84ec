"""Tiny models of several families on disk, made once for each process of the tests."""

from __future__ import annotations

import pytest
import torch

from lis_lightning.align.models.hugging_face import hugging_face, quiet_transformers
from lis_lightning.align.models.tiny import make_tiny_dual, make_tiny_text, make_tiny_vision, make_tiny_vlm


@pytest.fixture(scope="session")
def llava(pictured, models):
    return make_tiny_vlm(models, pictured.texts)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def siglip(llava, tmp_path_factory):
    """A tiny SigLIP, whose texts are padded to one length and come without a mask."""
    hf = hugging_face()
    tokenizer = hf.AutoProcessor.from_pretrained(llava).tokenizer
    tokenizer.model_max_length = 24
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 24, "pad_token_id": 0}
    config = hf.SiglipConfig(text_config=sizes | text, vision_config=sizes | {"image_size": 16, "patch_size": 4})
    images = hf.SiglipImageProcessorPil(size={"height": 16, "width": 16})
    return _saved(
        tmp_path_factory.mktemp("siglip"), lambda: hf.SiglipModel(config), hf.SiglipProcessor(images, tokenizer)
    )


@pytest.fixture(scope="session")
def clip(pictured, models):
    return make_tiny_dual(models, pictured.texts)


@pytest.fixture(scope="session")
def bert(pictured, models):
    return make_tiny_text(models, pictured.texts)


@pytest.fixture(scope="session")
def vit(models):
    return make_tiny_vision(models)


@pytest.fixture(scope="session")
def qwen(llava, tmp_path_factory):
    """A tiny decoder of texts, whose tokenizer marks neither beginning nor end."""
    hf = hugging_face()
    tokenizer = hf.AutoProcessor.from_pretrained(llava).tokenizer
    config = hf.Qwen2Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return _saved(tmp_path_factory.mktemp("qwen"), lambda: hf.Qwen2Model(config), tokenizer)


@pytest.fixture(scope="session")
def resnet(tmp_path_factory):
    """A tiny ResNet: convolutions and batch norms, no linear layer."""
    hf = hugging_face()
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return _saved(tmp_path_factory.mktemp("resnet"), lambda: hf.ResNetModel(config), hf.ViTImageProcessorPil())


def _saved(folder, make, processor):
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        make().save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder
