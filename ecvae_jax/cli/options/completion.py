"""Options of `ecvae completion`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from ecvae_jax.cli.completion import Shell


@dataclass(frozen=True)
class CompletionOptions:
    """Prints a script by which the shell completes commands and options; docs/reference/commands.md installs it."""

    shell: Annotated[Shell, tyro.conf.Positional]
    """The shell: its own script."""
