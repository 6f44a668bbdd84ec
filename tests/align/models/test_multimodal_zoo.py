"""Multimodal LLMs of many families with any number of images an item."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lis_lightning.align.models import VisionLanguageEncoder
from lis_lightning.align.models.hugging_face import hugging_face, quiet_transformers
from tests.align.models import multimodal_zoo

# In each of these something differs that the code has to deal with; the others run with `-m slow`.
QUICK = {"PaliGemma", "Aya Vision", "Llama 3.2 Vision", "VideoLLaMA3"}
REFUSED = {"BLIP-2", "Llama 4"}
FAMILIES = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in multimodal_zoo.FAMILIES
    if name not in REFUSED
]


@pytest.fixture
def build(llava, tmp_path):
    def build(name, **options):
        tokenizer = hugging_face().AutoProcessor.from_pretrained(llava).tokenizer
        try:
            folder = multimodal_zoo.FAMILIES[name](tmp_path / "model", tokenizer)
        except ImportError as error:
            pytest.skip(str(error).strip().splitlines()[0])
        with torch.random.fork_rng(), quiet_transformers():
            return VisionLanguageEncoder(folder, output_dim=None, **options).eval()

    return build


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_equals_its_items_one_by_one_with_any_number_of_images(name, build, pictured, tmp_path):
    encoder = build(name)
    first, second, *_ = pictured.images
    prepared = encoder.prepare(replace(pictured, images=((first, second), None, *pictured.images[2:])), tmp_path)
    rows = [prepared[row] for row in range(6)]
    with torch.no_grad():
        alone = torch.cat([encoder(encoder.collate([row])) for row in rows])
        torch.testing.assert_close(encoder(encoder.collate(rows)), alone, rtol=0, atol=2e-6)
    assert torch.pdist(alone).min() > 1e-4
    patches = [int((row["input_ids"] == encoder._patch_token).sum()) for row in rows]
    assert patches[0] > patches[2] > 0
    assert patches[1] == (patches[2] if name == "PaliGemma" else 0)


def test_a_number_for_each_image_is_not_taken_for_one_for_each_token(llava):
    with quiet_transformers():
        encoder = VisionLanguageEncoder(llava)
    rows = [
        {"item_id": 1, "input_ids": torch.arange(4), "merge_sizes": torch.tensor([2, 2])},
        {"item_id": 2, "input_ids": torch.arange(3), "merge_sizes": torch.tensor([1])},
    ]
    batch = encoder.collate(rows)
    assert batch["merge_sizes"].tolist() == [2, 2, 1]
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 4)
