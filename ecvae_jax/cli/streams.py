"""Standard streams that are closed, full, or of an encoding without the characters of a text."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata
from typing import Any

_READABLE = "ecvae_readable"
"""Name of the error handler that `prepare_streams` registers."""

_ASCII = {
    "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "·": "*", "±": "+/-", "→": "->", "≥": ">=", "≤": "<=",
    "°": " deg", "µ": "u", "σ": "sigma", "β": "beta", "²": "^2", "“": '"', "”": '"', "‘": "'", "’": "'",
}  # fmt: skip
_ASCII |= dict.fromkeys("│┃", "|") | dict.fromkeys("─━", "-") | dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼", "+")


def prepare_streams() -> None:
    """Makes the process's streams usable: a message that cannot be delivered ends no command.

    - A closed descriptor is opened, or a file of the command would get its number and what is printed.
    - Results on a closed standard output fail with EBADF; messages on a closed standard error are dropped.
    - Characters that the encoding lacks are spelled in ASCII.

    A pipe without a reader still fails: see `cli.main`.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest free number
    codecs.register_error(_READABLE, _spell)
    # Others are a test's, or those of an earlier call.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(io.BufferedWriter(_Results(1, "w", closefd=False)), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Messages(2, "w", closefd=False), sys.stderr)


class OutputError(OSError):
    """A failed write on standard output."""


def _text(binary: Any, before: Any) -> io.TextIOWrapper:
    """Returns a text stream with the encoding of the one before it, None where that was closed."""
    encoding = before.encoding if before else "utf-8"
    unbuffered = not hasattr(binary, "raw") or getattr(before, "write_through", False)
    return io.TextIOWrapper(
        binary, encoding, _READABLE, line_buffering=binary.isatty() or unbuffered, write_through=unbuffered
    )


class _Results(io.FileIO):
    """Standard output; its errors are not those of other files."""

    def write(self, data: Any) -> int | None:
        """Returns the number of bytes written; raises OutputError, or BrokenPipeError where the reader has left."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            raise OutputError(error.errno, error.strerror) from None


class _Messages(io.FileIO):
    """Standard error that drops what it cannot write: on a full disk, or a terminal that has gone."""

    def write(self, data: Any) -> int:
        """Returns the length of the data; raises OSError only where the reader of a pipe has left."""
        left = memoryview(data).cast("B")
        while left:
            try:
                left = left[super().write(left) or len(left) :]
            except OSError as error:
                if error.errno == errno.EPIPE:
                    raise
                break
        return len(data)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Returns the ASCII spelling of characters that an encoding lacks; a codec's error handler."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spelled, error.object[error.start : error.end])), error.end


def _spelled(character: str) -> str:
    if character in _ASCII:
        return _ASCII[character]
    code = ord(character)
    if 0x2800 <= code <= 0x28FF:  # braille: a picture of eight dots
        return " .:#"[min(3, ((code - 0x2800).bit_count() + 1) // 2)]
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or character.encode("ascii", "backslashreplace").decode()
