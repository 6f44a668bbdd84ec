"""Refuse unknown settings and values of the wrong type, before anything is loaded.

Hydra refuses unknown keys on the command line only; a misspelt key in a YAML file silently becomes a new key. Here the
keys of a node with a ``_target_`` are compared with the parameters of that function or class, and the keys of other
groups with the files in ``conf/``.
"""

from __future__ import annotations

import difflib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lis_lightning.cli.resources import resource_dir
from lis_lightning.errors import ConfigError

_KEYWORDS = inspect.Parameter.VAR_KEYWORD
_HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
# Numbers by default that null switches off.
_NULLABLE = {"lis.every_n_steps", "lis.split.max_events", "lis.split.max_alignment_events"}
_TYPE_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


def check_config(config: DictConfig, name: str) -> None:
    """Raise for a key that nothing reads, and for a value that is no number where a number is needed.

    Args:
        config: As composed.
        name: Of the file it was composed from, ``align`` or ``audit``.

    Raises:
        ConfigError: With the full name of the key, and the nearest known name.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    _check_node(plain, _defaults(name), "")


def unknown_key(error: BaseException) -> str | None:
    """Return a message for an unknown key that Hydra refused on the command line; None for other errors."""
    cause = error.__cause__
    if not isinstance(error, HydraException) or not isinstance(cause, OmegaConfBaseException):
        return None
    parent, key = cause.parent_node, str(cause.key)
    if not isinstance(parent, DictConfig) or key in parent:
        return None
    path = str(parent._get_full_key(None))
    target = parent.get("_target_")
    if isinstance(target, str) and key in _parameters(_resolve(target, path)):
        return f"{path}.{key} has no default here; write +{path}.{key}=... to add it."
    return _no_key(key, path, [str(name) for name in parent])


def nearest(name: str, names: Collection[str]) -> str:
    """Return the question whether the nearest known name was meant, with a leading space; empty without a near one.

    Example:
        >>> nearest("temprature", ["temperature", "window"])
        " Did you mean 'temperature'?"
    """
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def _defaults(name: str) -> dict[str, Any]:
    """Return the settings in ``conf/``, for the groups that are not built from a ``_target_``."""
    conf = resource_dir("conf")
    primary = _read(conf / f"{name}.yaml")
    defaults = {key: value for key, value in primary.items() if key not in {"defaults", "hydra"}}
    for entry in primary["defaults"]:
        if isinstance(entry, Mapping):
            group = str(next(iter(entry)))
            files = sorted((conf / group).glob("*.yaml"))
            # A group with a `@package` header writes to another place of the configuration.
            if files and not any(path.read_text().startswith("# @package") for path in files):
                default = conf / group / "default.yaml"
                defaults.setdefault(group, _read(default) if default.is_file() else None)
    return defaults


def _read(path: Path) -> dict[str, Any]:
    return dict(OmegaConf.to_container(OmegaConf.load(path), resolve=False))  # type: ignore[arg-type]


def _check_node(node: Any, default: Any, path: str) -> None:
    """Check a node and everything below it against its default, where there is one."""
    if isinstance(node, list):
        for number, element in enumerate(node):
            _check_node(element, None, f"{path}[{number}]")
    # Only a section of the defaults says which keys there are; below a `_target_` its parameters do.
    section = default if _is_section(default) else {}
    if not isinstance(node, dict):
        _check_leaf(node, default, path)
        return
    if "_target_" in node:
        _check_call(node, path)
    elif section:
        for key in node:
            if key not in section and not str(key).startswith("_"):
                raise ConfigError(_no_key(str(key), path, list(section)))
    for key, value in node.items():
        below = f"{path}.{key}" if path else str(key)
        _check_node(value, section.get(key), below)
        if path in {"objectives", "regularisers"}:
            _check_has_target(value, node, below)


def _is_section(default: Any) -> bool:
    return isinstance(default, dict) and bool(default) and "_target_" not in default


def _check_has_target(value: Any, siblings: Mapping[str, Any], path: str) -> None:
    """Raise for an objective or regulariser without a class: a misspelt name makes such a node."""
    if isinstance(value, dict) and "_target_" not in value:
        group, _, key = path.partition(".")
        objects = [name for name, node in siblings.items() if isinstance(node, dict) and "_target_" in node]
        raise ConfigError(f"{path} has no _target_, so it is no {group[:-1]}: {_no_key(key, group, objects)}")


def _check_call(node: Mapping[str, Any], path: str) -> None:
    """Raise if a node has a key that is no parameter of its ``_target_``."""
    target = _resolve(str(node["_target_"]), path)
    parameters = _parameters(target)
    if not parameters:
        return
    for key, value in node.items():
        if key in _HYDRA_KEYS:
            continue
        if key not in parameters:
            name = getattr(target, "__qualname__", node["_target_"])
            raise ConfigError(_no_key(str(key), f"{path} ({name})", parameters))
        _check_type(value, parameters[key], f"{path}.{key}")


def _resolve(name: str, path: str) -> Any:
    """Import what a dotted name stands for."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}._target_ names {name!r}, which cannot be imported: {error}.") from None


def _check_type(value: Any, annotation: Any, path: str) -> None:
    """Raise if a parameter is annotated with numbers, bool or None only, and the value is none of these."""
    union = get_origin(annotation) in {Union, UnionType}
    types = get_args(annotation) if union else (annotation,)
    if not all(kind in _TYPE_NAMES for kind in types) or _is_open(value):
        return
    integer_for_float = type(value) is int and float in types
    if type(value) not in types and not integer_for_float:
        expected = " or ".join(_TYPE_NAMES[kind] for kind in types)
        raise ConfigError(f"{path} is {expected}, but got {value!r}.")


def _is_open(value: Any) -> bool:
    """Whether a value is known only later: interpolated, or still to be given."""
    return isinstance(value, str) and ("${" in value or value == "???")


def _parameters(target: Any) -> dict[str, Any]:
    """Return the parameters of a callable with their annotations; empty if it takes any, or its signature is unknown.

    A class of this package, or derived from one, hands keywords that it does not name to its base class; a class
    method hands them to its class. So parameters are collected along the method resolution order, until a constructor
    takes no further keywords.
    """
    parameters: dict[str, Any] = {}
    for number, maker in enumerate(_makers(target)):
        try:
            signature = _signature(maker)
        except (ValueError, TypeError):
            return {}  # written in C
        named = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
        keywords = [parameter.name for parameter in signature.parameters.values() if parameter.kind is _KEYWORDS]
        parameters = {name: annotation for name, annotation in named.items() if name not in keywords} | parameters
        if not keywords:
            ours = number == 0 or maker.__module__.startswith("lis_lightning.")
            parameters = {name: parameters[name] for name in parameters if name not in {"self", "cls"}}
            return parameters if ours else {}
    return {}


def _makers(target: Any) -> list[Callable[..., Any]]:
    """Return what is called one after the other: a function or class method, then the constructors of its class."""
    owner = getattr(target, "__self__", target)
    classes = owner.__mro__ if isinstance(owner, type) else ()
    constructors = [vars(base)["__init__"] for base in classes if base is not object and "__init__" in vars(base)]
    return constructors if constructors and owner is target else [target, *constructors]


def _signature(maker: Any) -> inspect.Signature:
    """Return a signature with its annotations evaluated, if all of them can be imported."""
    try:
        return inspect.signature(maker, eval_str=True)
    except NameError:  # names imported for type checkers only
        return inspect.signature(maker)


def _check_leaf(value: Any, default: Any, path: str) -> None:
    """Raise for a value of another type than the default, where that is a number, a bool or a section."""
    if _is_section(default):
        raise ConfigError(f"{path} is a group of settings ({', '.join(sorted(default))}), but got {value!r}.")
    if (value is None and path in _NULLABLE) or _is_open(value):
        return
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{path} is true or false, but got {value!r}.")
    elif isinstance(default, int | float):
        whole = isinstance(default, int)
        fits = isinstance(value, int) or (isinstance(value, float) and not whole)
        if isinstance(value, bool) or not fits:
            kind = "whole number" if whole else "number"
            raise ConfigError(f"{path} is a {kind}, such as {default}, but got {value!r}.")


def _no_key(key: str, path: str, keys: Collection[str]) -> str:
    section = path or "the configuration"
    return f"There is no {key!r} in {section}; there are {', '.join(sorted(keys))}.{nearest(key, keys)}"
