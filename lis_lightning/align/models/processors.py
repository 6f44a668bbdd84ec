"""Options of the processor of a model, which the user sets: `model.processor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
