"""What the data room raises for an input it refuses: one line that names the thing, the rule and what to do."""

from __future__ import annotations


class DataError(ValueError):
    """A photo source, an option or a records folder that cannot be used as asked."""


class MissingExtraError(DataError):
    """An optional dependency is not installed; the message says what to install."""
