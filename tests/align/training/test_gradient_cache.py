"""GradCache: a batch in micro-batches has the gradient of the plain step, in every kind of model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lis_lightning.align.data.data_module import ExampleCollator
from lis_lightning.align.data.examples import Examples
from lis_lightning.align.models import DualEncoder, TextEncoder, Tuning, VisionEncoder, VisionLanguageEncoder
from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.align.objectives import PairContrastive, VarianceCovariance
from lis_lightning.align.training import AlignmentModule
from lis_lightning.align.training.gradient_cache import check_parts, encode_in_parts
from lis_lightning.errors import ConfigError

CPU = torch.device("cpu")
KINDS = {"idefics": VisionLanguageEncoder, "siglip": DualEncoder, "bert": TextEncoder, "qwen": TextEncoder}
PAIRS = np.array([[0, 3], [1, 4], [5, 2], [0, 4]])


def build(kind, folder, **options):
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        return kind(folder, **{"output_dim": 4, **options})


def module_of(encoder):
    return AlignmentModule(encoder, {"pairs": PairContrastive()}, regularisers={"variance": VarianceCovariance()})


def batch_of(encoder, items, folder, micro_batch=None):
    roles = {"anchor": PAIRS[:, :1], "positive": PAIRS[:, 1:]}
    known = {"known": torch.zeros(len(PAIRS), len(PAIRS), dtype=torch.bool)}
    examples = Examples(roles, np.zeros(len(PAIRS), bool), None, lambda rows, held_out: known)
    collator = ExampleCollator(examples, encoder.prepare(items, folder), encoder.collate, micro_batch=micro_batch)
    return {"pairs": collator(list(range(len(PAIRS))))}


def gradients(module, batch):
    module.zero_grad()
    losses, num_items = module._losses(batch)
    module._sum(losses).backward()
    assert num_items == 6
    return {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}


def without_dropout(encoder):
    for part in encoder.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return encoder


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("family", KINDS)
def test_micro_batches_have_the_gradient_of_the_plain_step(family, mode, request, pictured, tmp_path):
    encoder = without_dropout(build(KINDS[family], request.getfixturevalue(family), tuning=Tuning(mode, rank=2)))
    module = module_of(encoder.train())
    check_parts(encoder)
    expected = gradients(module, batch_of(encoder, pictured, tmp_path))
    in_parts = batch_of(encoder, pictured, tmp_path, micro_batch=4)
    assert len(in_parts["pairs"]["items"]) == 2
    actual = gradients(module, in_parts)
    assert actual.keys() == expected.keys()
    scale = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, atol=1e-6 * float(scale), rtol=1e-6, msg=name)


def test_the_second_pass_draws_the_dropout_of_the_first(bert, pictured, tmp_path):
    encoder = build(TextEncoder, bert).train()
    parts = batch_of(encoder, pictured, tmp_path, micro_batch=2)["pairs"]["items"]
    weight = encoder.model.embeddings.word_embeddings.weight
    torch.manual_seed(0)
    encode_in_parts(encoder, parts, CPU)[:, 0].exp().sum().backward()
    actual, weight.grad = weight.grad, None
    torch.manual_seed(0)
    encoder.represent(torch.cat([encoder.item_vectors(part) for part in parts]), parts)[:, 0].exp().sum().backward()
    torch.testing.assert_close(actual, weight.grad)


def test_a_micro_batch_is_encoded_again_when_the_gradient_has_passed_the_one_before(bert, pictured, tmp_path):
    encoder = build(TextEncoder, bert).train()
    parts = batch_of(encoder, pictured, tmp_path, micro_batch=2)["pairs"]["items"]
    events, saved = [], []

    def record(module, inputs, output):
        events.append("encoded")
        output.register_hook(lambda gradient: events.append("gradient"))

    encoder.model.embeddings.register_forward_hook(record)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        encode_in_parts(encoder, parts, CPU).exp().sum().backward()
    assert events == ["encoded"] * 3 + ["encoded", "gradient"] * 3
    assert max(tensor.numel() for tensor in saved) <= 6 * encoder.model.config.hidden_size, "vectors, no activations"


def test_joined_features_of_all_micro_batches_are_used(bert, pictured, tmp_path):
    rows = np.random.default_rng(0).standard_normal((len(pictured), 3)).astype(np.float32)
    items = type(pictured)(pictured.ids, pictured.texts, pictured.images, rows)
    encoder = build(TextEncoder, bert, features=3, tuning=Tuning("head")).train()
    expected = encoder(batch_of(encoder, items, tmp_path)["pairs"]["items"])
    parts = batch_of(encoder, items, tmp_path, micro_batch=4)["pairs"]["items"]
    torch.testing.assert_close(encode_in_parts(encoder, parts, CPU), expected)


def test_error_on_a_batch_norm_that_would_see_a_micro_batch(resnet):
    with pytest.raises(ConfigError, match=r"ResNetModel has \d+ batch norms in training, the first is embedder"):
        check_parts(build(VisionEncoder, resnet).train())
    check_parts(build(VisionEncoder, resnet, tuning=Tuning("head")).train())
