"""Options of the subcommands that take an experiment, `[CONFIG]`: train, compare, plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ecvae_jax.checkpoints.resume import check_allowed
from ecvae_jax.config import Config
from ecvae_jax.training.span import Span
from ecvae_jax.training.supervisor import check_hosts


@dataclass(frozen=True)
class TrainOptions:
    """Trains a model; the same command goes on where an interrupted training stopped."""

    workdir: Path | None = None
    """Folder for checkpoints, metrics.jsonl, TensorBoard files and first_batch.png; runs/rendered for the embedded
    default. With several hosts: one that all of them see."""
    hosts: str = "one"
    """How this process meets those on other hosts, each started with the same command: "auto" under Cloud TPU, GKE,
    Slurm or Open MPI; else INDEX/COUNT@ADDRESS:PORT, the address being that of host 0."""
    profile: str | None = None
    """A:B writes an XLA trace of the steps A to B into the folder's `profile`."""
    allow_change: str = ""
    """Settings, with commas between them, that may differ from those the training was begun with:
    train.steps,optim.learning_rate. Others are refused: docs/faults.md."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def __post_init__(self) -> None:
        """Refuses hosts, steps to be traced and settings to be changed that cannot be, before anything is loaded."""
        check_hosts(self.hosts)
        self.span()
        check_allowed(self.allowed())

    def span(self) -> Span | None:
        """Returns the steps to be traced."""
        return None if self.profile is None else Span.parse(self.profile, self.config.train.steps)

    def allowed(self) -> list[str]:
        """Returns the settings that may differ."""
        return [name.strip() for name in self.allow_change.split(",") if name.strip()]


@dataclass(frozen=True)
class CompareOptions:
    """Trains the three priors and their variants alike, with several seeds, and writes a table with a verdict.

    Everything that is done is kept: after Ctrl-C, or with more seeds or variants, the same command goes on.
    """

    workdir: Path | None = None
    """Folder for runs/VARIANT-seedS, comparison.json, comparison.md and comparison.png."""
    variants: str = ""
    """Names with commas between them: standard,mixture. Empty: all. The equilibrium prior is always trained."""
    seeds: int = 3
    """Trainings of each variant, with the seeds 0, 1, ... (train.seed is not used)."""
    limit: int = 500
    """At most so many pairs of views are scored."""
    split: str = "test"
    """Split of the records to score on; its people should not have been trained on."""
    metrics: Literal["all", "pixels"] = "all"
    """pixels: no identity and structure by dlib, which take most of the time of scoring."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def __post_init__(self) -> None:
        """Refuses what cannot be compared, before anything is loaded."""
        for name in ("seeds", "limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")


@dataclass(frozen=True)
class PlanOptions:
    """Compiles the training step, or synthesis, for a TPU without having one: memory, work, exchange, speed.

    docs/plan.md tells how to read it.
    """

    topology: str | None = None
    """Required: GENERATION:SHAPE of v4, v5e, v5p or v6e: v5e:4x4, v5p:2x2x2."""
    what: Literal["train", "synthesis"] = "train"
    """The training step over all chips, or what `ecvae transfer` computes, on one chip."""
    batch_per_chip: int | None = None
    """Images a chip; left out: train.batch_size over all chips, or synthesis' own batch."""
    largest_batch: bool = False
    """Search the largest batch that fits as well: some compilations more (seven, for the paper's network)."""
    efficiency: float = 0.5
    """Share of peak and bandwidth that a chip is expected to reach on its own work, an assumption of yours."""
    json: Path | None = None
    """JSON file to be written as well."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def __post_init__(self) -> None:
        """Refuses what cannot be planned, before anything is loaded."""
        if self.batch_per_chip is not None and self.batch_per_chip < 1:
            raise ValueError(f"batch_per_chip={self.batch_per_chip}: must be at least 1")
        if self.largest_batch and self.what != "train":
            raise ValueError("largest_batch: is for --what train")
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"efficiency={self.efficiency}: must lie above 0 and not above 1")
        if self.json is not None and self.json.is_dir():
            raise ValueError(f"json={str(self.json)!r}: is a folder; give the name of a file")
