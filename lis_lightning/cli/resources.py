"""Where the files that travel with the package are: inside the wheel, or beside it in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def resource_dir(name: str) -> Path:
    """Return the folder `name` ("conf" or "recipes"), installed or in a checkout.

    Raises:
        FileNotFoundError: If neither place has it, with both places named.

    Example:
        >>> (resource_dir("conf") / "align.yaml").is_file()
        True
    """
    places = (_PACKAGE / name, _PACKAGE.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"`{name}/` was found in neither {places[0]} nor {places[1]}; reinstall lis-lightning.")
