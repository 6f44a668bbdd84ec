"""Item texts as input of a model: cut to length, freed of special tokens, and put into the prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lis_lightning.errors import ConfigError


def check_prompt(prompt: str, max_text_tokens: int) -> None:
    """Raise ConfigError for a prompt without ``{text}``, and for a text length below 1."""
    if "{text}" not in prompt:
        raise ConfigError(f"`prompt` must contain {{text}}, where the item's text goes, but got {prompt!r}.")
    if max_text_tokens < 1:
        raise ConfigError(f"`max_text_tokens` must be 1 or more, but got {max_text_tokens}.")


def shorten(tokenizer: Any, text: str, max_tokens: int, forbidden: Iterable[str] = ()) -> str:
    """Return the text cut to a number of tokens, without special tokens.

    Args:
        tokenizer: Of the model.
        text: Of an item.
        max_tokens: Longest length.
        forbidden: Further words that the model would not take for text, such as the image token.
    """
    for token in {*forbidden, *tokenizer.all_special_tokens}:
        text = text.replace(token, " ")
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False)
    if len(encoding["input_ids"]) <= max_tokens:
        return text
    if tokenizer.is_fast:  # cut the text itself; decoding might lower its case and change its spaces
        return text[: encoding["offset_mapping"][max_tokens - 1][1]]
    return str(tokenizer.decode(encoding["input_ids"][:max_tokens]))


def longest_sequence(tokenizer: Any, config: Any) -> int | None:
    """Return the number of tokens that a text model reads; None if there is no limit."""
    limits = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or -1)
    return min((length for length in limits if 0 < length < 10**9), default=None)


def render_prompt(
    processor: Any,
    prompt: str,
    *,
    num_images: int = 1,
    instruction: str | None = None,
    generation_prompt: bool = False,
) -> tuple[str, bool]:
    """Return the prompt after a token for each image, and whether the tokenizer has to add its special tokens.

    Args:
        processor: Of the model; its chat template is used, if it has one.
        prompt: The user's message, after the images.
        num_images: Of the item.
        instruction: The system's message; None for none.
        generation_prompt: Whether the beginning of the assistant's answer follows. Without it, the end of the user's
            turn is the last token; the new line that many templates write after it is left out.

    Raises:
        ConfigError: If there is no chat template to put the instruction or the beginning of the answer.
    """
    if getattr(processor, "chat_template", None):
        content = [*([{"type": "image"}] * num_images), {"type": "text", "text": prompt}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if instruction is not None:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": instruction}]})
        text = str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt))
        if not generation_prompt:
            text = text.rstrip()
        begin = processor.tokenizer.bos_token
        return text, not (begin and text.startswith(begin))
    if instruction is not None or generation_prompt:
        raise ConfigError(
            f"`instruction` and `generation_prompt` need a chat template, which {type(processor).__name__} does not "
            "have here; write the instruction into `prompt`."
        )
    text = image_token(processor) * num_images + prompt
    # A model cannot read nothing, which an item without image and text is to a tokenizer that marks no beginning.
    return text or processor.tokenizer.eos_token or processor.tokenizer.pad_token, True


def image_token(processor: Any) -> str:
    """Return the token that stands for an image in the prompt."""
    token = getattr(processor, "image_token", None) or getattr(processor.tokenizer, "image_token", None)
    if token is None:
        raise ConfigError(f"{type(processor).__name__} names no image token; use a model whose processor has one.")
    return str(token)
