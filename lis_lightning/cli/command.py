"""Run a command so that an expected error ends it with one message and exit status 1, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from lis_lightning.errors import LisError


def describe_error(error: BaseException) -> str | None:
    """Return the kind of an error and its message; this is what the user reads."""
    return f"{type(error).__name__}: {error}"


def run_command(
    name: str,
    command: Callable[[], Any],
    *,
    expected: tuple[type[BaseException], ...] = (LisError, OSError),
    describe: Callable[[BaseException], str | None] = describe_error,
) -> None:
    """Run a command; print what an expected error says, and exit with status 1.

    Args:
        name: Of the command, which the message starts with.
        command: What it does.
        expected: Errors whose message tells the user what to correct.
        describe: Returns the message for an error; None raises the error as it is.
    """
    try:
        command()
    except expected as error:
        message = describe(error)
        if message is None:
            raise
        print(f"{name}: {message}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
