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

# The scripts of the other two propose nothing there either, and turn file names off.
_ZSH = """
_ecvae() { _tyro_ecvae "$@" || _files }
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _ecvae "$@"; else compdef _ecvae ecvae; fi
"""
_FISH = """
function _ecvae
    set -l found (_tyro_ecvae)
    if test -n "$found"
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --erase --command ecvae
complete --no-files --command ecvae --arguments '(_ecvae)'
"""
_OWN = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_ZSH_CALL = '_tyro_ecvae "$@"'
"""Last line of tyro's script: it completes when the script is autoloaded, and fails when the script is sourced."""


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
    script = "\n".join(lines).rstrip().removesuffix(_ZSH_CALL if shell == "zsh" else "")
    return script.rstrip() + "\n" + _OWN[shell]
