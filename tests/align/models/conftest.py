"""Tiny models of several families on disk, made once for each process of the tests."""

from __future__ import annotations

import pytest

from lis_lightning.align.models.hugging_face import hugging_face
from lis_lightning.align.models.tiny import make_tiny_dual, make_tiny_text, make_tiny_vision, make_tiny_vlm
from tests.align.models import zoo


@pytest.fixture(scope="session")
def llava(pictured, models):
    return make_tiny_vlm(models, pictured.texts)


@pytest.fixture(scope="session")
def clip(pictured, models):
    return make_tiny_dual(models, pictured.texts)


@pytest.fixture(scope="session")
def bert(pictured, models):
    return make_tiny_text(models, pictured.texts)


@pytest.fixture(scope="session")
def vit(models):
    return make_tiny_vision(models)


def _family(make):
    """A fixture of a family in the zoo; one that reads texts takes the tokenizer of the tiny LLaVA."""

    @pytest.fixture(scope="session", name=make.__name__)
    def folder(request, tmp_path_factory):
        parts = []
        if make.__code__.co_argcount > 1:
            parts = [hugging_face().AutoProcessor.from_pretrained(request.getfixturevalue("llava")).tokenizer]
        return make(tmp_path_factory.mktemp(make.__name__), *parts)

    return folder


idefics = _family(zoo.idefics)
git = _family(zoo.git)
llava_interleave = _family(zoo.llava_interleave)
siglip = _family(zoo.siglip)
qwen = _family(zoo.qwen)
qwen_hybrid = _family(zoo.qwen_hybrid)
resnet = _family(zoo.resnet)
siglip_vision = _family(zoo.siglip_vision)
siglip2_vision = _family(zoo.siglip2_vision)
dinov2 = _family(zoo.dinov2)
swin = _family(zoo.swin)
roberta = _family(zoo.roberta)


@pytest.fixture(scope="session")
def inner_llava(llava, tmp_path_factory):
    """A LLaVA that reads its vision tower before the last layer."""
    tokenizer = hugging_face().AutoProcessor.from_pretrained(llava).tokenizer
    return zoo.llava(tmp_path_factory.mktemp("inner_llava"), tokenizer, feature_layer=-2)
