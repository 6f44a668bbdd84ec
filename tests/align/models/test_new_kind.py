"""A new kind of encoder is one class in one file: no list, dictionary or Literal elsewhere has to name it."""

from __future__ import annotations

import pytest
import torch

from lis_lightning.align.models import PretrainedEncoder, TextEncoder, Tuning, load_pretrained
from lis_lightning.align.models.hugging_face import hugging_face, quiet_transformers
from lis_lightning.align.models.loading import encoder_kinds
from lis_lightning.align.models.tiny import make_tiny, sequence_tokenizer
from lis_lightning.errors import ConfigError


class WordProbabilityEncoder(PretrainedEncoder):
    """Reads texts through a masked language model, loaded by another class than any other kind."""

    kind = "words"
    accepts = "texts with masks"
    auto_class = "AutoModelForMaskedLM"
    processor_class = "AutoTokenizer"
    reads_images = False

    def __init__(self, model, *, torch_dtype="float32", **options):
        network, tokenizer = load_pretrained(type(self), model, torch_dtype)
        vocabulary = network.config.vocab_size
        super().__init__(network, tokenizer, towers={"language": network}, hidden_dim=vocabulary, **options)

    @classmethod
    def can_read(cls, config, network):
        return type(config) in hugging_face().MODEL_FOR_MASKED_LM_MAPPING

    @staticmethod
    def make_tiny(folder, texts):
        def parts():
            hf, tokenizer = hugging_face(), sequence_tokenizer(texts)
            sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
            config = hf.BertConfig(**sizes, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
            return lambda: hf.BertForMaskedLM(config), tokenizer

        return make_tiny(folder, "masked", parts, texts)

    def process(self, items):
        for text in items.texts:
            yield self.processor([text], return_tensors="np")

    def pooled(self, inputs):
        return self.model(**inputs).logits.softmax(dim=-1).mean(dim=1)


@pytest.fixture
def encoder(pictured, tmp_path):
    torch.manual_seed(0)
    return WordProbabilityEncoder.from_items(pictured, cache_dir=tmp_path, output_dim=8, tuning=Tuning("lora", rank=2))


def test_it_prepares_collates_and_encodes(encoder, pictured, tmp_path):
    items = encoder.prepare(pictured, tmp_path)
    batch = encoder.collate([items[row] for row in range(len(items))])
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert encoder(batch).shape == (6, 8)
    assert type(encoder.model).__name__ == "BertForMaskedLM"


def test_it_trains_what_its_tuning_says(encoder, pictured, tmp_path):
    batch = next(iter(encoder.loader(encoder.prepare(pictured, tmp_path))))
    encoder(batch).pow(3).sum().backward()
    reached = {name for name, weight in encoder.named_parameters() if weight.grad is not None}
    assert "head.0.weight" in reached
    assert any("lora_" in name for name in reached)


def test_it_refuses_models_that_it_cannot_read_and_names_the_kind_that_can(vit):
    with (
        quiet_transformers(),
        pytest.raises(
            ConfigError, match=r"model=words needs one that takes texts with masks, which .*ViTConfig.*use model=vision"
        ),
    ):
        WordProbabilityEncoder(vit)


def test_a_folder_without_its_processor_is_refused(pictured, tmp_path):
    folder = WordProbabilityEncoder.make_tiny(tmp_path / "models", pictured.texts)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with quiet_transformers(), pytest.raises(ConfigError, match=r"(not|without) .* Save both the model and its"):
        WordProbabilityEncoder(folder)


def test_kinds_are_found_by_their_class():
    kinds = [kind.kind for kind in encoder_kinds()]
    assert {"dual", "text", "vision", "vlm", "words"} <= set(kinds)
    assert len(kinds) == len(set(kinds))


def test_a_class_derived_from_a_kind_is_no_kind_of_its_own(bert, pictured, tmp_path):
    class Passages(TextEncoder):
        def __init__(self, model, **options):
            super().__init__(model, prompt="passage: {text}", **options)

    with quiet_transformers():
        encoder = Passages(bert, output_dim=4)
    assert Passages not in encoder_kinds()
    assert encoder(next(iter(encoder.loader(encoder.prepare(pictured, tmp_path))))).shape == (6, 4)
