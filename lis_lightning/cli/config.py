"""Refuse settings that nobody reads, wherever they stand, before anything is loaded.

Hydra refuses unknown keys of the command line only: a misspelt key of a YAML file is a new key to it. Here the keys
of a node with a ``_target_`` are compared with the parameters of what it names, and those of the other groups with the
file that we ship.
"""

from __future__ import annotations

import difflib
import inspect
import pkgutil
from collections.abc import Collection, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lis_lightning.cli.resources import resource_dir
from lis_lightning.errors import ConfigError

_MEANT_FOR_HYDRA = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
_MAY_BE_NULL = {"lis.every_n_steps", "lis.split.max_events"}  # numbers by default that can be left out
_SAID: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


def check_config(config: DictConfig, name: str) -> None:
    """Raise for a key that nobody reads, or a text, a list or null where a number is meant.

    Args:
        config: As composed.
        name: Of the file it was composed from, ``align`` or ``audit``.

    Raises:
        ConfigError: With the place of the key, and the nearest name there is.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    _check_node(plain, _shipped(name), "")


def unknown_key(error: BaseException) -> str | None:
    """Return in words what is wrong with a command line that Hydra refused for its key; None for other errors."""
    cause = error.__cause__
    if not isinstance(error, HydraException) or not isinstance(cause, OmegaConfBaseException):
        return None
    parent, key = cause.parent_node, str(cause.key)
    if not isinstance(parent, DictConfig) or key in parent:
        return None
    place = str(parent._get_full_key(None))
    if isinstance(named := parent.get("_target_"), str) and key in _parameters(_resolved(named, place)):
        return f"{place}.{key} has no default here; write +{place}.{key}=... to add it."
    return _there_is_no(key, place, [str(one) for one in parent])


def _shipped(name: str) -> dict[str, Any]:
    """Return the settings that we ship, for the groups that are no objects."""
    conf = resource_dir("conf")
    primary = _read(conf / f"{name}.yaml")
    known = {key: value for key, value in primary.items() if key not in {"defaults", "hydra"}}
    for entry in primary["defaults"]:
        if isinstance(entry, Mapping):
            group = str(next(iter(entry)))
            files = sorted((conf / group).glob("*.yaml"))
            if files and not any(path.read_text().startswith("# @package") for path in files):
                default = conf / group / "default.yaml"
                known.setdefault(group, _read(default) if default.is_file() else None)
    return known


def _read(path: Path) -> dict[str, Any]:
    return dict(OmegaConf.to_container(OmegaConf.load(path), resolve=False))  # type: ignore[arg-type]


def _check_node(node: Any, shipped: Any, place: str) -> None:
    """Check a node and all below it; `shipped` is the one that stands there by default, if it is known."""
    if isinstance(node, list):
        for number, one in enumerate(node):
            _check_node(one, None, f"{place}[{number}]")
    reference = shipped if isinstance(shipped, dict) and shipped and "_target_" not in shipped else {}
    if not isinstance(node, dict):
        _check_leaf(node, reference or shipped, place)
        return
    if "_target_" in node:
        _check_call(node, place)
    elif reference:
        for key in node:
            if key not in reference and not str(key).startswith("_"):
                raise ConfigError(_there_is_no(str(key), place, list(reference)))
    for key, value in node.items():
        below = f"{place}.{key}" if place else str(key)
        _check_node(value, reference.get(key), below)
        if place in {"objectives", "regularisers"} and isinstance(value, dict) and "_target_" not in value:
            others = [name for name, one in node.items() if isinstance(one, dict) and "_target_" in one]
            raise ConfigError(
                f"{below} has no _target_, so it is no {place[:-1]}: {_there_is_no(str(key), place, others)}"
            )


def _check_call(node: Mapping[str, Any], place: str) -> None:
    """Raise where a node has a key that what it names does not take."""
    target = _resolved(str(node["_target_"]), place)
    known = _parameters(target)
    for key, value in node.items() if known else ():
        if key in _MEANT_FOR_HYDRA:
            continue
        if key not in known:
            what = f"{place} ({getattr(target, '__qualname__', node['_target_'])})"
            raise ConfigError(_there_is_no(str(key), what, known))
        _check_kind(value, known[key], f"{place}.{key}")


def _resolved(name: str, place: str) -> Any:
    """Return what a dotted name stands for."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{place}._target_ names {name!r}, which cannot be imported: {error}.") from None


def _check_kind(value: Any, annotation: Any, place: str) -> None:
    """Raise where a parameter is annotated as a number or a switch alone, and the value is none."""
    kinds = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
    if not all(kind in _SAID for kind in kinds) or (isinstance(value, str) and "${" in value) or value == "???":
        return
    given = type(value)
    if given not in kinds and not (given is int and float in kinds):
        expected = " or ".join(_SAID[kind] for kind in kinds)
        raise ConfigError(f"{place} is {expected}, but got {value!r}.")


def _parameters(target: Any) -> dict[str, Any]:
    """Return what something can be called with, by name the annotation; empty where it takes any, or does not say.

    A class of ours, or derived from one of ours, hands the keywords that it does not name to its base, and a class
    method to its class.
    """
    owner = getattr(target, "__self__", target)
    classes = [one for one in owner.__mro__ if one is not object] if isinstance(owner, type) else []
    makers = [vars(one)["__init__"] for one in classes if "__init__" in vars(one)]
    names: dict[str, Any] = {}
    for number, maker in enumerate(makers if makers and owner is target else [target, *makers]):
        try:
            parameters = _signature(maker).parameters.values()
        except (ValueError, TypeError):
            return {}  # made in C
        found = {one.name: one.annotation for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD}
        names = found | names
        if all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in parameters):
            ours = number == 0 or maker.__module__.startswith("lis_lightning.")
            return {name: kind for name, kind in names.items() if name not in {"self", "cls"}} if ours else {}
    return {}


def _signature(maker: Any) -> inspect.Signature:
    """Return a signature, with annotations as what they name where all of them can be found."""
    try:
        return inspect.signature(maker, eval_str=True)
    except NameError:  # imported for type checkers alone
        return inspect.signature(maker)


def _check_leaf(value: Any, shipped: Any, place: str) -> None:
    """Raise for a text, a list or null where we ship a number, a switch, or several of them."""
    if isinstance(shipped, dict) and shipped and "_target_" not in shipped:
        raise ConfigError(f"{place} is a group of settings ({', '.join(sorted(shipped))}), but got {value!r}.")
    if (value is None and place in _MAY_BE_NULL) or (isinstance(value, str) and "${" in value):
        return
    if isinstance(shipped, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{place} is true or false, but got {value!r}.")
    elif isinstance(shipped, int | float):
        whole = "whole " if isinstance(shipped, int) else ""
        fits = isinstance(value, int) if whole else isinstance(value, int | float)
        if isinstance(value, bool) or not fits:
            raise ConfigError(f"{place} is a {whole}number, such as {shipped}, but got {value!r}.")


def _there_is_no(key: str, place: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no {key!r} in {place or 'the configuration'}; there are {', '.join(sorted(known))}.{hint}"
