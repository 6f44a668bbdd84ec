"""Checkpoints of encoders: the trained weights, and what is needed to rebuild the encoder around them.

A checkpoint of a 7 B model with adapters would hold 15 GB of frozen weights, which can be loaded from the base model.
They are left out. The checkpoint names the base model instead, with a checksum of each weight left out, so that
rebuilding the encoder from a different base model raises an error.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import pkgutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lis_lightning.align.models.hugging_face import quiet_transformers
from lis_lightning.align.models.tuning import Tuning
from lis_lightning.errors import ConfigError

if TYPE_CHECKING:
    from lis_lightning.align.models.item_encoder import ItemEncoder

KEY = "lis_encoder"
"""Key of an encoder's description in a checkpoint."""

_NO_PLAIN_FORM = object()

DESCRIPTION = "lis_encoder.json"
"""File with an encoder's description in a folder of :meth:`PretrainedEncoder.save_pretrained`."""

WEIGHTS = "lis_encoder.safetensors"
"""File in such a folder with the weights that are not the model's: of the head and of joined features."""

_SAMPLE_SIZE = 1024  # numbers of a weight that enter its checksum


def describe_encoder(encoder: ItemEncoder, *, precision: str = "32-true") -> dict[str, Any]:
    """Return what rebuilds an encoder, in plain values: its class, its arguments, and checksums of the base weights.

    Arguments that have no plain form, such as a module, are listed by name; loading then asks for them.

    Args:
        encoder: The encoder.
        precision: Of the Trainer.

    Example:
        >>> from lis_lightning.align.models import FeatureEncoder
        >>> describe_encoder(FeatureEncoder(4, output_dim=2))["arguments"]
        {'input_dim': 4, 'output_dim': 2}
    """
    kind = type(encoder)
    state = encoder.state_dict()
    arguments = {name: _plain(value) for name, value in encoder.arguments.items()}
    return {
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "arguments": {name: value for name, value in arguments.items() if value is not _NO_PLAIN_FORM},
        "missing": [name for name, value in arguments.items() if value is _NO_PLAIN_FORM],
        "precision": precision,
        "base_weights": {name: _checksum(state[name]) for name in encoder.base_weights()},
    }


def leave_out_base(state: dict[str, Any], description: Mapping[str, Any], prefix: str = "") -> None:
    """Remove the weights of the base model from a state dict, in place.

    Args:
        state: Of the encoder, or of a module that contains it.
        description: Of the encoder.
        prefix: Of the names of the encoder's weights in the state dict.
    """
    base = {prefix + name for name in description["base_weights"]}
    for name in list(state):
        # A quantised weight has further entries under its own name: its scales.
        weight = f"{name.rpartition('.weight.')[0]}.weight"
        if name in base or weight in base:
            del state[name]


def complete_state(encoder: ItemEncoder, state: dict[str, Any], description: Mapping[str, Any]) -> None:
    """Add the weights that a checkpoint leaves out to its state dict, in place.

    Args:
        encoder: Newly constructed, with the weights of its base model.
        state: From the checkpoint, by the encoder's names of its weights.
        description: From the checkpoint.

    Raises:
        ConfigError: If the encoder has a different base model from the one in training.
    """
    own = encoder.state_dict()
    left_out = description["base_weights"]
    differing = [name for name, checksum in left_out.items() if name not in own or _differs(own[name], checksum)]
    if differing:
        raise ConfigError(
            f"The checkpoint was trained on {description['arguments'].get('model')}, and {len(differing)} of the "
            f"{len(left_out)} weights that it takes from there differ in this model, the first is {differing[0]}. Give "
            "the same model and revision."
        )
    state.update({name: own[name] for name in left_out if name not in state})


def read_encoder(expected: type[ItemEncoder], path: str | Path, changes: Mapping[str, Any]) -> ItemEncoder:
    """Return the trained encoder in a checkpoint or folder; see :meth:`ItemEncoder.from_checkpoint`.

    Args:
        expected: Class that the encoder must be an instance of.
        path: Of the checkpoint or folder.
        changes: Arguments of the encoder that replace those in the file.
    """
    path = Path(path).expanduser()
    description, state = _read_folder(path) if path.is_dir() else _read_checkpoint(path)
    encoder = _rebuilt(expected, description, changes)
    if not path.is_dir():
        complete_state(encoder, state, description)
    try:
        report = encoder.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ConfigError(f"The weights in {path} do not fit the encoder that it describes: {error}") from error
    # The model of a folder has its own files, which the constructor has read.
    absent = [name for name in report.missing_keys if not (path.is_dir() and name.startswith("model."))]
    if absent or report.unexpected_keys:
        names = ", ".join([*absent, *report.unexpected_keys][:3])
        raise ConfigError(
            f"The weights in {path} are not those of the encoder that it describes, for instance {names}."
        )
    encoder.precision = description["precision"]
    return encoder.eval()


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description of the encoder in a checkpoint, and its weights."""
    if not path.is_file():
        raise ConfigError(f"The checkpoint {path} does not exist.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, LookupError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict) or KEY not in checkpoint:
        raise ConfigError(
            f"{path} does not describe an encoder ({KEY!r} is missing): it was not written by lis-align. "
            "Construct the encoder, and load the weights with load_state_dict."
        )
    prefix = "encoder."
    weights = checkpoint["state_dict"].items()
    state = {name.removeprefix(prefix): value for name, value in weights if name.startswith(prefix)}
    return checkpoint[KEY], state


def _read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description of the encoder in a folder, with the folder as its model, and the weights around that."""
    from safetensors.torch import load_file

    if not (folder / DESCRIPTION).is_file():
        raise ConfigError(
            f"The folder {folder} has no {DESCRIPTION}; give one written by an encoder's save_pretrained."
        )
    description = json.loads((folder / DESCRIPTION).read_text())
    description["arguments"]["model"] = str(folder)
    return description, load_file(folder / WEIGHTS)


def _rebuilt(expected: type[ItemEncoder], description: Mapping[str, Any], changes: Mapping[str, Any]) -> ItemEncoder:
    """Return the encoder as it was before training."""
    name, arguments = description["class"], description["arguments"]
    if arguments.get("trust_remote_code") and "trust_remote_code" not in changes:
        raise ConfigError(
            f"The model {arguments['model']} runs code of its repository. Set trust_remote_code=true again if you "
            "trust it."
        )
    missing = [argument for argument in description["missing"] if argument not in changes]
    if missing:
        raise ConfigError(f"The checkpoint has no value of {', '.join(missing)} of {name}; give it when loading.")
    try:
        kind = pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"The encoder is of the class {name}, which cannot be imported: {error}.") from error
    if not (isinstance(kind, type) and issubclass(kind, expected)):
        raise ConfigError(f"The encoder is of the class {name}, which is not a kind of {expected.__name__}.")
    options = {**arguments, **changes}
    if isinstance(options.get("tuning"), dict):
        options["tuning"] = Tuning(**options["tuning"])
    with quiet_transformers():
        encoder: ItemEncoder = kind(**options)
    return encoder


def _plain(value: Any) -> Any:
    """Return an argument in plain values, folders as absolute paths; `_NO_PLAIN_FORM` if it has none."""
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_dir()):
        return str(Path(value).expanduser().resolve())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        entries = {str(name): _plain(entry) for name, entry in value.items()}
        return _NO_PLAIN_FORM if _NO_PLAIN_FORM in entries.values() else entries
    if isinstance(value, Sequence) and not isinstance(value, str):
        plain = [_plain(entry) for entry in value]
        return _NO_PLAIN_FORM if _NO_PLAIN_FORM in plain else plain
    return value if isinstance(value, str | int | float | None) else _NO_PLAIN_FORM


def _checksum(weight: Tensor) -> str:
    """Return a checksum of some numbers of a weight, in bfloat16, so that it does not depend on how it is loaded.

    It is empty for a weight of 4 bits, whose packing depends on the device.
    """
    if not weight.is_floating_point():
        return ""
    step = max(1, weight.numel() // _SAMPLE_SIZE)
    values = weight.detach().reshape(-1)[::step].bfloat16().cpu().contiguous()
    return f"{zlib.crc32(values.view(torch.uint8).numpy().tobytes()):08x}"


def _differs(weight: Tensor, checksum: str) -> bool:
    own = _checksum(weight)
    return bool(own) and bool(checksum) and own != checksum
