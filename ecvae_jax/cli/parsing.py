"""How a subcommand reads its options and prints messages: one line on standard error for what is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ecvae_jax.config import Config, load_config

VERBOSE = ("-v", "--verbose")
"""The flags, anywhere in a command, that ask for tracebacks."""

_CONFIG = "CONFIG: an experiment, before all options: a .py file with a variable `config`, or JSON. docs/training.md"

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_T = TypeVar("_T")


def parse(kind: type[_T], command: str, words: Sequence[str]) -> _T:
    """Returns the options of a subcommand, read from its arguments.

    A class with a field `config` takes the experiment's file as `[CONFIG]`, before all options.

    Raises:
        SystemExit: with 0 after --help; with 2 after wrong usage, which is then printed in one line.
        ValueError: CONFIG cannot be read.
    """
    rest, program = list(words), f"ecvae {command}"
    extra: dict[str, Any] = {}
    takes_config = any(field.name == "config" for field in dataclasses.fields(kind))  # type: ignore[arg-type]
    if takes_config:
        config = load_config(Path(rest.pop(0))) if names_config(words) else Config()
        program, extra = f"{program} [CONFIG]", {"default": kind(config=config)}  # type: ignore[call-arg]
        extra["description"] = f"{inspect.getdoc(kind)}\n\n{_CONFIG}"
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), _without_color():
            return tyro.cli(kind, prog=program, args=rest, **extra)
    except ValueError as error:  # the options' own checks
        raise SystemExit(wrong_usage(str(error))) from None
    except SystemExit as stop:
        if stop.code == 2:  # tyro's; a signal exits with other codes
            hint = f"see `ecvae {command} --help`"
            if takes_config and any(Path(word).suffix in (".py", ".json") for word in rest):
                hint = f"CONFIG comes first: ecvae {command} CONFIG [options]"
            wrong_usage(f"{_unboxed(printed.getvalue())}; {hint}")
        raise


@contextlib.contextmanager
def _without_color() -> Iterator[None]:
    """Makes tyro print plain text inside the block if NO_COLOR is set (https://no-color.org), which it ignores."""
    before = os.environ.get("TERM")
    if os.environ.get("NO_COLOR"):
        os.environ["TERM"] = "dumb"
    try:
        yield
    finally:
        if os.environ.get("NO_COLOR"):
            os.environ.pop("TERM")
            if before is not None:
                os.environ["TERM"] = before


def names_config(words: Sequence[str]) -> bool:
    """Returns whether the arguments begin with an experiment's file."""
    return bool(words) and not words[0].startswith("-")


def _unboxed(text: str) -> str:
    """Returns tyro's message, a box of several lines, as one line without the name of our class."""
    lines = [line.strip(" │╭╮╰╯─") for line in text.splitlines()]
    lines = [line for line in lines[1:] if line.strip("-") and not line.startswith("For full helptext")]
    return re.sub(r"^Error parsing \w+: ", "", " ".join(lines).rstrip("."))


def verbose_flag() -> list[str]:
    """Returns the flag by which this command was asked for tracebacks, to pass on to another `ecvae`."""
    return [word for word in sys.argv[1:] if word in VERBOSE][:1]


def wrong_usage(message: str) -> int:
    """Prints what is wrong and returns the exit code for it, 2."""
    say(f"error: {message}")
    return 2


def say(*lines: str) -> None:
    """Prints lines on standard error, each with the command's name."""
    for line in lines:
        print(f"ecvae: {printable(line)}", file=sys.stderr)


def printable(text: str) -> str:
    """Returns a text whose control characters are spelled: names and metadata of strangers may command a terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
