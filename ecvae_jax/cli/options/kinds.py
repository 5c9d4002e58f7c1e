"""What several commands share: types of options as `--help` shows them, and checks of paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def check_picture(out: Path, enlarge: int, name: str = "out", inputs: Iterable[str | Path] = ()) -> None:
    """Raises ValueError if a PNG cannot be written to `out`, or if that is one of `inputs`."""
    if out.suffix.lower() != ".png":
        raise ValueError(f"{name}={str(out)!r}: must end in .png")
    if enlarge < 1:
        raise ValueError(f"enlarge={enlarge}: must be at least 1")
    check_output(out, inputs)


def inputs_of(checkpoint: Path | None, *specs: str | None) -> list[str | Path]:
    """Returns the files and folders that a command reads: stored checkpoints, photos, records of RECORDS:SPLIT:INDICES.

    A working directory itself may hold outputs, such as reports.
    """
    found: list[str | Path] = []
    if checkpoint is not None:
        stored = checkpoint / "checkpoints"
        found.append(stored if stored.is_dir() else checkpoint)
    for spec in filter(None, specs):
        found += [spec, *spec.rsplit(":", 2)[0].split("+")]
    return found
