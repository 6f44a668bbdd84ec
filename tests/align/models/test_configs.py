"""The options of `conf/model` build the encoders that they describe, with all the arguments that these have."""

from __future__ import annotations

import inspect

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from lis_lightning.align.models import (
    DualEncoder,
    PretrainedEncoder,
    TextEncoder,
    Tuning,
    VisionEncoder,
    VisionLanguageEncoder,
)
from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.cli import resource_dir

KINDS = {"vlm": VisionLanguageEncoder, "dual": DualEncoder, "text": TextEncoder, "vision": VisionEncoder}
every_kind = pytest.mark.parametrize("kind", KINDS)


def _config(*overrides):
    with initialize_config_dir(str(resource_dir("conf")), version_base="1.3"):
        return compose("align", overrides=list(overrides))


@every_kind
def test_option_builds_the_encoder(kind, pictured, tmp_path):
    tuning = "model.tuning.mode=lora", "model.tuning.rank=3"
    config = _config(f"model={kind}", f"cache_dir={tmp_path}", "model.output_dim=8", *tuning)
    with quiet_transformers():
        encoder = instantiate(config.model)(pictured)
    assert type(encoder) is KINDS[kind]
    assert encoder.output_dim == 8
    ranks = {len(weight) for name, weight in encoder.named_parameters() if "lora_A" in name}
    assert ranks == {3}


@every_kind
def test_option_names_every_argument_with_its_default(kind):
    section = dict(_config(f"model={kind}").model)
    makers = PretrainedEncoder.__init__, KINDS[kind].__init__
    arguments = {name: one for maker in makers for name, one in inspect.signature(maker).parameters.items()}
    left_out = {"tuning"}
    expected = {
        name: one.default
        for name, one in arguments.items()
        if one.kind is one.KEYWORD_ONLY and name not in left_out and one.default not in (one.empty, ())
    }
    told = {name: section[name] for name in section.keys() - {"_target_", "_partial_", "cache_dir", "model", "tuning"}}
    assert told == expected
    assert instantiate(section["tuning"]) == Tuning()
