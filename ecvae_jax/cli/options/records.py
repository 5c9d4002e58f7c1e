"""Options of the subcommands that make records: prepare, morph."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ecvae_jax.data.prepare.options import PrepareConfig


@dataclass(frozen=True)
class PrepareOptions:
    """Makes records from photos, and report.csv with the outcome of every file."""

    source: Annotated[str, tyro.conf.Positional]
    """A folder of photos, a list of them (.txt), a zip or tar archive, multipie:DIR, tfds:NAME or video:FILE."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to write."""
    options: Annotated[PrepareConfig, tyro.conf.arg(name="")] = field(default_factory=PrepareConfig)


@dataclass(frozen=True)
class MorphOptions:
    """Makes new people for training: blends of two people of a records folder, in every view that both have."""

    records: Annotated[str, tyro.conf.Positional]
    """Records folder that `ecvae prepare` wrote."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to write. Train on both folders with --data.records records/mine+records/morphs."""
    people: int = 100
    """Number of new people."""
    seed: int = 0
    """Seed of the choice of pairs."""

    def __post_init__(self) -> None:
        """Checks the numbers before anything is loaded."""
        if self.people < 1:
            raise ValueError(f"people={self.people}: must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must not be negative")
