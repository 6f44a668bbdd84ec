"""The library transformers, imported on first use, and how to keep it quiet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def hugging_face() -> Any:
    """Return the module transformers: imported late, since that takes seconds, and untyped, as much of it is."""
    import transformers

    return transformers


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide the progress bars of transformers, which a model of a megabyte does not need."""
    logging = hugging_face().utils.logging
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


@contextmanager
def no_load_report() -> Iterator[None]:
    """Keep transformers from listing weights that were left out on purpose when a model is loaded."""
    logging = hugging_face().utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
