"""Check that the packages of an extra are installed, before a command starts work that needs them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from lis_lightning.errors import ConfigError

PACKAGE = "lis-lightning"


def require_extra(extra: str, command: str) -> None:
    """Raise unless every package of an extra is installed, in a version that the extra allows.

    Args:
        extra: Its name in ``pyproject.toml``.
        command: What needs it.

    Raises:
        ConfigError: With the packages that are missing or have another version, and the command that installs them.

    Example:
        >>> require_extra("align", "lis-align")
    """
    wanted = [Requirement(text) for text in requires(PACKAGE) or []]
    problems = unmet(one for one in wanted if one.marker is not None and one.marker.evaluate({"extra": extra}))
    if problems:
        raise ConfigError(
            f"{command} needs the extra [{extra}]: {', '.join(problems)}. Install it: pip install '{PACKAGE}[{extra}]'"
        )


def unmet(requirements: Iterable[Requirement]) -> list[str]:
    """Return what is wrong with each requirement that is not met.

    Example:
        >>> unmet([Requirement("numpy>=2.0"), Requirement("no-such-package>=1")])
        ['no-such-package is not installed']
    """
    problems = []
    for requirement in requirements:
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            problems.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            problems.append(f"{requirement.name} {installed} is installed, and {requirement.specifier} is needed")
    return problems
