"""Folders that travel with the package: inside the wheel, or beside the package in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def resource_dir(name: str) -> Path:
    """Return the folder ``conf`` or ``recipes``, installed or in a checkout.

    Args:
        name: Of the folder.

    Raises:
        FileNotFoundError: If there is no such folder; the message names both candidates.

    Example:
        >>> (resource_dir("conf") / "align.yaml").is_file()
        True
    """
    candidates = (_PACKAGE / name, _PACKAGE.parent / name)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"`{name}/` was found in neither {candidates[0]} nor {candidates[1]}; reinstall lis-lightning."
    )
