"""Results of a command: lines for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ecvae_jax.cli.options.kinds import STDOUT
from ecvae_jax.cli.parsing import printable, say
from ecvae_jax.files import write_text


def show(lines: Callable[[], Sequence[str]], facts: Callable[[], Any], path: Path | None) -> None:
    """Writes the facts as JSON, if a path is given, and prints the lines; for the path "-", prints the JSON alone.

    The file comes first: standard output may be closed or full.

    Raises:
        OSError: the file cannot be written.
    """
    if path is not None:
        text = json.dumps(facts(), indent=2, allow_nan=False) + "\n"
        if path == STDOUT:
            print(text, end="")
            return
        write_text(path, text)
        say(f"written: {path}")
    print(printable("\n".join(lines())))
