"""The subcommands of `ecvae`: each takes its options and calls one function of the package.

To add one: a dataclass of options in `cli.options`, a function in a module here, and one entry of `COMMANDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ecvae_jax.cli.commands.experiment import bench, compare, morph, plan, prepare, train
from ecvae_jax.cli.commands.model import evaluate, export, figure, sample, transfer
from ecvae_jax.cli.commands.page import page, serve
from ecvae_jax.cli.options.evaluate import EvaluateOptions
from ecvae_jax.cli.options.experiment import (
    BenchOptions,
    CompareOptions,
    MorphOptions,
    PlanOptions,
    PrepareOptions,
    TrainOptions,
)
from ecvae_jax.cli.options.model import ExportOptions, FigureOptions, SampleOptions, TransferOptions
from ecvae_jax.cli.options.others import CompletionOptions, InfoOptions
from ecvae_jax.cli.options.page import PageOptions, ServeOptions
from ecvae_jax.cli.results import show


def info(options: InfoOptions, words: Sequence[str]) -> int:
    """Runs `ecvae info PATH`."""
    from ecvae_jax.cli.info import describe, facts_of

    show(lambda: describe(options.path), lambda: facts_of(options.path), options.json)
    return 0


def completion(options: CompletionOptions, words: Sequence[str]) -> int:
    """Runs `ecvae completion bash|zsh|fish`."""
    from ecvae_jax.cli.completion import completion as script

    print(script(options.shell, {name: command.options for name, command in COMMANDS.items()}), end="")
    return 0


FACES, TRAINING, MODEL, OTHERS = "faces", "training", "a trained model", "this command"
"""Groups of commands in `ecvae --help`, in this order."""


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    options: type
    """Dataclass of its options; the first line of its docstring is the summary."""
    run: Callable[[Any, Sequence[str]], int]
    """Takes the options, and the arguments as typed; returns the exit code."""
    compiles: bool = True
    """Whether it compiles programs, so that the compilation cache pays."""
    group: str = MODEL
    """Its group in `ecvae --help`."""

    @property
    def summary(self) -> str:
        """One line about the subcommand."""
        return (self.options.__doc__ or "").splitlines()[0]


COMMANDS = {
    "prepare": Command(PrepareOptions, prepare, compiles=False, group=FACES),
    "morph": Command(MorphOptions, morph, compiles=False, group=FACES),
    "train": Command(TrainOptions, train, group=TRAINING),
    "transfer": Command(TransferOptions, transfer),
    "sample": Command(SampleOptions, sample),
    "evaluate": Command(EvaluateOptions, evaluate),
    "compare": Command(CompareOptions, compare, group=TRAINING),
    "figure": Command(FigureOptions, figure),
    "export": Command(ExportOptions, export, compiles=False),
    "page": Command(PageOptions, page, compiles=False),
    "serve": Command(ServeOptions, serve),
    "plan": Command(PlanOptions, plan, group=TRAINING),
    "bench": Command(BenchOptions, bench, group=TRAINING),
    "info": Command(InfoOptions, info, compiles=False, group=OTHERS),
    "completion": Command(CompletionOptions, completion, compiles=False, group=OTHERS),
}
