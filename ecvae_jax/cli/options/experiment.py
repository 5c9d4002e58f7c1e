"""Options of prepare and morph, which make records, and of train, compare, plan and bench, which take `[CONFIG]`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ecvae_jax.checkpoints.resume import check_allowed
from ecvae_jax.cli.options.kinds import OUT, RECORDS, SOURCE, OptionalCount, OptionalPath, OptionalText, check_json
from ecvae_jax.config import Config, Span
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.training.supervisor import check_hosts


@dataclass(frozen=True)
class PrepareOptions:
    """Makes records from photos, and report.csv with the outcome of every file."""

    source: Annotated[str, tyro.conf.Positional, SOURCE]
    """A folder of photos, a list of them (.txt), a zip or tar archive, multipie:DIR, tfds:NAME or video:FILE."""
    out: Annotated[Path, tyro.conf.Positional, OUT]
    """Folder to write."""
    options: Annotated[PrepareConfig, tyro.conf.arg(name="")] = field(default_factory=PrepareConfig)
    json: OptionalPath = None
    """JSON file to write with the summary: files by outcome and reason, faces by split; - prints it."""

    def __post_init__(self) -> None:
        check_json(self.json, [self.source])


@dataclass(frozen=True)
class MorphOptions:
    """Makes new people for training: blends of two people of a records folder, in every view that both have."""

    records: Annotated[str, tyro.conf.Positional, RECORDS]
    """Records folder that `ecvae prepare` wrote."""
    out: Annotated[Path, tyro.conf.Positional, OUT]
    """Folder to write. Train on both folders with --data.records records/mine+records/morphs."""
    people: int = 100
    """Number of new people."""
    seed: int = 0
    """Seed of the choice of pairs."""

    def __post_init__(self) -> None:
        if self.people < 1:
            raise ValueError(f"people={self.people}: must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must not be negative")


@dataclass(frozen=True)
class TrainOptions:
    """Trains a model. An interrupted training resumes when the same command runs again."""

    workdir: OptionalPath = None
    """Folder for checkpoints, metrics.jsonl, TensorBoard files and first_batch.png. The default, runs/rendered, serves
    only the embedded heads without CONFIG. All hosts must share the folder."""
    hosts: str = "one"
    """How this process finds the other hosts, which all run the same command. one: there are none. auto: Cloud TPU,
    GKE, Slurm or Open MPI names them. INDEX/COUNT@ADDRESS:PORT: the address is that of host 0."""
    profile: OptionalText = None
    """A:B writes an XLA trace of steps A to B to WORKDIR/profile."""
    allow_change: str = ""
    """Comma-separated settings that may differ from those of the stored training: train.steps,optim.learning_rate.
    docs/training.md lists the settings that can change."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def __post_init__(self) -> None:
        check_hosts(self.hosts)
        self.span()
        check_allowed(self.allowed())

    def span(self) -> Span | None:
        """Returns the steps to trace."""
        return None if self.profile is None else Span.parse(self.profile, self.config.train.steps)

    def allowed(self) -> list[str]:
        """Returns the names in allow_change."""
        return [name.strip() for name in self.allow_change.split(",") if name.strip()]


@dataclass(frozen=True)
class CompareOptions:
    """Trains the priors and their variants with several seeds, and writes a table with a verdict.

    Finished trainings are kept. After Ctrl-C, or with more seeds or variants, the same command resumes.
    """

    workdir: OptionalPath = None
    """Folder for runs/VARIANT-seedS, comparison.json, comparison.md and comparison.png."""
    variants: str = ""
    """Comma-separated names: standard,mixture. Empty: all. The equilibrium prior is always trained."""
    seeds: int = 3
    """Trainings of each variant, with seeds 0, 1, ... (train.seed is not used)."""
    limit: int = 500
    """Largest number of pairs of views to score."""
    split: str = "test"
    """Split of the records to score. Its people should not be training people."""
    metrics: Literal["all", "pixels"] = "all"
    """pixels: skip identity and structure by dlib, which take most of the time of scoring."""
    json: OptionalPath = None
    """Another file for comparison.json; - prints it in place of the verdict."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def __post_init__(self) -> None:
        for name in ("seeds", "limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        check_json(self.json)


@dataclass(frozen=True)
class PlanOptions:
    """Predicts memory and speed on a TPU by compiling the training step, or synthesis, without one.

    docs/plan.md explains the output.
    """

    topology: OptionalText = None
    """Required: GENERATION:SHAPE of a v4, v5e, v5p or v6e, such as v5e:4x4 or v5p:2x2x2."""
    what: Literal["train", "synthesis"] = "train"
    """train: the training step over all chips. synthesis: what `ecvae transfer` computes, on one chip."""
    batch_per_chip: OptionalCount = None
    """Images per chip. Default: train.batch_size over all chips, or the batch of synthesis."""
    largest_batch: bool = False
    """Also search the largest batch that fits, by some more compilations (seven for the paper's network)."""
    efficiency: float = 0.5
    """Assumed fraction of peak and bandwidth that a chip reaches on its own work."""
    json: OptionalPath = None
    """JSON file to write; - prints it in place of the table."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def __post_init__(self) -> None:
        if self.batch_per_chip is not None and self.batch_per_chip < 1:
            raise ValueError(f"batch_per_chip={self.batch_per_chip}: must be at least 1")
        if self.largest_batch and self.what != "train":
            raise ValueError("largest_batch: is only for --what train")
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"efficiency={self.efficiency}: must be above 0 and at most 1")
        check_json(self.json)


@dataclass(frozen=True)
class BenchOptions:
    """Measures training, synthesis, input and start-up on this machine, as a table.

    docs/measurements/speed.md explains the columns.
    """

    sizes: tuple[int, ...] = ()
    """Image sizes in pixels, such as 64 128 256. Levels are added or dropped at the end of model.widths. Default: that
    of the experiment."""
    rounds: int = 5
    """Alternating rounds; the table has their median."""
    seconds: float = 0.5
    """Least duration of one measurement."""
    checkpoint: OptionalPath = None
    """Working directory of a training, or a bundled model (face128, face256), instead of CONFIG. Only its settings are
    read; its records are replaced by the embedded heads."""
    start: bool = True
    """Also measure the start-up of a process, with an empty compile cache and a filled one."""
    json: OptionalPath = None
    """JSON file to write; - prints it in place of the table."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def __post_init__(self) -> None:
        for size in self.sizes:
            if size not in (32, 64, 128, 256):
                raise ValueError(f"sizes={size}: must be 32, 64, 128 or 256")
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds}: must be at least 1")
        if not 0 <= self.seconds <= 600:
            raise ValueError(f"seconds={self.seconds}: must be between 0 and 600")
        check_json(self.json)
