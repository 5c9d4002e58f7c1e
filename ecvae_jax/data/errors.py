"""Errors of the data room, apart because all its rooms raise them. One line: what was refused, the rule, what to do."""

from __future__ import annotations


class DataError(ValueError):
    """A photo source, option or records folder that cannot be used as requested."""


class MissingExtraError(DataError):
    """An optional dependency is not installed; the message names the command that installs it."""


class BadPhotoError(Exception):
    """A photo that cannot be used; the message is the reason in one line."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """Returns an error's message on one line of at most `limit` characters, or its type if it has no message."""
    return " ".join(str(error).split())[:limit] or type(error).__name__
