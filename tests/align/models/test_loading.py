from __future__ import annotations

import importlib.util
import json
import re
from importlib.util import find_spec

import pytest
import torch

from lis_lightning.align.models import DualEncoder, TextEncoder, Tuning, VisionEncoder, VisionLanguageEncoder
from lis_lightning.align.models.hugging_face import hugging_face, quiet_transformers
from lis_lightning.errors import ConfigError, LisWarning
from tests.align.models import zoo


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"prompt": "what is it?"}, r"must contain \{text\}.*'what is it\?'"),
        ({"pooling": "max"}, "`pooling` must be one of mean, last, but got 'max'"),
        ({"pooled_tokens": "patch"}, "`pooled_tokens` must be one of all, text, image, but got 'patch'"),
        ({"max_text_tokens": 0}, "1 or more, but got 0"),
        ({"torch_dtype": "int8"}, "float32, bfloat16, float16, auto, but got 'int8'"),
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

    monkeypatch.setattr(hugging_face().AutoConfig, "from_pretrained", offline)
    with pytest.raises(ConfigError, match=r"some/model cannot be loaded.*couldn't connect.*hf download some/model"):
        VisionLanguageEncoder("some/model")


def _failing(monkeypatch, error, cause=None):
    def fail(*args, **kwargs):
        raise error from cause

    monkeypatch.setattr(hugging_face().AutoConfig, "from_pretrained", fail)


@pytest.mark.parametrize(
    ("torch_version", "command"),
    [
        ("2.13.0+cpu", r"'torchvision==0\.28\.\*' --index-url https://download\.pytorch\.org/whl/cpu$"),
        ("2.9.1", r"'torchvision==0\.24\.\*'$"),
    ],
)
def test_error_on_processor_that_needs_torchvision_names_the_version(torch_version, command, monkeypatch):
    monkeypatch.setattr(torch, "__version__", torch_version)
    _failing(monkeypatch, ImportError("Qwen2VLVideoProcessor requires the Torchvision library"))
    with pytest.raises(ConfigError, match=rf"some/model.*With torch {re.escape(torch_version)}: pip install {command}"):
        VisionLanguageEncoder("some/model")


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is there")
def test_the_real_processor_of_smolvlm_says_what_it_needs(idefics, tmp_path):
    for path in idefics.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in tmp_path.glob("*config.json"):
        path.write_text(path.read_text().replace("Idefics3", "SmolVLM").replace("idefics3", "smolvlm"))
    (tmp_path / "video_preprocessor_config.json").write_text('{"video_processor_type": "SmolVLMVideoProcessor"}')
    with pytest.raises(ConfigError, match=r"A package is missing: .*([Tt]orchvision|num2words).*pip install") as caught:
        VisionLanguageEncoder(tmp_path)
    assert "Save both the model and its processor" not in str(caught.value)


def test_error_on_other_missing_package_names_the_extra(monkeypatch):
    _failing(monkeypatch, ImportError("SmolVLMProcessor requires the num2words library"))
    with pytest.raises(ConfigError, match=r"missing: .* the num2words library .*pip install 'lis-lightning\[vlm\]'"):
        VisionLanguageEncoder("some/model")


def test_the_root_cause_of_an_error_is_printed_uncut(monkeypatch):
    long = "x" * 300 + " end"
    _failing(monkeypatch, ValueError(f"Unrecognized processor {long}"), ImportError("requires the Torchvision library"))
    with pytest.raises(ConfigError, match=r"Unrecognized processor x+ end The cause: requires the Torchvision library"):
        VisionLanguageEncoder("some/model")


def test_error_on_code_from_the_hub(monkeypatch):
    _failing(monkeypatch, ValueError("The repository has custom code. Please pass trust_remote_code=True"))
    with pytest.raises(ConfigError, match=r"Set trust_remote_code=true if you trust .*, or take a model whose"):
        VisionLanguageEncoder("some/model")


def test_error_on_an_encoder_decoder(llava, tmp_path):
    hf = hugging_face()
    folder = zoo.florence(tmp_path, hf.AutoProcessor.from_pretrained(llava))
    with (
        quiet_transformers(),
        pytest.raises(ConfigError, match=r"Florence2ForCond.* is an encoder-decoder, whose last"),
    ):
        VisionLanguageEncoder(folder)


def test_error_on_text_model(llava, tmp_path):
    hugging_face().BertConfig().save_pretrained(tmp_path)
    hugging_face().AutoProcessor.from_pretrained(llava).save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"needs one that takes images and texts as one sequence, which .*BertConfig.*use model=text",
    ):
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


@pytest.mark.parametrize(
    ("kind", "family", "match"),
    [
        (TextEncoder, "clip", "model=text needs one that takes texts, which .*CLIPConfig.*use model=dual model.model="),
        (TextEncoder, "llava", "LlavaConfig.* It takes images and texts as one sequence: use model=vlm model.model="),
        (TextEncoder, "vit", "ViTConfig.* It takes images: use model=vision model.model="),
        (VisionEncoder, "siglip", "model=vision needs one that takes images, which .*use model=dual"),
        (VisionEncoder, "bert", "BertConfig.* It takes texts: use model=text"),
        (DualEncoder, "idefics", "model=dual needs .*images and texts apart, which .*Idefics3Config.*use model=vlm"),
        (DualEncoder, "qwen", "Qwen2Config.*use model=text"),
        (VisionLanguageEncoder, "clip", "as one sequence, which .*CLIPConfig.* use model=dual"),
    ],
)
def test_error_on_model_of_another_kind_names_the_right_one(kind, family, match, request):
    with pytest.raises(ConfigError, match=match):
        kind(request.getfixturevalue(family))


def test_error_on_model_of_no_kind(tmp_path):
    hugging_face().WhisperConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"No encoder here can use it; .* dual, text, vision, vlm"):
        TextEncoder(tmp_path)


@pytest.mark.parametrize(("kind", "family"), [(TextEncoder, "bert"), (VisionEncoder, "vit"), (DualEncoder, "clip")])
def test_error_on_tower_without_its_processor(kind, family, tmp_path, request):
    folder = request.getfixturevalue(family)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ConfigError, match=r"(not|without) .* Save both the model and its processor into that folder"):
        kind(tmp_path)


def test_encoder_decoder_gives_its_encoder(bert, tmp_path):
    hf = hugging_face()
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    with quiet_transformers():
        hf.T5Model(hf.T5Config(**sizes, vocab_size=2048)).save_pretrained(tmp_path)
        hf.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
        assert type(TextEncoder(tmp_path).model).__name__ == "T5EncoderModel"


def test_what_is_left_out_on_purpose_is_not_listed(vit, tmp_path, capfd):
    hf = hugging_face()
    with quiet_transformers():
        hf.ViTModel(hf.AutoConfig.from_pretrained(vit)).save_pretrained(tmp_path)
        hf.AutoImageProcessor.from_pretrained(vit).save_pretrained(tmp_path)
        capfd.readouterr()
        assert VisionEncoder(tmp_path).model.pooler is None
    assert "pooler" not in "".join(capfd.readouterr())
    assert hf.utils.logging.get_verbosity() == hf.utils.logging.WARNING


def _quietly(kind, *arguments, **options):
    with quiet_transformers():
        return kind(*arguments, **options)


def test_weights_are_loaded_as_stored(bert, tmp_path):
    _quietly(TextEncoder, bert).model.bfloat16().save_pretrained(tmp_path)
    hugging_face().AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    head = Tuning("head")
    assert _quietly(TextEncoder, tmp_path, tuning=head, torch_dtype="auto").model.dtype == torch.bfloat16
    assert _quietly(TextEncoder, tmp_path, tuning=head).model.dtype == torch.float32
    with pytest.raises(ConfigError, match=r"Mode full trains weights in bfloat16.*torch_dtype=float32"):
        _quietly(TextEncoder, tmp_path, torch_dtype="auto")


def test_attention_is_computed_as_asked_for(llava):
    assert (
        _quietly(VisionLanguageEncoder, llava, attn_implementation="eager").model.config._attn_implementation == "eager"
    )
    assert _quietly(VisionLanguageEncoder, llava).model.config._attn_implementation == "sdpa"
    with pytest.raises(ConfigError, match=r"cannot be loaded.*FlashAttention2.*or set attn_implementation=sdpa"):
        _quietly(VisionLanguageEncoder, llava, attn_implementation="flash_attention_2")


def test_the_hub_is_asked_for_the_revision(monkeypatch):
    asked = []
    monkeypatch.setattr(
        hugging_face().AutoConfig, "from_pretrained", lambda name, **options: asked.append((name, options)) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        TextEncoder("some/model", revision="v2")
    assert asked == [("some/model", {"revision": "v2"})]


def test_error_on_four_bits_without_bitsandbytes(bert, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="quantization=4bit needs bitsandbytes: pip install bitsandbytes"):
        TextEncoder(bert, quantization="4bit")
    with pytest.raises(ConfigError, match="`quantization` must be 4bit or null, but got '8bit'"):
        TextEncoder(bert, quantization="8bit")


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is missing")
def test_weights_of_four_bits_get_adapters(bert):
    encoder = _quietly(TextEncoder, bert, tuning=Tuning("lora"), quantization="4bit", torch_dtype="bfloat16")
    layers = {type(part).__name__ for name, part in encoder.model.named_modules() if name.endswith("base_layer")}
    assert layers == {"Linear4bit"}
    with pytest.raises(ConfigError, match="Weights of 4 bits cannot be trained: set mode lora or head"):
        _quietly(TextEncoder, bert, quantization="4bit")


@pytest.mark.filterwarnings("ignore:2 weights are not in .*pooler")
def test_code_of_a_repository_runs_only_if_it_is_trusted(bert, monkeypatch, tmp_path):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "own_bert"
    folder.mkdir()
    for path in bert.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_bert", "auto_map": {"AutoConfig": "code.OwnConfig", "AutoModel": "code.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(
        "from transformers import BertConfig, BertModel\n\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own_bert'\n\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(ConfigError, match="Set trust_remote_code=true if you trust"):
        _quietly(TextEncoder, folder)
    encoder = _quietly(TextEncoder, folder, trust_remote_code=True)
    assert type(encoder.model).__name__ == "OwnModel"
    encoder.save_pretrained(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"runs code of its repository\. Set trust_remote_code=true again"):
        TextEncoder.from_checkpoint(tmp_path / "saved")


def test_compiling_leaves_the_names_of_weights(bert, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part: compiled.append(part))
    encoder = _quietly(TextEncoder, bert, compile=True)
    assert compiled == [encoder.model]
    assert encoder.state_dict().keys() == _quietly(TextEncoder, bert).state_dict().keys()
