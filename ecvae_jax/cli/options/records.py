"""Options of the subcommands that make records: prepare, morph."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ecvae_jax.data.prepare.options import PrepareConfig


@dataclass(frozen=True)
class PrepareOptions:
    """Makes records and report.csv from photos: every file is accounted for."""

    source: Annotated[str, tyro.conf.Positional]
    """A folder of photos, a list of them (.txt), a zip or tar archive, multipie:DIR, tfds:NAME or video:FILE."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to be written."""
    options: Annotated[PrepareConfig, tyro.conf.arg(name="")] = field(default_factory=PrepareConfig)


@dataclass(frozen=True)
class MorphOptions:
    """Makes new people for training: faces between two people of a records folder, in every view that both have."""

    records: Annotated[str, tyro.conf.Positional]
    """Records folder that `ecvae prepare` wrote."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to be written; join it to others in training: --data.records records/mine+records/morphs."""
    people: int = 100
    """How many new people."""
    seed: int = 0
    """Seed of who is mixed with whom."""

    def __post_init__(self) -> None:
        """Refuses what cannot be made, before anything is loaded."""
        if self.people < 1:
            raise ValueError(f"people={self.people}: must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must not be negative")
