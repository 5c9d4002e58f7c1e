"""Types of options that several commands have: what `--help` shows for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from ecvae_jax.files import check_output

OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
OptionalCount = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
"""Their text says what stands for the missing value; tyro would show `{None}|PATH` and `(default: None)`."""

SOURCE = tyro.conf.arg(metavar="SOURCE")
RECORDS = tyro.conf.arg(metavar="RECORDS")
OUT = tyro.conf.arg(metavar="OUT")
"""Names of positional arguments, where tyro would show their type."""

STDOUT = Path("-")
"""As FILE of --json: standard output, in place of the lines."""


def check_json(path: Path | None, inputs: Sequence[str | Path] = (), name: str = "json") -> None:
    """Raises ValueError if JSON cannot be written to a file, or if that is one of `inputs`."""
    if path is None or path == STDOUT:
        return
    if path.is_dir():
        raise ValueError(f"{name}={str(path)!r}: is a folder; give a file name")
    check_output(path, inputs)
