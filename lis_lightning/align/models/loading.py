"""Load a pretrained model and its processor from a folder or the hub, and check that an encoder can use them."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lis_lightning.align.models.hugging_face import hugging_face, no_load_report
from lis_lightning.align.models.pretrained import DRAWN, PretrainedEncoder
from lis_lightning.align.models.sentence_modules import transformer_folder
from lis_lightning.align.models.tuning import has_adapters
from lis_lightning.errors import ConfigError, LisWarning

_DTYPES = ("float32", "bfloat16", "float16", "auto")
_ADAPTER = "adapter_config.json"  # of PEFT


def load_pretrained(
    encoder: type[PretrainedEncoder],
    model: str | Path,
    torch_dtype: str = "float32",
    *,
    pooler: bool = True,
    attn_implementation: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    quantization: str | None = None,
) -> tuple[Any, Any]:
    """Return a model and its processor, loaded as an encoder class says.

    Args:
        encoder: Says by its attributes which classes of transformers load the two, and which models it can read.
        model: A folder, or an id on the Hugging Face hub. A folder with the adapters of PEFT alone loads the base model
            that it names, and puts them in.
        torch_dtype: Of the weights: "float32"; for the modes lora and head, in which head and adapters stay in float32,
            also "bfloat16" or "float16"; or "auto", as they are stored.
        pooler: Whether the model's own pooling layer is used. If not, it is left out where the model can do without.
        attn_implementation: "eager", "sdpa", "flash_attention_2" (needs flash-attn), ...; None for the best that
            transformers finds.
        revision: Branch, tag or commit on the hub; None for the main branch.
        trust_remote_code: Whether code in the model's repository may run, for models whose classes transformers lacks.
        quantization: "4bit" stores the weights of linear layers as NF4 of bitsandbytes (QLoRA), which computes in
            `torch_dtype`; None does not quantise.

    Raises:
        ConfigError: If there is no such model, the encoder cannot read it, or it needs a package that is missing.

    Warns:
        LisWarning: If weights are missing and were initialised at random.

    Example:
        >>> import tempfile
        >>> from lis_lightning.align.models import VisionEncoder
        >>> folder = VisionEncoder.make_tiny(Path(tempfile.mkdtemp()), texts=())
        >>> network, processor = load_pretrained(VisionEncoder, folder, "float32", pooler=False)
        >>> type(network).__name__, type(processor).__name__
        ('ViTModel', 'ViTImageProcessorPil')
    """
    if torch_dtype not in _DTYPES:
        raise ConfigError(f"`torch_dtype` must be one of {', '.join(_DTYPES)}, but got {torch_dtype!r}.")
    name, adapter = _base_and_adapter(model)
    hub: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    if revision is not None:
        hub["revision"] = revision
    options = {**hub, "dtype": torch_dtype, **_quantized(quantization, torch_dtype)}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    try:
        hf = hugging_face()
        config = hf.AutoConfig.from_pretrained(name, **hub)
        auto_class = encoder.auto_class_for(config)
        if not trust_remote_code or auto_class not in (getattr(config, "auto_map", None) or {}):
            _check_kind(encoder, name, config)
        processor = getattr(hf, encoder.processor_class).from_pretrained(name, **hub)
        # An unused pooling layer would be initialised at random, and be reported as missing.
        if not pooler and _can_leave_out_pooler(config):
            options["add_pooling_layer"] = False
        with no_load_report():
            network, report = getattr(hf, auto_class).from_pretrained(name, output_loading_info=True, **options)
        _load_adapters(network, name, adapter)
    except (OSError, ValueError, ImportError, LookupError, AttributeError, TypeError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"The model {name} cannot be loaded. {_advice(name, error)}") from error
    _check_processor(encoder, name, processor)
    missing = sorted(report["missing_keys"])
    setattr(network, DRAWN, frozenset(missing))
    if missing:
        warnings.warn(
            f"{len(missing)} weights are not in {name} and were drawn at random, the first are {missing[:3]}.",
            LisWarning,
            stacklevel=3,
        )
    return network, processor


def loading_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return those of an encoder's options that say how its model is loaded."""
    names = inspect.signature(load_pretrained).parameters.keys() - {"encoder", "model", "pooler"}
    return {name: value for name, value in options.items() if name in names}


def encoder_kinds() -> list[type[PretrainedEncoder]]:
    """Return all encoder classes: those of this package, then those defined elsewhere."""
    face = importlib.import_module("lis_lightning.align.models")
    for name in face.__all__:
        getattr(face, name)  # imports the module that defines it
    return PretrainedEncoder.kinds()


def encoder_kind(model: str | Path, *, trust_remote_code: bool = False) -> type[PretrainedEncoder]:
    """Return the encoder class that reads what a model takes.

    Args:
        model: A folder, or an id on the Hugging Face hub.
        trust_remote_code: Whether code in the model's repository may run.

    Raises:
        ConfigError: If there is no such model, or no encoder can read it.

    Example:
        >>> import tempfile
        >>> from lis_lightning.align.models import VisionEncoder
        >>> encoder_kind(VisionEncoder.make_tiny(Path(tempfile.mkdtemp()), texts=())).__name__
        'VisionEncoder'
    """
    name, _ = _base_and_adapter(model)
    hub: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    try:
        config = hugging_face().AutoConfig.from_pretrained(name, **hub)
    except (OSError, ValueError, ImportError, LookupError) as error:
        raise ConfigError(f"The model {name} cannot be loaded. {_advice(name, error)}") from error
    for candidate in encoder_kinds():
        if candidate.can_read(config, model_class(config)):
            return candidate
    kinds = ", ".join(kind.kind for kind in encoder_kinds())
    raise ConfigError(f"No encoder here can use {name} ({type(config).__name__}); models are of the kinds {kinds}.")


def _can_leave_out_pooler(config: Any) -> bool:
    return "add_pooling_layer" in inspect.signature(model_class(config).__init__).parameters


def model_class(config: Any) -> Any:
    """Return the class that `AutoModel` loads for a configuration; None if it has none."""
    classes = hugging_face().MODEL_MAPPING.get(type(config), None)
    return classes[0] if isinstance(classes, tuple | list) else classes


def _check_kind(encoder: type[PretrainedEncoder], name: str, config: Any) -> None:
    """Raise if an encoder cannot read a model, and say which kind can."""
    network = model_class(config)
    if encoder.can_read(config, network):
        return
    problem = (
        f"model={encoder.kind} needs one that takes {encoder.accepts}, which {name} ({type(config).__name__}) does not."
    )
    kinds = encoder_kinds()
    for candidate in kinds:
        if candidate.can_read(config, network):
            raise ConfigError(f"{problem} It takes {candidate.accepts}: use model={candidate.kind} model.model={name}.")
    names = ", ".join(encoder_kind.kind for encoder_kind in kinds)
    raise ConfigError(f"{problem} No encoder here can use it; models are of the kinds {names}.")


def _check_processor(encoder: type[PretrainedEncoder], name: str, processor: Any) -> None:
    """Raise if a processor lacks the part for images, the part for texts, or its vocabulary."""
    tokenizer = None
    if encoder.reads_images and encoder.reads_texts:
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None or getattr(processor, "image_processor", None) is None:
            raise ConfigError(
                f"The model {name} comes without a processor for images and texts (got {type(processor).__name__}); "
                "save the processor into the same folder: processor.save_pretrained(folder)."
            )
    elif encoder.reads_texts:
        tokenizer = processor
    if tokenizer is not None and len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ConfigError(  # transformers makes an empty tokenizer if there is no file
            f"The model {name} comes without the words of its tokenizer ({len(tokenizer)} tokens). Save both the model "
            "and its processor into that folder with save_pretrained."
        )


def _quantized(quantization: str | None, torch_dtype: str) -> dict[str, Any]:
    """Return the options of transformers that load a quantised model; none for `quantization` None."""
    if quantization is None:
        return {}
    if quantization != "4bit":
        raise ConfigError(f"`quantization` must be 4bit or null, but got {quantization!r}.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("quantization=4bit needs bitsandbytes: pip install bitsandbytes.")
    config = hugging_face().BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=None if torch_dtype == "auto" else torch_dtype,
    )
    # Each process of a machine loads the model onto its own device.
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    return {"quantization_config": config, "device_map": {"": rank if torch.cuda.is_available() else "cpu"}}


def _base_and_adapter(model: str | Path) -> tuple[str, Path | None]:
    """Return the name of the model that transformers loads, and the folder of the adapters that are put in, if any."""
    folder = Path(model).expanduser()
    if not (folder / _ADAPTER).is_file() or (folder / "config.json").is_file():
        return _checked_name(model), None
    base = json.loads((folder / _ADAPTER).read_text()).get("base_model_name_or_path")
    if not base:
        raise ConfigError(
            f"{folder / _ADAPTER} names no base model; set base_model_name_or_path there to its folder or hub id."
        )
    return _checked_name(base), folder


def _load_adapters(network: Any, name: str, folder: Path | None) -> None:
    """Put the adapters in a folder into a model; those in the model's own folder, it has already."""
    if folder is not None:
        network.load_adapter(str(folder), is_trainable=True)
    if not has_adapters(network) or network.dtype == torch.float32:
        return
    from peft import set_peft_model_state_dict
    from peft.tuners.tuners_utils import cast_adapter_dtype
    from peft.utils import load_peft_weights

    # Transformers rounds adapters to the type of the model, but they are trained in float32.
    cast_adapter_dtype(network, "default")
    source = folder or Path(name)
    if (source / _ADAPTER).is_file():
        weights = load_peft_weights(str(source), device="cpu")
        exact = {name.removeprefix("base_model.model."): weight for name, weight in weights.items()}
        set_peft_model_state_dict(network, exact, adapter_name="default")


def _checked_name(model: str | Path) -> str:
    """Return the name that transformers takes, or raise if it names a folder that has no model."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        folder = transformer_folder(folder)
        if not (folder / "config.json").is_file():
            files = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
            raise ConfigError(
                f"The model folder {folder} has no config.json (it holds {files or 'nothing'}). Give a folder written "
                "by save_pretrained of a model and its processor, a hub id, or model=tiny."
            )
        return str(folder.absolute())  # saved adapters name it
    if isinstance(model, Path) or model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise ConfigError(f"The model folder {folder} does not exist. Give an existing one, a hub id, or model=tiny.")
    return model


def _advice(name: str, error: Exception) -> str:
    """Return what an error of transformers and its root cause say, uncut on one line, and what to do about it."""
    causes = list(_causes(error))
    missing = next((cause for cause in causes if isinstance(cause, ImportError)), None)
    root = missing or causes[-1]
    messages = dict.fromkeys(" ".join(str(cause).split()) for cause in (error, root))
    message = " The cause: ".join(filter(None, messages)) or type(error).__name__
    if missing is not None:
        return f"A package is missing: {message} {_install(str(missing))}"
    if "trust_remote_code" in message:
        return (
            f"{message} Set trust_remote_code=true if you trust the code of that repository, or take a model whose "
            f"classes are in transformers {hugging_face().__version__}."
        )
    if Path(name).is_dir():
        return f"{message} Save both the model and its processor into that folder with save_pretrained."
    return (
        f"{message} Check the id on the Hugging Face hub, and log in (`hf auth login`) if it is gated. Without a "
        f"network, fetch it elsewhere with `hf download {name}` and give the folder; model=tiny needs no download."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what caused it, what caused that, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _install(message: str) -> str:
    """Return how to install the package that an error message names."""
    if "flash" in message.lower():
        return "Install it for your CUDA version, or set attn_implementation=sdpa."
    if "torchvision" not in message.lower():
        return "The extra for multimodal models may have it: pip install 'lis-lightning[vlm]'."
    # Each version of torchvision goes with one of torch, in the same build: 0.21 with 2.6, one more for each.
    version, _, build = str(torch.__version__).partition("+")
    number = int(version.split(".")[1]) + 15
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    return f"With torch {torch.__version__}: pip install 'torchvision==0.{number}.*'{index}"
