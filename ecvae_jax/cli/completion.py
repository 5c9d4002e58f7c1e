"""Completion of commands and options by the shell, as tyro writes it, for all subcommands together."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from typing import Any, Literal

import tyro

Shell = Literal["bash", "zsh", "fish"]

_SPEC = re.compile(r"^COMPLETION_SPEC = .*")
"""The table of options in the script: Python's text of a dictionary."""

# Where tyro has no suggestion, its function returns one empty word, which bash inserts: file names are better.
_BASH = """
_ecvae() {
  _tyro_ecvae
  if [[ ${#COMPREPLY[@]} -eq 1 && -z ${COMPREPLY[0]} ]]; then COMPREPLY=(); fi
  return 0
}
complete -o default -F _ecvae ecvae
"""


def completion(shell: Shell, options: Mapping[str, type]) -> str:
    """Returns a script for the shell.

    Args:
        options: the dataclass of each subcommand's options.
    """
    commands: dict[str, Any] = dict(options)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(commands, prog="ecvae", args=["--tyro-write-completion", shell, "-"])
    # Each line of a description of several lines would be a proposal (tyro 1.0.17).
    lines = [_SPEC.sub(lambda table: re.sub(r"\\+n", " ", table[0]), line) for line in printed.getvalue().splitlines()]
    return "\n".join(lines).rstrip() + "\n" + (_BASH if shell == "bash" else "")
