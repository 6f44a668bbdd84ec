"""The errors of lis-lightning.

Each message says what is wrong and where, what was expected, what came, and what to do next. Each concrete error is
also a builtin one, so that ``except ValueError`` keeps working::

    LisError
    ├── LogError        (ValueError)    the interaction log: a column, a label, a timestamp, a window
    ├── ItemError       (ValueError)    the item table: a missing row, an image that cannot be used
    ├── ShapeError      (ValueError)    an array of the wrong shape
    ├── NonFiniteError  (ValueError)    NaN or infinity where a number is needed
    ├── ConfigError     (ValueError)    an option, a recipe or a model that does not exist or does not fit
    ├── SnapshotError   (RuntimeError)  a representation that could not be taken
    └── RecordError     (RuntimeError)  a run's record that cannot be read or written
"""


class LisError(Exception):
    """The root of all errors that lis-lightning raises on purpose."""


class LogError(LisError, ValueError):
    """The interaction log cannot be used as it is."""


class ItemError(LisError, ValueError):
    """An item has no row, no text or no usable image."""


class ShapeError(LisError, ValueError):
    """An array has the wrong shape."""


class NonFiniteError(LisError, ValueError):
    """NaN or infinity stands where a number is needed."""


class ConfigError(LisError, ValueError):
    """An option names something that does not exist or does not fit."""


class SnapshotError(LisError, RuntimeError):
    """The representations of the items could not be taken."""


class RecordError(LisError, RuntimeError):
    """A run's record cannot be read or written."""


class LisWarning(UserWarning):
    """Something the reader of a number must know."""
