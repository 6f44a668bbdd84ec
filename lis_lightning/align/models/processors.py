"""Options of the processor of a model, which the user sets (`model.processor`), and a fingerprint of all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lis_lightning.align.models.hugging_face import hugging_face
from lis_lightning.errors import ConfigError


def configured(processor: Any, options: Mapping[str, Any] | None) -> Any:
    """Return a processor with other options of its image processor; itself for none.

    Args:
        processor: Of transformers; a processor with an `image_processor`, or an image processor.
        options: By name, such as ``max_pixels`` of Qwen-VL or ``do_image_splitting`` of Idefics3; None for none.

    Raises:
        ConfigError: If the image processor has no such option, or refuses its value.
    """
    if not options:
        return processor
    images = getattr(processor, "image_processor", processor)
    known = sorted(getattr(getattr(images, "valid_kwargs", None), "__annotations__", images.to_dict()))
    for name in options:
        if name not in known:
            raise ConfigError(
                f"`processor` has the option {name!r}, which {type(images).__name__} does not; it has {known}."
            )
    try:
        made = type(images).from_dict(images.to_dict(), **options)
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"{type(images).__name__} refuses `processor` {dict(options)}: {error}") from error
    if images is processor:
        return made
    processor.image_processor = made
    return processor


def processor_fingerprint(processor: Any) -> str:
    """Return everything that the outputs of a processor depend on, as text: version, template, vocabulary, options."""
    described = [hugging_face().__version__, getattr(processor, "chat_template", None)]
    parts: list[Any] = [processor, getattr(processor, "image_processor", None), getattr(processor, "tokenizer", None)]
    for part in parts:
        if hasattr(part, "get_vocab"):
            described.append(_vocabulary(part))
        elif part is not None:
            described.append(f"{type(part).__name__} {part.to_json_string()}")
    return json.dumps(described)


def _vocabulary(tokenizer: Any) -> str:
    if not tokenizer.is_fast:
        return json.dumps(sorted(tokenizer.get_vocab().items()))
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    # Truncation and padding are left behind by the last call and do not affect the next one.
    return json.dumps({**parts, "truncation": None, "padding": None})
