"""How a subcommand reads its options and answers: one line for what is wrong, on standard error."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ecvae_jax.config import Config

VERBOSE = ("-v", "--verbose")
"""The flags, anywhere in a command, that ask for tracebacks."""

_T = TypeVar("_T")


def parse(kind: type[_T], command: str, arguments: Sequence[str], default: _T | None = None) -> _T:
    """Returns the options of a subcommand, read from its arguments.

    A value that the dataclasses refuse is wrong usage as well.

    Raises:
        SystemExit: with 0 after --help, with 2 after what cannot be read, which was then said in one line.
    """
    extra: dict[str, Any] = {} if default is None else {"default": default}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog=f"ecvae {command}", args=list(arguments), **extra)
    except ValueError as error:
        raise SystemExit(wrong_usage(str(error))) from None
    except SystemExit as stop:
        if stop.code:  # tyro explains itself in a box of several lines; one is enough
            word = command.split()[0]
            hint = f"see `ecvae {word} --help`"
            needed = {"train": "--workdir DIR", "compare": "--workdir DIR", "plan": "--topology v5e:4x4"}
            if word in needed and any(Path(a).suffix in (".py", ".json") for a in arguments):
                hint = f"CONFIG comes first: ecvae {word} CONFIG {needed[word]}"
            wrong_usage(f"{_unboxed(said.getvalue())}; {hint}")
        raise


def parse_experiment(kind: type[_T], command: str, arguments: Sequence[str]) -> tuple[_T, bool]:
    """Returns the options of a subcommand that takes `[CONFIG]` first, and whether an experiment was named.

    Raises:
        SystemExit: see `parse`.
        ValueError: the experiment's file cannot be read.
    """
    from ecvae_jax.config import load_config

    rest, named = list(arguments), bool(arguments) and not arguments[0].startswith("-")
    config = load_config(Path(rest.pop(0))) if named else Config()
    return parse(kind, f"{command} [CONFIG]", rest, kind(config=config)), named  # type: ignore[call-arg]


def _unboxed(text: str) -> str:
    """The text inside a box of line-drawing characters, as one line."""
    lines = [line.strip(" │╭╮╰╯─") for line in text.splitlines()]
    return " ".join(line for line in lines[1:] if line and not line.startswith("For full helptext")).rstrip(".")


def verbose_flag() -> list[str]:
    """Returns the flag by which this command was asked for tracebacks, to be handed on to another `ecvae`."""
    return [word for word in sys.argv[1:] if word in VERBOSE][:1]


def wrong_usage(message: str) -> int:
    """Says what is wrong and returns the exit code for it, 2."""
    say(f"error: {message}")
    return 2


def say(*lines: str) -> None:
    """Prints lines on standard error, each as the command's."""
    for line in lines:
        print(f"ecvae: {line}", file=sys.stderr)
