"""Encoder of items from a submodule with pooling, for Hugging Face and other models in an unchanged LightningModule."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lis_lightning.errors import ConfigError, ShapeError
from lis_lightning.functional.pooling import Pooling, pool
from lis_lightning.monitor.sharding import caller

_MASK, _IDS = "attention_mask", "input_ids"
_EXCLUDED = {"labels"}  # given labels, a model would compute a loss
# Passed if `forward` takes them: a key-value cache and logits over the vocabulary need more memory than the states.
_MEMORY_OPTIONS = {"use_cache": False, "logits_to_keep": 1}


@dataclass(frozen=True)
class Encode:
    """Take the representations of items from a submodule: ``LISMonitor(encode=Encode("model.text_model"))``.

    The submodule is called with those values of an item batch whose keys are parameters of its `forward`. If `forward`
    takes only ``**kwargs``, it is called with all values but the item id. The representations are the tensor it
    returns, or the first tensor of a tuple; from an output object or dict they are the field `output` names, by default
    ``last_hidden_state`` (of the base model, if the submodule has a head) or else the last of ``hidden_states``. A
    tensor [B, D] is used as it is. A tensor [B, T, D] is pooled over its T positions; padding, on either side, is
    excluded.

    Args:
        submodule: Dotted name of the submodule in the LightningModule; ``""`` is the module itself. Prefer a backbone
            (``"model.model"``) to a model with a head, since the output of the head is not used.
        pooling: ``"mean"`` over all real positions, ``"last"`` real position, ``"cls"`` for the first, or ``"eos"`` for
            the last position that holds an end-of-sequence token.
        layer: Index of the hidden state: -1 is the last one, -2 the one before it, 0 the embeddings. A list of several
            encodes them at once: the first is scored, the others are readings named ``layer_8`` or, counted from the
            end, ``layer_minus_2``.
        output: Field of the output to read instead of a hidden state: ``"pooler_output"``, ``"image_embeds"``.
        inputs: Map from parameter of `forward` to key of the batch, if names differ or some values are not wanted.
        mask: Key of the mask of real positions. Required if the submodule takes ``input_ids``; not used for other
            inputs, such as pixels. None if no item is padded.
        eos_token_id: End-of-sequence token for ``"eos"``; by default that of the submodule's ``config``.

    Raises:
        ConfigError: If `pooling` is unknown, or both `layer` and `output` are set.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.ModuleDict({"tower": nn.Embedding.from_pretrained(torch.eye(3))})
        >>> encode = Encode("tower", inputs={"input": "input_ids"}).bind(model)
        >>> encode(model, {"input_ids": torch.tensor([[1, 2, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])})
        tensor([[0.0000, 0.5000, 0.5000]])
    """

    submodule: str
    _: KW_ONLY
    pooling: Pooling = "mean"
    layer: int | Sequence[int] = -1
    output: str | None = None
    inputs: Mapping[str, str] | None = None
    mask: str | None = _MASK
    eos_token_id: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ConfigError(f"`pooling` must be one of {list(get_args(Pooling))}, got {self.pooling!r}.")
        if not isinstance(self.layer, int) and not (self.layer and len(set(self.layer)) == len(self.layer)):
            raise ConfigError(f"Expected `layer` as an index or a list of different ones, got {self.layer!r}.")
        if self.output is not None and self.layer != -1:
            raise ConfigError(
                f"`layer` selects a hidden state and `output` another field, got layer={self.layer} and "
                f"output={self.output!r}; set only one of them."
            )

    def bind(self, module: nn.Module, item_key: str = "item_id") -> BoundEncode:
        """Return the encoder of one module.

        Args:
            module: The module that contains the submodule.
            item_key: Key of the item ids in a batch, which are never given to the submodule.

        Raises:
            ConfigError: If there is no such submodule or layer, or the end-of-sequence token is not known.
        """
        return BoundEncode(self, module, item_key)


class BoundEncode:
    """Encoder bound to a module; called with the module and a batch, it returns [B, D].

    Args:
        spec: The submodule and its pooling.
        module: The module that contains the submodule.
        item_key: Key of the item ids in a batch.
    """

    def __init__(self, spec: Encode, module: nn.Module, item_key: str) -> None:
        self.spec = spec
        self.item_key = item_key
        part = _find(module, spec.submodule)
        self._call = caller(module, part)
        inner = _inner(part)
        self._name = f"{type(inner).__name__}.forward"
        self._parameters = inspect.signature(inner.forward).parameters
        self._takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in self._parameters.values())
        self._required = [name for name, parameter in self._parameters.items() if _required(parameter)]
        config = getattr(inner, "config", None)
        self._eos = _eos(spec, config)
        _check_layer(spec, config)
        # Models of transformers return hidden states on request, most of them through `**kwargs`.
        self._can_request_states = "output_hidden_states" in self._parameters or (
            self._takes_any and config is not None
        )
        self._requests_states = spec.layer != -1 or spec.output == "hidden_states"
        self._base = _base_model(part) if spec.layer == -1 and spec.output is None else None

    def check(self, batch: Mapping[str, Any]) -> None:
        """Check that a batch holds what the submodule needs, without calling it.

        Raises:
            ConfigError: If the batch lacks an argument that the submodule requires, all of its arguments, or the mask.
        """
        self._mask(self._arguments(batch), batch)

    def __call__(self, module: Any, batch: Mapping[str, Any]) -> Tensor | dict[str, Tensor]:
        """Return the representations of a batch, [B, D], by layer if there are several.

        The module is the one that this was bound to.
        """
        arguments = self._arguments(batch)
        if isinstance(self.spec.layer, int):
            return self._vectors(self._last_state(arguments, self.spec.layer), arguments, batch, self.spec.layer)
        output = self._run(arguments)
        return {
            f"layer_{layer}".replace("-", "minus_"): self._vectors(self._read(output, layer), arguments, batch, layer)
            for layer in self.spec.layer
        }

    def _vectors(
        self, states: Tensor | None, arguments: dict[str, Any], batch: Mapping[str, Any], layer: int
    ) -> Tensor:
        """Return one vector an item of the states of a layer; states of None must be requested first."""
        if states is None and self._can_request_states and not self._requests_states:
            self._requests_states = True  # a model with a head returns hidden states only on request
            states = self._read(self._run(arguments), layer)
        if states is None:
            raise ConfigError(
                f"{self._name} of {self.spec.submodule!r} returned neither `last_hidden_state` nor `hidden_states`; "
                "set `Encode(output=...)` to the field that holds the representations, or name its backbone."
            )
        if states.ndim == 2:
            return states
        if states.ndim != 3:
            raise ShapeError(
                f"{self._name} of {self.spec.submodule!r} returned {list(states.shape)}, expected [B, D], or [B, T, D] "
                "to be pooled. Pass a function as `encode`."
            )
        return self._pooled(states, arguments, batch)

    def _arguments(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a batch that are arguments of the submodule."""
        offered = {name: value for name, value in batch.items() if name != self.item_key}
        if self.spec.inputs is not None:
            absent = sorted(set(self.spec.inputs.values()) - set(batch))
            if absent:
                raise ConfigError(f"An item batch has no {absent}, which `Encode(inputs=...)` names: {sorted(batch)}.")
            arguments = {name: batch[key] for name, key in self.spec.inputs.items()}
        else:
            arguments = {name: offered[name] for name in self._parameters if name in offered and name not in _EXCLUDED}
            if not arguments and self._takes_any:
                arguments = offered
        absent = [name for name in self._required if name not in arguments]
        if absent or not arguments:
            requires = f" and requires {absent}" if absent else ""
            raise ConfigError(
                f"{self._name} of {self.spec.submodule!r} takes {list(self._parameters)}{requires}, an item batch has "
                f"{sorted(offered)}: let the collate function use its names, or map them: "
                "Encode(..., inputs={'its parameter': 'key of the batch'})."
            )
        return arguments

    def _run(self, arguments: Mapping[str, Any]) -> Any:
        """Call the submodule."""
        options: dict[str, Any] = {name: value for name, value in _MEMORY_OPTIONS.items() if name in self._parameters}
        if self._requests_states and self._can_request_states:
            options |= {"output_hidden_states": True, "return_dict": True}
        return self._call(**{**options, **arguments})

    def _last_state(self, arguments: Mapping[str, Any], layer: int) -> Tensor | None:
        """Return what the submodule returns, or the last state of its base model; None if states must be requested.

        In some models with a head (ViT, DINOv2, Swin) the last of ``hidden_states`` is the state before the final norm.
        """
        if self._base is None:
            return self._read(self._run(arguments), layer)
        outputs: list[Any] = []
        handle = self._base.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        try:
            own = self._run(arguments)
        finally:
            handle.remove()
        last = _field(outputs[-1], "last_hidden_state") if outputs else None
        return last if isinstance(last, Tensor) else self._read(own, layer)

    def _read(self, output: Any, layer: int) -> Tensor | None:
        """Return the representations in the output of the submodule; None if hidden states must be requested."""
        if isinstance(output, list | tuple):
            output = next((element for element in output if isinstance(element, Tensor)), None)
        if isinstance(output, Tensor) and layer == -1 and self.spec.output is None:
            return output
        if self.spec.output is not None:
            value = _field(output, self.spec.output)
            if not isinstance(value, Tensor):
                raise ConfigError(
                    f"{self._name} of {self.spec.submodule!r} returned no tensor {self.spec.output!r}, only "
                    f"{_field_names(output)}."
                )
            return value
        last = _field(output, "last_hidden_state")
        if layer == -1 and isinstance(last, Tensor):
            return last
        return self._state(_field(output, "hidden_states"), layer)

    def _state(self, states: Any, layer: int) -> Tensor | None:
        """Return the hidden state of a layer; None if hidden states must be requested."""
        if states is None and (layer == -1 or self._can_request_states):
            return None
        count = len(states or ())
        if not -count <= layer < count:
            raise ConfigError(
                f"{self._name} of {self.spec.submodule!r} returned {count} hidden states, which do not include "
                f"layer={layer}."
            )
        chosen: Tensor = states[layer]
        return chosen

    def _pooled(self, states: Tensor, arguments: Mapping[str, Any], batch: Mapping[str, Any]) -> Tensor:
        """Pool hidden states [B, T, D] to one vector per item."""
        mask = self._mask(arguments, batch)
        if mask is None:
            mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        ids = arguments.get(_IDS, batch.get(_IDS)) if self.spec.pooling == "eos" else None
        for what, tensor in (("mask", mask), ("tokens", ids)):
            if tensor is not None and tensor.shape != states.shape[:2]:
                raise ShapeError(
                    f"{self._name} of {self.spec.submodule!r} returned states {list(states.shape)}, but the {what} of "
                    f"the batch has {list(tensor.shape)}. If no item is padded set `Encode(mask=None)`; else pass a "
                    "function as `encode`."
                )
        return pool(states, mask.bool(), self.spec.pooling, ids=ids, eos=self._eos)

    def _mask(self, arguments: Mapping[str, Any], batch: Mapping[str, Any]) -> Tensor | None:
        """Return the mask of real positions; None if no position is padding."""
        name = self.spec.mask
        given = {*arguments, *(self.spec.inputs or {}).values()}
        if self.spec.pooling == "eos" and _IDS not in given:
            raise ConfigError(
                f"Pooling 'eos' looks for a token in `{_IDS}`, but {self._name} of {self.spec.submodule!r} is given "
                f"{sorted(arguments)}. Choose another pooling."
            )
        if name is None or (name == _MASK and not given & {_MASK, _IDS}):
            return None
        mask: Tensor | None = arguments.get(name, batch.get(name))
        if mask is None:
            raise ConfigError(
                f"An item batch has no {name!r}, only {sorted(map(str, batch))}: without it padding would be pooled. "
                "Let the collate function return it, name it in `Encode(mask=...)`, or set `mask=None` if no item is "
                "padded."
            )
        return mask


def _find(module: nn.Module, name: str) -> nn.Module:
    """Return a submodule by name; an unknown name raises with the closest ones."""
    try:
        return module.get_submodule(name)
    except AttributeError:
        names = [child for child, _ in module.named_modules() if child]
        last = name.rpartition(".")[2]
        same_last = [child for child in names if child.rpartition(".")[2] == last]
        close = list(dict.fromkeys([*same_last, *difflib.get_close_matches(name, names, n=3)]))[:3]
        children = [child for child, _ in module.named_children()]
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"It has {children}."
        raise ConfigError(f"{type(module).__name__} has no submodule {name!r}. {hint}") from None


def _inner(part: nn.Module) -> Any:
    """Return the module with the original `forward`, inside a compiled module or a PEFT wrapper."""
    part = getattr(part, "_orig_mod", part)
    base = getattr(part, "get_base_model", None)
    return base() if callable(base) else part


def _base_model(part: nn.Module) -> nn.Module | None:
    """Return the base model inside a model of transformers with a head; None if there is none, or it is compiled."""
    inner = _inner(part)
    base = getattr(inner, getattr(inner, "base_model_prefix", None) or "", None)
    is_compiled = hasattr(part, "_orig_mod")  # a hook would make it compile again
    return base if isinstance(base, nn.Module) and base is not inner and not is_compiled else None


def _field(output: Any, name: str) -> Any:
    """Return a field of an output object or dict; None if it has none."""
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def _field_names(output: Any) -> list[str]:
    """Return the names of the fields of an output; none for a tensor."""
    if output is None or isinstance(output, Tensor):
        return []
    return sorted(map(str, output if isinstance(output, Mapping) else vars(output)))


def _required(parameter: inspect.Parameter) -> bool:
    """Return whether a keyword argument must be given for a parameter."""
    by_keyword = parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
    return by_keyword and parameter.default is parameter.empty


def _eos(spec: Encode, config: Any) -> tuple[int, ...]:
    """Return the ids of the end-of-sequence tokens; empty unless the pooling needs them."""
    if spec.pooling != "eos":
        return ()
    token_id = spec.eos_token_id
    if token_id is None:
        token_id = getattr(config, "eos_token_id", None)
    if token_id is None:
        raise ConfigError(
            f"Pooling 'eos' needs the end-of-sequence token, and {spec.submodule!r} has no `config.eos_token_id`: "
            "set Encode(eos_token_id=tokenizer.eos_token_id)."
        )
    return tuple(token_id) if isinstance(token_id, Iterable) else (token_id,)


def _check_layer(spec: Encode, config: Any) -> None:
    """Raise if the model's configuration says that it has no such layer."""
    layers = getattr(config, "num_hidden_layers", None)
    chosen = [spec.layer] if isinstance(spec.layer, int) else spec.layer
    if isinstance(layers, int) and not all(-layers - 1 <= layer <= layers for layer in chosen):
        raise ConfigError(
            f"`layer` must be from {-layers - 1} to {layers} for the {layers} layers of {spec.submodule!r}, got "
            f"{spec.layer}."
        )
