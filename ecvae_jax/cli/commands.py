"""The subcommands of `ecvae`: each reads its options and calls one function of the package."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from ecvae_jax.cli.options.experiment import CompareOptions, PlanOptions, TrainOptions
from ecvae_jax.cli.options.model import (
    EvaluateOptions,
    ExportOptions,
    FigureOptions,
    InfoOptions,
    SampleOptions,
    TransferOptions,
)
from ecvae_jax.cli.options.records import MorphOptions, PrepareOptions
from ecvae_jax.cli.parsing import parse, parse_experiment, say, verbose_flag, wrong_usage
from ecvae_jax.config import Config
from ecvae_jax.training.supervisor import ALONE, TRY_AGAIN, is_supervised, supervise

DEFAULT_WORKDIR = Path("runs/rendered")


def train(arguments: Sequence[str]) -> int:
    """Runs `ecvae train [CONFIG] [--workdir DIR] [--section.field VALUE ...]` and returns the exit code."""
    options, named = parse_experiment(TrainOptions, "train", arguments)
    if options.workdir is None and (named or options.config.data.records != Config().data.records):
        return wrong_usage("--workdir is required: the folder for checkpoints and logs of this training")
    workdir = options.workdir or DEFAULT_WORKDIR
    if options.hosts != ALONE and not is_supervised():
        code, from_within = supervise(["train", *arguments, *verbose_flag()])
        return _lost(workdir) if from_within else code
    from ecvae_jax.training.hosts import is_lost_host, join_hosts, sync_hosts
    from ecvae_jax.training.loop import train as run_training

    try:
        join_hosts(options.hosts)
        outcome = run_training(options.config, workdir, options.span(), options.allowed())
        sync_hosts()
    except Exception as error:
        if not is_lost_host(error):
            raise
        return _lost(workdir)
    if not outcome.finished:
        say(f"interrupted at step {outcome.step} of {options.config.train.steps}; stored in {workdir}: "
             "the same command goes on from there")
        return 1 if outcome.stopped_by == signal.SIGINT else TRY_AGAIN
    if outcome.images_per_second:
        gib, of = outcome.peak_memory
        say(f"trained to step {outcome.step}, {outcome.images_per_second:.1f} images/s, peak memory of the {of} "
            f"{gib:.2f} GiB; checkpoint in {workdir}")  # fmt: skip
    else:
        say(f"{workdir} is trained to its last step, {outcome.step}, already")
    return 0


def _lost(workdir: Path) -> int:
    say(f"error: another host of this training was lost: stopped here too; what is stored in {workdir} is good, start "
        "all hosts again with the same command")
    return TRY_AGAIN


def prepare(arguments: Sequence[str]) -> int:
    """Runs `ecvae prepare SOURCE OUT [options]` and returns the exit code."""
    options = parse(PrepareOptions, "prepare", arguments)
    from ecvae_jax.data.prepare.prepare import prepare as run_preparation

    say(str(run_preparation(options.source, options.out, options.options)))
    return 0


def morph(arguments: Sequence[str]) -> int:
    """Runs `ecvae morph RECORDS OUT --people N` and returns the exit code."""
    options = parse(MorphOptions, "morph", arguments)
    from ecvae_jax.data.morph import write_morphs

    count = write_morphs(options.records, options.out, options.people, options.seed)
    say(f"{options.people} new people, {count} faces: {options.out}")
    return 0


def export(arguments: Sequence[str]) -> int:
    """Runs `ecvae export CHECKPOINT OUT` and returns the exit code."""
    options = parse(ExportOptions, "export", arguments)
    from ecvae_jax.checkpoints.load import load_model
    from ecvae_jax.export.small import export_model
    from ecvae_jax.synthesis.density import density_of

    density = None
    if options.density:
        density, note = density_of(load_model(options.checkpoint), options.data, options.density, refit=True)
        say(note)
    size = export_model(options.checkpoint, options.out, options.half, density)
    say(f"{options.out}: {size / 1e6:.1f} MB")
    return 0


def transfer(arguments: Sequence[str]) -> int:
    """Runs `ecvae transfer --checkpoint C --source IMG... --target IMG... --out grid.png` and returns the exit code."""
    options = parse(TransferOptions, "transfer", arguments)
    from ecvae_jax.synthesis.grids import write_transfer_grid

    notes = write_transfer_grid(
        options.checkpoint, options.source, options.target, options.out, options.transport, options.enlarge,
        options.adapt,
    )  # fmt: skip
    say(*notes)
    return 0


def sample(arguments: Sequence[str]) -> int:
    """Runs `ecvae sample --checkpoint C --structure IMG... --n 8 --out grid.png` and returns the exit code."""
    options = parse(SampleOptions, "sample", arguments)
    from ecvae_jax.synthesis.grids import write_sample_grid

    notes = write_sample_grid(
        options.checkpoint, options.structure, options.n, options.seed, options.out, options.enlarge, options.source,
        options.data, options.temperature,
    )  # fmt: skip
    say(*notes)
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Runs `ecvae evaluate --checkpoint C [--data RECORDS | --pairs SOURCES TARGETS]` and returns the exit code."""
    options = parse(EvaluateOptions, "evaluate", arguments)
    from ecvae_jax.evaluation.protocol import evaluate_checkpoint

    report = evaluate_checkpoint(
        options.checkpoint, options.data, options.split, options.limit, options.seed, options.transport,
        pairs=options.pairs, source_view=options.source_view, metrics=options.metrics, features=options.features,
        adapt=options.adapt,
    )  # fmt: skip
    print("\n".join(report.to_lines()))
    say(*report.notes, *report.write(options.out, options.markdown, options.figure, options.save_images))
    return 0


def compare(arguments: Sequence[str]) -> int:
    """Runs `ecvae compare [CONFIG] --workdir DIR [options]` and returns the exit code."""
    options, _ = parse_experiment(CompareOptions, "compare", arguments)
    if options.workdir is None:
        return wrong_usage("--workdir is required: the folder for the trainings and the table")
    from ecvae_jax.comparison.runs import InterruptedComparisonError
    from ecvae_jax.comparison.runs import compare as run_comparison
    from ecvae_jax.comparison.verdict import verdict_lines

    names = [name.strip() for name in options.variants.split(",") if name.strip()]
    try:
        results = run_comparison(
            options.config, options.workdir, names, options.seeds, options.limit, options.split, options.metrics
        )
    except InterruptedComparisonError as stop:
        say(str(stop))
        return 1 if stop.stopped_by == signal.SIGINT else TRY_AGAIN
    print("\n".join(verdict_lines(results)))
    say(*results.facts["notes"], f"written: comparison.md, comparison.json, comparison.png in {options.workdir}")
    return 0


def figure(arguments: Sequence[str]) -> int:
    """Runs `ecvae figure 2|3a|3b --checkpoint C --out FILE.png` and returns the exit code."""
    options = parse(FigureOptions, "figure", arguments)
    from ecvae_jax.figures.page import write_figure

    say(write_figure(options.which, options.checkpoint, options.file, options.data, options.split))
    return 0


def plan(arguments: Sequence[str]) -> int:
    """Runs `ecvae plan [CONFIG] --topology v5e:4x4 [options]` and returns the exit code."""
    from ecvae_jax.plan.chips import Topology, use_compiler_only

    options, _ = parse_experiment(PlanOptions, "plan", arguments)
    if options.topology is None:
        return wrong_usage("--topology is required: GENERATION:SHAPE, such as v5e:4x4")
    topology = Topology.parse(options.topology)
    use_compiler_only(topology.chip)
    from ecvae_jax.plan.planning import make_plan, to_lines, write_json

    made = make_plan(
        options.config, topology, options.what, options.batch_per_chip, options.largest_batch, options.efficiency
    )
    print("\n".join(to_lines(made)))
    if options.json is not None:
        write_json(made, options.json)
        say(f"written: {options.json}")
    return 0


def info(arguments: Sequence[str]) -> int:
    """Runs `ecvae info PATH` and returns the exit code."""
    options = parse(InfoOptions, "info", arguments)
    from ecvae_jax.cli.info import describe

    print("\n".join(describe(options.path)))
    return 0


RESUMABLE = ("train", "compare")
"""SIGTERM (a machine is taken away) ends them with 75: the same command goes on from what is stored."""


COMPILE_NOTHING = ("prepare", "morph", "export", "info")


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "prepare": prepare,
    "morph": morph,
    "train": train,
    "transfer": transfer,
    "sample": sample,
    "evaluate": evaluate,
    "compare": compare,
    "figure": figure,
    "export": export,
    "plan": plan,
    "info": info,
}


SUMMARIES = {
    "prepare": PrepareOptions, "morph": MorphOptions, "train": TrainOptions, "transfer": TransferOptions,
    "sample": SampleOptions, "evaluate": EvaluateOptions, "compare": CompareOptions, "figure": FigureOptions,
    "export": ExportOptions, "plan": PlanOptions, "info": InfoOptions,
}  # fmt: skip
