"""Options of `ecvae info` and `ecvae completion`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ecvae_jax.cli.completion import Shell
from ecvae_jax.cli.options.kinds import OptionalPath, check_json


@dataclass(frozen=True)
class InfoOptions:
    """Describes a checkpoint or a records folder."""

    path: Annotated[Path, tyro.conf.Positional]
    """Working directory of a training, one step's folder in its `checkpoints`, or a records folder."""
    json: OptionalPath = None
    """JSON file to write; - prints it in place of the lines."""

    def __post_init__(self) -> None:
        check_json(self.json)


@dataclass(frozen=True)
class CompletionOptions:
    """Prints a script by which the shell completes commands and options; docs/reference/commands.md installs it."""

    shell: Annotated[Shell, tyro.conf.Positional]
    """The shell: its own script."""
