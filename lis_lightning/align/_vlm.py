"""What differs from one vision-language model to the next: loading, the prompt, and where texts may be cut."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from lis_lightning.align._tiny import hugging_face
from lis_lightning.errors import ConfigError, LisWarning

_DTYPES = ("float32", "bfloat16", "float16")


def load_vlm(model: str | Path, torch_dtype: str) -> tuple[Any, Any]:
    """Return an image-text-to-text model and its processor.

    Args:
        model: A folder, or an id on the Hugging Face hub.
        torch_dtype: Of the weights.

    Raises:
        ConfigError: If there is no such model, or it takes no images and texts, or its processor needs a package.

    Warns:
        LisWarning: If weights are missing and were drawn at random.
    """
    if torch_dtype not in _DTYPES:
        raise ConfigError(f"`torch_dtype` must be one of {', '.join(_DTYPES)}, but got {torch_dtype!r}.")
    name = _checked_name(model)
    try:
        hf = hugging_face()
        processor = hf.AutoProcessor.from_pretrained(name)
        network, report = hf.AutoModelForImageTextToText.from_pretrained(
            name, dtype=torch_dtype, output_loading_info=True
        )
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"The model {name} cannot be loaded. {_advice(name, error)}") from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ConfigError(
            f"The model {name} comes without a processor for images and texts (got {type(processor).__name__}); "
            "save the processor into the same folder: processor.save_pretrained(folder)."
        )
    missing = sorted(report["missing_keys"])
    if missing:
        warnings.warn(
            f"{len(missing)} weights are not in {name} and were drawn at random, the first are {missing[:3]}.",
            LisWarning,
            stacklevel=2,
        )
    if network.base_model is network:
        raise ConfigError(
            f"The model {name} ({type(network).__name__}) keeps no base model whose states can be pooled."
        )
    return network, processor


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
    if "Unrecognized configuration class" in said:
        return f"It is not a model that takes images and texts ({said[:140]}...). Use one for image-text-to-text."
    if Path(name).is_dir():
        return f"{said} Save both the model and its processor into that folder with save_pretrained."
    return (
        f"{said} Check the id on the Hugging Face hub, and log in if it is gated. Without a network, fetch it "
        f"elsewhere with `hf download {name}` and give the folder; model=tiny needs no download."
    )


def processor_fingerprint(processor: Any) -> str:
    """Return all that the processor's outputs depend on, as text."""
    tokenizer = processor.tokenizer
    return json.dumps(
        [
            hugging_face().__version__,
            type(processor).__name__,
            processor.to_json_string(),
            processor.image_processor.to_json_string(),
            getattr(processor, "chat_template", None),
            tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items()),
        ]
    )


def render_prompt(processor: Any, prompt: str) -> tuple[str, bool]:
    """Return the prompt with the image's place in it, and whether the tokenizer must add its special tokens."""
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = str(processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False))
        begin = processor.tokenizer.bos_token
        return text, not (begin and text.startswith(begin))
    return f"{_image_token(processor)}{prompt}", True


def shorten(processor: Any, text: str, max_tokens: int) -> str:
    """Return the text cut to a number of tokens, and without the words that the processor would take for an image."""
    for token in {_image_token(processor), *processor.tokenizer.all_special_tokens}:
        text = text.replace(token, " ")
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return text if len(ids) <= max_tokens else str(processor.tokenizer.decode(ids[:max_tokens]))


def _image_token(processor: Any) -> str:
    token = getattr(processor, "image_token", None) or getattr(processor.tokenizer, "image_token", None)
    if token is None:
        raise ConfigError(f"{type(processor).__name__} names no image token; use a model whose processor has one.")
    return str(token)
