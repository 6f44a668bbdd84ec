"""Pretrained models and their processors, from a folder or the hub, checked to be of the kind that was asked for."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from lis_lightning.align.models.tiny import hugging_face
from lis_lightning.errors import ConfigError, LisWarning

Kind = Literal["vlm", "dual", "text", "vision"]

_DTYPES = ("float32", "bfloat16", "float16")
_TAKES = {
    "vlm": "images and texts as one sequence",
    "dual": "images and texts apart",
    "text": "texts",
    "vision": "images",
}
_PROCESSORS = {
    "vlm": "AutoProcessor",
    "dual": "AutoProcessor",
    "text": "AutoTokenizer",
    "vision": "AutoImageProcessor",
}


def load_pretrained(kind: Kind, model: str | Path, torch_dtype: str, *, pooler: bool = True) -> tuple[Any, Any]:
    """Return a model and its processor.

    Args:
        kind: What it must be.
        model: A folder, or an id on the Hugging Face hub.
        torch_dtype: Of the weights.
        pooler: Whether the model's own pooling layer is used; else it is left out where the model knows how.

    Raises:
        ConfigError: If there is no such model, or it is of another kind, or its processor needs a package.

    Warns:
        LisWarning: If weights are missing and were drawn at random.
    """
    if torch_dtype not in _DTYPES:
        raise ConfigError(f"`torch_dtype` must be one of {', '.join(_DTYPES)}, but got {torch_dtype!r}.")
    name = _checked_name(model)
    try:
        hf = hugging_face()
        config = hf.AutoConfig.from_pretrained(name)
        _check_kind(name, config, kind)
        processor = getattr(hf, _PROCESSORS[kind]).from_pretrained(name)
        without = {} if pooler or not _can_leave_out_pooler(config) else {"add_pooling_layer": False}
        with _no_load_report():
            network, report = _auto_class(config, kind).from_pretrained(
                name, dtype=torch_dtype, output_loading_info=True, **without
            )
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"The model {name} cannot be loaded. {_advice(name, error)}") from error
    _check_processor(name, processor, kind)
    missing = sorted(report["missing_keys"])
    if missing:
        warnings.warn(
            f"{len(missing)} weights are not in {name} and were drawn at random, the first are {missing[:3]}.",
            LisWarning,
            stacklevel=3,
        )
    return network, processor


@contextmanager
def _no_load_report() -> Iterator[None]:
    """Keep transformers from listing weights that were left out on purpose; missing ones are warned about here."""
    logging = hugging_face().utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _kinds(config: Any) -> list[str]:
    """Return the kinds that a model of this configuration can be loaded as."""
    hf = hugging_face()
    found = ["vlm"] if type(config) in hf.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING else []
    network = _model_class(config)
    if network is not None:
        inputs = network.input_modalities
        takes = {inputs} if isinstance(inputs, str) else set(inputs)
        if hasattr(network, "get_image_features") and hasattr(network, "get_text_features"):
            found.append("dual")
        elif takes in ({"text"}, {"image"}):
            found.append("text" if takes == {"text"} else "vision")
    return found


def _model_class(config: Any) -> Any:
    """Return the class that `AutoModel` gives; None where it knows none."""
    mapping = hugging_face().MODEL_MAPPING
    found = mapping.get(type(config), None)
    return found[0] if isinstance(found, (tuple, list)) else found


def _can_leave_out_pooler(config: Any) -> bool:
    return "add_pooling_layer" in inspect.signature(_model_class(config).__init__).parameters


def _check_kind(name: str, config: Any, kind: Kind) -> None:
    kinds = _kinds(config)
    if kind not in kinds:
        said = f"model={kind} needs one that takes {_TAKES[kind]}, which {name} ({type(config).__name__}) does not. "
        if not kinds:
            raise ConfigError(f"{said}No encoder here can use it; models are of the kinds {', '.join(get_args(Kind))}.")
        raise ConfigError(f"{said}It takes {_TAKES[kinds[0]]}: use model={kinds[0]} model.model={name}.")


def _auto_class(config: Any, kind: Kind) -> Any:
    hf = hugging_face()
    if kind == "vlm":
        return hf.AutoModelForImageTextToText
    # Of an encoder-decoder (T5) only the encoder.
    return hf.AutoModelForTextEncoding if kind == "text" and config.is_encoder_decoder else hf.AutoModel


def _check_processor(name: str, processor: Any, kind: Kind) -> None:
    parts = (getattr(processor, "image_processor", None), getattr(processor, "tokenizer", None))
    if kind in ("vlm", "dual") and None in parts:
        raise ConfigError(
            f"The model {name} comes without a processor for images and texts (got {type(processor).__name__}); "
            "save the processor into the same folder: processor.save_pretrained(folder)."
        )
    tokenizer = parts[1] if kind in ("vlm", "dual") else processor if kind == "text" else None
    if tokenizer is not None and len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ConfigError(  # transformers makes an empty one where it finds no file
            f"The model {name} comes without the words of its tokenizer ({len(tokenizer)} tokens). Save both the model "
            "and its processor into that folder with save_pretrained."
        )


def _checked_name(model: str | Path) -> str:
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            held = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
            raise ConfigError(
                f"The model folder {folder} has no config.json (it holds {held}). Give a folder written by "
                "save_pretrained of a model and its processor, a hub id, or model=tiny."
            )
        return str(folder)
    if isinstance(model, Path) or model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise ConfigError(f"The model folder {folder} does not exist. Give an existing one, a hub id, or model=tiny.")
    return model


def _advice(name: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:200]
    if isinstance(error, ImportError):
        if "torchvision" in str(error).lower():
            return "Its processor needs torchvision: pip install torchvision, in the build that matches your torch."
        return f"A package is missing: {said} Install the extra with pip install 'lis-lightning[align]'."
    if Path(name).is_dir():
        return f"{said} Save both the model and its processor into that folder with save_pretrained."
    return (
        f"{said} Check the id on the Hugging Face hub, and log in if it is gated. Without a network, fetch it "
        f"elsewhere with `hf download {name}` and give the folder; model=tiny needs no download."
    )
